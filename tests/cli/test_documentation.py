"""What docs/how-to/shell.md shows works as it stands there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from fivetran_state.sandbox import Sandbox
from tests.support.calls import ROOT, SYNCING, state_of
from tests.support.shell import Shell

PAGE = (ROOT / "docs/how-to/shell.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_scripts_work(sandbox: Sandbox, environment: dict[str, str], tmp_path: Path) -> None:
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for script in blocks("bash"):
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environment | {"PATH": here},
            cwd=tmp_path,
        )
        assert ended.returncode == 0, ended

    assert state_of(sandbox, SYNCING)["orders"]["cursor"] == "2026-01-01T00:00:00Z"
    assert state_of(sandbox, SYNCING)["schema_version"] == 4


def test_what_is_typed_at_a_terminal_is_understood(shell: Shell) -> None:
    rewind = ("--merge-patch", '{"orders":{"cursor":"2020"}}')
    shell.done("update", SYNCING, *rewind, "--expected-version", shell.version_of(SYNCING))

    commands = [line for block in blocks("sh") for line in block.splitlines()]

    assert len(commands) == 10
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "fivetran-state"
        assert shell(*arguments).code in (0, 2, 4), command
