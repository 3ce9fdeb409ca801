"""The shell at a real terminal and in real pipes: it asks, it shows, and it can be left."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import IDLE, LARGE, is_pause, state_of
from tests.support.hand_over import wait_until_nobody_is_left
from tests.support.rest import ANY, post
from tests.support.shell import Shell
from tests.support.terminal import Terminal, terminal
from tests.support.updates import SLOW, resumed

FIVETRAN_STATE = [sys.executable, "-m", "fivetran_state"]
REWIND = ("--merge-patch", '{"cursor":"2020"}')
CTRL_C = "\x03"
QUESTION = "Type yes to agree:"


@pytest.mark.slow
def test_at_a_terminal_it_asks_and_shows_the_end(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)["cursor"]
    with terminal([*FIVETRAN_STATE, "update", IDLE, *REWIND], environment, tmp_path) as screen:
        asked = screen.wait_for(QUESTION)
        assert f"Change the state of {IDLE}" in asked
        assert f'(1 of 1) /cursor: from "{before}" to "2020"' in asked
        assert not any(map(is_pause, sandbox.log))
        screen.type("yes\n")

        assert screen.wait() == 0

    assert state_of(sandbox, IDLE) == {"cursor": "2020"}
    assert "\x1b[32mThe new state was written" in screen.screen


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["no\n", "\n", "yes please\n", CTRL_C, "\x04"])
def test_anything_but_a_yes_changes_nothing(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, answer: str
) -> None:
    with terminal([*FIVETRAN_STATE, "update", IDLE, *REWIND], environment, tmp_path) as screen:
        screen.wait_for(QUESTION)
        screen.type(answer)

        assert screen.wait() == 4

    assert "nothing was written" in screen.screen
    assert not any(map(is_pause, sandbox.log))


@pytest.mark.slow
def test_with_json_it_asks_too_and_stdout_has_only_the_result(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [*FIVETRAN_STATE, "update", IDLE, *REWIND, "--json"]
    with (
        (tmp_path / "stdout").open("wb") as stdout,
        terminal(command, environment, tmp_path, stdout=stdout.fileno()) as screen,
    ):
        screen.wait_for(QUESTION)
        screen.type("yes\n")
        assert screen.wait() == 0

    assert json.loads((tmp_path / "stdout").read_text())["status"] == "updated"


@pytest.mark.slow
def test_a_state_that_moves_during_the_question_is_asked_about_again(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    with terminal([*FIVETRAN_STATE, "update", IDLE, *REWIND], environment, tmp_path) as screen:
        screen.wait_for(QUESTION)
        sandbox.set_state(IDLE, '{"cursor":"moved"}')
        screen.type("yes\n")
        screen.wait_for('from "moved" to "2020"')
        screen.type("no\n")

        assert screen.wait() == 4

    assert state_of(sandbox, IDLE) == {"cursor": "moved"}


@pytest.mark.slow
def test_what_a_question_cannot_show_in_full_is_not_asked(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [*FIVETRAN_STATE, "copy", LARGE, IDLE]
    with terminal(command, environment, tmp_path) as screen:
        assert screen.wait() == 4
        assert QUESTION not in screen.screen
        assert "--dry-run" in screen.screen
    with terminal([*command, "--dry-run"], environment, tmp_path) as screen:
        assert screen.wait() == 0
        assert "+ /tables: " in screen.screen

    assert not any(map(is_pause, sandbox.log))


@pytest.mark.slow
def test_where_nobody_is_to_be_asked_the_plan_is_shown(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    headless = environment | {"FIVETRAN_STATE_CONFIRM": "never"}
    with terminal([*FIVETRAN_STATE, "update", IDLE, *REWIND], headless, tmp_path) as screen:
        assert screen.wait() == 4

    assert "--expected-version" in screen.screen
    assert not any(map(is_pause, sandbox.log))


@pytest.mark.slow
def test_an_edit_is_asked_about(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    sandbox.set_state(IDLE, '{"price":1.10}')
    variables = environment | {"EDITOR": "sed -i s/1.10/1.20/"}
    with terminal([*FIVETRAN_STATE, "edit", IDLE], variables, tmp_path) as screen:
        assert "(1 of 1) /price: from 1.10 to 1.20" in screen.wait_for(QUESTION)
        screen.type("y\n")

        assert screen.wait() == 0

    assert sandbox.connection(IDLE).state == '{"price":1.20}'


@pytest.mark.slow
def test_a_folder_is_asked_about_as_a_whole(
    shell: Shell, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    sandbox.add_connection("one", state='{"cursor":1}')
    sandbox.add_connection("other", state='{"cursor":1}')
    shell.done("export", str(tmp_path / "states"), "one", "other")
    for path in (tmp_path / "states").iterdir():
        path.write_text(path.read_text().replace('"cursor": 1', '"cursor": 2'))

    with terminal([*FIVETRAN_STATE, "apply", "states"], environment, tmp_path) as screen:
        asked = screen.wait_for(QUESTION)
        assert "Change the state of one," in asked
        assert "Change the state of other," in asked
        screen.type("yes\n")
        assert screen.wait() == 0

    assert state_of(sandbox, "one") == state_of(sandbox, "other") == {"cursor": 2}


@pytest.mark.slow
def test_ctrl_c_leaves_an_update_running_and_says_so(
    shell: Shell,
    sandbox: Sandbox,
    slow: dict[str, Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    with terminal([*FIVETRAN_STATE, "update", SLOW, *REWIND], environment, tmp_path) as screen:
        screen.wait_for(QUESTION)
        screen.type("yes\n")
        screen.wait_for("· Waiting for the running sync")
        screen.type(CTRL_C)
        assert screen.wait() == 130
    assert f"The update {SLOW}:1 goes on by itself" in screen.screen
    watch = [*FIVETRAN_STATE, "status", f"{SLOW}:1", "--watch"]
    assert f"fivetran-state status {SLOW}:1 --watch" in screen.screen
    assert state_of(sandbox, SLOW) == slow
    assert shell("status", f"{SLOW}:1").code == 3

    with terminal(watch, environment, tmp_path) as left:
        left.wait_for("· Waiting for the running sync")
        left.type(CTRL_C)
        assert left.wait() == 130
    assert f"The update {SLOW}:1 goes on by itself" in left.screen
    with terminal([*watch, "--json"], environment, tmp_path) as watching:
        watching.wait_for('"phase":"drain"')
        sandbox.finish_sync(SLOW)
        assert watching.wait() == 0

    *phases, end = map(json.loads, watching.screen.splitlines())
    assert phases[0]["paused_by_update"] is True
    assert (end["workflow_id"], end["status"]) == (f"{SLOW}:1", "updated")
    assert state_of(sandbox, SLOW) == {"cursor": "2020"}
    sandbox.wait_for(resumed(SLOW))
    wait_until_nobody_is_left(environment)


@pytest.mark.slow
def test_an_update_that_waits_is_cancelled_from_another_shell(
    shell: Shell,
    sandbox: Sandbox,
    slow: dict[str, Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    version = shell.version_of(SLOW)
    command = [*FIVETRAN_STATE, "update", SLOW, *REWIND, "--expected-version", version, "--yes"]
    with terminal(command, environment, tmp_path) as screen:
        screen.wait_for("· Waiting for the running sync")

        cancelled = shell.done("cancel", f"{SLOW}:1", "--json").object

        assert screen.wait() == 1
    assert cancelled["status"] == "cancelled"
    assert state_of(sandbox, SLOW) == slow
    assert sandbox.connection(SLOW).paused is False


@pytest.mark.slow
async def test_connections_that_are_changed_together_are_watched_to_their_end(
    http: Serve,
    sandbox: Sandbox,
    slow: dict[str, Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    def watched(group: str) -> str:
        command = [*FIVETRAN_STATE, "status", group, "--watch"]
        with terminal(command, environment, tmp_path) as screen:
            screen.wait_for(f"· {SLOW}:1: Waiting for the running sync")
            sandbox.finish_sync(SLOW)
            assert screen.wait() == 0
        return screen.screen

    async with http() as server:
        body = ANY | {"connection_ids": [IDLE, SLOW], "merge_patch": {"cursor": "2020"}}
        group = await post(
            server.client, "/state/update-multiple", body, status=202, Prefer="respond-async"
        )
        shown = await to_thread.run_sync(watched, group["workflow_id"])

    assert "2 connections: 2 updated" in shown
    assert f"{SLOW}:1: updated." in shown


def colours(screen: Terminal) -> list[str]:
    assert screen.wait() == 0
    return re.findall(r"\x1b[^m]*m", screen.screen)


@pytest.mark.slow
def test_there_are_colours_only_where_they_are_wanted(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = [*FIVETRAN_STATE, "connections", "--name", IDLE]
    with terminal(command, environment, tmp_path) as screen:
        assert colours(screen)
    with terminal(command, environment | {"NO_COLOR": "1"}, tmp_path) as screen:
        assert colours(screen) == []
    with (
        (tmp_path / "stdout").open("wb") as stdout,
        terminal(command, environment, tmp_path, stdout=stdout.fileno()) as screen,
    ):
        assert colours(screen) == []
    assert b"\x1b" not in (tmp_path / "stdout").read_bytes()


@pytest.mark.slow
def test_a_state_flows_from_one_command_into_another(
    shell: Shell, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    version = shell.version_of(IDLE)
    with subprocess.Popen(
        [*FIVETRAN_STATE, "get", "exact_ledger"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=tmp_path,
    ) as getting:
        updated = subprocess.run(
            [*FIVETRAN_STATE, "update", IDLE, "--new-state", "-", "--expected-version", version],
            stdin=getting.stdout,
            capture_output=True,
            timeout=60,
            check=False,
            env=environment,
            cwd=tmp_path,
        )

    assert updated.returncode == 0, updated
    assert sandbox.connection(IDLE).state == sandbox.connection("exact_ledger").state


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_change_how_a_command_ends(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*FIVETRAN_STATE, "connections"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""

    assert process.returncode == 0
