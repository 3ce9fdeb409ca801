"""A backup is restored on another machine, by the scripts of docs/how-to/back-up.md."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, ROOT, state_of
from tests.support.commands import run
from tests.support.history import create_database
from tests.support.postgres import KEY, URL, Postgres

PAGE = (ROOT / "docs/how-to/back-up.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
DATA_DIR = "FIVETRAN_STATE_DATA_DIR"


def carry_out(script: str, environment: dict[str, str], folder: Path, *programs: Path) -> None:
    path = os.pathsep.join(
        map(str, [*programs, Path(sys.executable).parent, os.environ.get("PATH", "")])
    )
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment | {"PATH": path},
        cwd=folder,
    )
    assert ended.returncode == 0, ended


def done(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    ended = run(environment, folder, *arguments)
    assert ended.returncode == 0, ended
    return ended.stdout


def overwritten(environment: dict[str, str], folder: Path) -> str:
    """A moment before an update overwrites the state of IDLE."""
    version = json.loads(done(environment, folder, "get", IDLE, "--json"))["version"]
    moment = datetime.now(timezone.utc).isoformat()
    change = ("--merge-patch", '{"cursor":"2020"}', "--expected-version", version)
    done(environment, folder, "update", IDLE, *change)
    return moment


def elsewhere(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of a machine that only looks."""
    return environment | {
        DATA_DIR: str(folder / "restored"),
        "FIVETRAN_STATE_READ_ONLY": "true",
    }


def refused_for_its_key(environment: dict[str, str], folder: Path, moment: str) -> None:
    ended = run(environment, folder, "get", IDLE, "--at", moment, "--json")
    assert ended.returncode == 1, ended
    assert json.loads(ended.stdout)["error"]["code"] == "unusable_key"


@pytest.mark.slow
def test_a_sqlite_file_is_restored_with_its_key(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    moment = overwritten(environment, tmp_path)
    there = elsewhere(environment, tmp_path)

    carry_out(SCRIPTS[0], environment, tmp_path)
    shutil.rmtree(environment[DATA_DIR])
    carry_out(SCRIPTS[1], there, tmp_path)

    calls = len(sandbox.log)
    found = json.loads(done(there, tmp_path, "get", IDLE, "--at", moment, "--json"))
    assert found["state"] == before
    assert len(sandbox.log) == calls, "it does not need Fivetran"
    (tmp_path / "restored" / "key").unlink()
    refused_for_its_key(there, tmp_path, moment)
    refused_for_its_key(there | {KEY: "the-key-of-somebody-else"}, tmp_path, moment)


@pytest.mark.slow
def test_a_postgres_database_is_restored_with_its_key(
    sandbox: Sandbox, on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    moment = overwritten(on_postgres, tmp_path)
    there = elsewhere(on_postgres, tmp_path) | {URL: postgres.new_database()}
    create_database(there[URL])

    carry_out(SCRIPTS[2], on_postgres, tmp_path, postgres.programs)
    carry_out(SCRIPTS[3], there, tmp_path, postgres.programs)

    calls = len(sandbox.log)
    found = json.loads(done(there, tmp_path, "get", IDLE, "--at", moment, "--json"))
    assert found["state"] == before
    assert len(sandbox.log) == calls, "it does not need Fivetran"
    refused_for_its_key(there | {KEY: "the-key-of-somebody-else"}, tmp_path, moment)
