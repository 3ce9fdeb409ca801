"""The commands of operators, for programs."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from anyio import to_thread

from fivetran_state.audit import AuditFile
from tests.conftest import Connect
from tests.support.calls import IDLE, version_of
from tests.support.commands import finish, run
from tests.support.shell import Shell
from tests.support.updating import update


def test_the_doctor_resuming_finishing_and_tokens_speak_json(
    environment: dict[str, str], tmp_path: Path, shell: Shell
) -> None:
    shell.done("token", "create", "--scope", "read", "--name", "ci")

    (token,) = shell.done("token", "list", "--json").objects
    findings = [
        json.loads(line)
        for line in run(environment, tmp_path, "doctor", "--json").stdout.splitlines()
    ]

    assert (token["name"], token["scope"], token["has_expired"]) == ("ci", "read", False)
    assert "sha256" not in token
    assert [finding["is_well"] for finding in findings] == [True] * 7
    assert json.loads(run(environment, tmp_path, "resume", IDLE, "--json").stdout) == {
        "connection_id": IDLE,
        "paused": False,
        "left_paused_by": None,
    }
    assert run(environment, tmp_path, "finish", "--json").stdout == ""


def test_what_keeps_finish_from_its_work_is_json_too(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIVETRAN_API_KEY")

    ended = shell("finish", "--json")

    assert ended.code == 1
    assert ended.error["code"] == "missing_credentials"


async def test_a_cancelled_row_of_a_key_keeps_nobody_from_finishing(
    connect: Connect, environment: dict[str, str], tmp_path: Path
) -> None:
    """Somebody has cancelled whatever was running, as an operator may in DBOS's console."""
    async with connect() as client:
        await update(client, IDLE, await version_of(client, IDLE), idempotency_key="k")
    with closing(sqlite3.connect(tmp_path / "data" / "state.db")) as database, database:
        cancel = "UPDATE workflow_status SET status = 'CANCELLED' WHERE workflow_uuid LIKE 'key:%'"
        assert database.execute(cancel).rowcount > 0

    ended = await to_thread.run_sync(finish, environment, tmp_path)

    assert ended.returncode == 0, ended.stderr


def test_the_audit_file_is_verified_and_a_changed_line_named(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path)
    for number in range(3):
        audit.append({"event": "update.started", "number": number})

    whole = shell.done("audit", "verify", str(path), "--json").object
    path.write_text(path.read_text().replace('"number": 1', '"number": 7'))
    changed = shell("audit", "verify", str(path))

    assert (whole["lines"], whole["wrong"], len(whole["last"])) == (3, [], 64)
    assert changed.code == 1
    assert "Line 2 was changed" in changed.stderr


def test_the_audit_file_of_the_settings_is_verified(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    AuditFile(tmp_path / "audit.jsonl").append({"event": "update.started"})
    monkeypatch.setenv("FIVETRAN_STATE_AUDIT_FILE", str(tmp_path / "audit.jsonl"))

    assert "1 lines" in shell.done("audit", "verify").stdout


def test_an_audit_file_that_is_not_there_is_an_error(shell: Shell, tmp_path: Path) -> None:
    assert shell("audit", "verify", str(tmp_path / "none"), "--json").error["code"] == (
        "unusable_settings"
    )
