"""The commands of operators, for programs."""

import json
from pathlib import Path

import pytest

from tests.support.calls import IDLE
from tests.support.commands import run
from tests.support.shell import Shell


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
