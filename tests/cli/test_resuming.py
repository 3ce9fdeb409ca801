"""`fivetran-state resume`: what it resumes, whom it asks, and what stays known of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, PAUSED, is_resume, state_of
from tests.support.hand_over import start_update_that_waits_for_a_sync
from tests.support.shell import Shell
from tests.support.updates import SLOW, refuse_resumes, resumed
from tests.support.warm import warm_terminal
from tests.support.wire import raw_server

REWIND = '{"cursor":"2020"}'


@pytest.fixture
def left_paused(shell: Shell, sandbox: Sandbox) -> Any:
    """The state of IDLE, which an update has written and left paused."""
    refuse_resumes(sandbox, IDLE)
    pinned = ("--expected-version", shell.version_of(IDLE), "--json")
    assert shell("update", IDLE, "--merge-patch", REWIND, *pinned).code == 3
    assert sandbox.connection(IDLE).paused is True
    return state_of(sandbox, IDLE)


@pytest.mark.slow
def test_what_an_update_has_left_paused_is_found_resumed_and_kept_in_the_history(
    shell: Shell, sandbox: Sandbox, left_paused: Any
) -> None:
    found = shell("doctor")
    unasked = shell("resume", IDLE)
    assert sandbox.connection(IDLE).paused is True

    ended = shell.done("resume", IDLE, "--yes", "--reason", "The limit is back", "--json").object

    assert found.code == 1
    assert f"BAD  connection {IDLE}: left paused by the update {IDLE}:1" in found.stdout
    assert f"→ Correct what kept it paused, then: fivetran-state resume {IDLE}" in found.stdout
    assert unasked.code == 4
    assert f"The update {IDLE}:1" in unasked.stderr
    assert f"fivetran-state resume {IDLE} --yes" in unasked.stderr
    assert ended["workflow_id"] == f"{IDLE}:2"
    assert ended["message"].startswith("The connection was resumed; its state stays as it was.")
    assert ended["paused_by_update"] in (None, False)
    assert sandbox.connection(IDLE).paused is False
    assert state_of(sandbox, IDLE) == left_paused

    newest = shell.done("history", IDLE, "--json").objects[0]
    status = shell.done("status", f"{IDLE}:2", "--json").object
    assert (newest["workflow_id"], newest["change"]) == (f"{IDLE}:2", "resume")
    assert newest["reason"] == "The limit is back"
    assert status["asked_by"].startswith("shell:")
    assert shell("doctor").code == 0
    assert shell.done("resume", IDLE).stdout == f"{IDLE} is not paused.\n"


@pytest.mark.slow
def test_a_resume_that_fails_leaves_it_known_which_update_has_left_the_connection_paused(
    shell: Shell, sandbox: Sandbox, left_paused: Any
) -> None:
    sandbox.fault("status", method="PATCH", path=f"/{IDLE}$", status=403)

    failed = shell("resume", IDLE, "--yes", "--json")
    again = shell.done("resume", IDLE, "--yes", "--json").object

    assert failed.code == 3
    assert failed.error["code"] == "left_paused"
    assert again["workflow_id"] == f"{IDLE}:3"
    assert sandbox.connection(IDLE).paused is False


@pytest.mark.slow
def test_a_resume_whose_process_is_killed_is_made_by_another_one(
    shell: Shell,
    sandbox: Sandbox,
    environment: dict[str, str],
    tmp_path: Path,
    left_paused: Any,
) -> None:
    sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$")
    command = [sys.executable, "-m", "fivetran_state", "resume", IDLE, "--yes"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
        sandbox.wait_for(lambda request: request.fault == "hang")
        process.kill()

    shell.done("finish")

    assert sandbox.connection(IDLE).paused is False
    assert shell.done("status", f"{IDLE}:2", "--json").object["status"] == "unchanged"


@pytest.mark.slow
def test_what_a_person_has_paused_is_resumed_only_by_a_person(
    shell: Shell, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, PAUSED)
    refused = shell("resume", PAUSED, "--yes", "--json")
    assert sandbox.connection(PAUSED).paused is True

    with warm_terminal(["resume", PAUSED], environment, tmp_path) as screen:
        asked = screen.wait_for("Type yes to agree:")
        screen.type("no\n")
        assert screen.wait() == 4
    with warm_terminal(["resume", PAUSED, "--yes"], environment, tmp_path) as screen:
        screen.wait_for("Type yes to agree:")
        assert sandbox.connection(PAUSED).paused is True
        screen.type("yes\n")
        assert screen.wait() == 0

    assert refused.code == 4
    assert refused.object == {"connection_id": PAUSED, "paused": True, "left_paused_by": None}
    assert "No update has left it paused." in asked
    assert sandbox.connection(PAUSED).paused is False
    assert state_of(sandbox, PAUSED) == before


def test_a_resume_of_what_a_person_has_paused_blames_no_update_if_it_fails(
    shell: Shell,
    sandbox: Sandbox,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    sandbox.fault("status", method="PATCH", path=f"/{PAUSED}$", status=403)
    with warm_terminal(["resume", PAUSED], environment, tmp_path) as screen:
        screen.wait_for("Type yes to agree:")
        screen.type("yes\n")
        assert screen.wait() == 1

    assert shell("doctor").code == 0
    assert shell("resume", PAUSED, "--json").object["left_paused_by"] is None


@pytest.mark.slow
def test_a_connection_with_a_running_update_is_left_to_it(
    shell: Shell,
    environment: dict[str, str],
    sandbox: Sandbox,
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    with raw_server(environment, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        refused = shell("resume", SLOW, "--yes", "--json")
        assert not any(map(is_resume, sandbox.log))
        sandbox.finish_sync(SLOW)
        sandbox.wait_for(resumed(SLOW))

    assert refused.code == 4
    assert refused.error["code"] == "update_in_progress"
    assert refused.error["workflow_id"] == f"{SLOW}:1"


@pytest.mark.parametrize(
    "variables",
    [
        {"FIVETRAN_STATE_READ_ONLY": "true"},
        {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": PAUSED},
        {"FIVETRAN_STATE_CONFIRM": "always"},
    ],
)
def test_the_operator_may_forbid_it(
    shell: Shell,
    sandbox: Sandbox,
    left_paused: Any,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    refused = shell("resume", IDLE, "--yes", "--json")

    assert (refused.code, refused.error["code"]) == (4, "not_allowed")
    assert sandbox.connection(IDLE).paused is True
