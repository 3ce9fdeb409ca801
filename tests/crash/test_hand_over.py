"""A server ends, or is killed, in the middle of an update: `finish` completes the update."""

import signal
from pathlib import Path
from typing import Any

import pytest
from mcp.client.stdio import PROCESS_TERMINATION_TIMEOUT

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, end_of, state_of, status_once
from tests.support.commands import background, finish
from tests.support.hand_over import (
    assert_updated_once,
    start_update_that_waits_for_a_sync,
    wait_until_nobody_is_left,
)
from tests.support.http_server import lines_of
from tests.support.processes import running
from tests.support.updates import (
    AFTER,
    SLOW,
    WRITE,
    is_poll_of_a_sync,
    kill_while_draining,
    refuse_resumes,
    resumed,
    start_update,
    start_update_that_hangs,
)
from tests.support.wire import LEGACY, raw_server, tool_call

SLOW_ONES = [pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGINT")]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stdin", *SLOW_ONES])
def test_a_server_that_ends_while_a_sync_is_waited_for_is_gone_at_once_and_its_update_completed(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any], how: str
) -> None:
    with raw_server(environment, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        if how == "stdin":
            assert server.process.stdin is not None
            server.process.stdin.close()
        else:
            server.process.send_signal(signal.Signals[how])
        assert server.process.wait(PROCESS_TERMINATION_TIMEOUT) == 0
    assert sandbox.connection(SLOW).paused is True
    assert state_of(sandbox, SLOW) == slow

    sandbox.finish_sync(SLOW)

    sandbox.wait_for(resumed(SLOW))
    assert_updated_once(sandbox, SLOW, slow)
    wait_until_nobody_is_left(environment)


@pytest.mark.slow
def test_the_process_that_finishes_an_update_logs_to_a_file_in_the_data_directory(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    with raw_server(environment, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(PROCESS_TERMINATION_TIMEOUT) == 0

    sandbox.finish_sync(SLOW)

    sandbox.wait_for(resumed(SLOW))
    wait_until_nobody_is_left(environment)
    log = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "finish.log"
    assert state_of(sandbox, SLOW) != slow
    messages = [line["message"] for line in lines_of(log)]
    assert {"recovery.taken_over", "update.ended", "hand_over.finished"} <= set(messages)
    assert log.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_module_in_the_data_directory_is_not_imported(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    data, imported = Path(environment["FIVETRAN_STATE_DATA_DIR"]), tmp_path / "imported"
    data.mkdir(mode=0o700)
    for name in ("logging", "typer", "fivetran_state"):
        (data / f"{name}.py").write_text(f"import os; os.mkdir({str(imported)!r})")
    with raw_server(environment, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(PROCESS_TERMINATION_TIMEOUT) == 0

    sandbox.finish_sync(SLOW)

    sandbox.wait_for(resumed(SLOW))
    wait_until_nobody_is_left(environment)
    assert not imported.exists()


@pytest.mark.slow
def test_a_server_that_ends_without_an_update_in_flight_starts_no_other_process(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with raw_server(environment, tmp_path) as server:
        server.say(*LEGACY, tool_call("get_state", connection_id=IDLE))
        server.answer("get_state")
        assert server.exit_code() == 0

        assert "Handed" not in server.stderr


@pytest.mark.slow
async def test_finish_by_hand_completes_the_update_of_a_server_that_was_killed(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        await start_update_that_hangs(server.client, sandbox, AFTER, at_call=WRITE)
        await server.kill()

    finished = finish(environment, tmp_path)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == ""
    assert_updated_once(sandbox, IDLE, before)
    wait_until_nobody_is_left(environment)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGHUP", *SLOW_ONES])
async def test_finish_that_is_ended_by_a_signal_hands_over_in_turn(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any], how: str
) -> None:
    async with running(environment, tmp_path) as server:
        await kill_while_draining(server, sandbox)
    killed_at = len(sandbox.log)
    with background(environment, tmp_path, "fivetran_state", "finish") as process:
        sandbox.wait_for(lambda request: request.index >= killed_at and is_poll_of_a_sync(request))
        process.send_signal(signal.Signals[how])
        assert process.wait(10) == 130

    sandbox.finish_sync(SLOW)

    sandbox.wait_for(resumed(SLOW))
    assert_updated_once(sandbox, SLOW, slow)
    wait_until_nobody_is_left(environment)


@pytest.mark.slow
async def test_finish_waits_for_the_update_of_no_living_server(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update(server.client, SLOW)
        await status_once(server.client, workflow_id, lambda status: status["phase"] == "drain")

        finished = finish(environment, tmp_path)

        # `finish` has left the update alone, and reports that the connection is paused.
        assert finished.returncode == 3
        assert f"{SLOW} is still paused by {workflow_id}" in finished.stderr
        sandbox.finish_sync(SLOW)
        await status_once(server.client, workflow_id, lambda status: status["status"] == "updated")
    assert_updated_once(sandbox, SLOW, slow)


async def test_finish_names_the_connection_that_an_update_has_left_paused(
    sandbox: Sandbox, environment: dict[str, str], connect: Connect, tmp_path: Path
) -> None:
    refuse_resumes(sandbox, IDLE)
    async with connect() as client:
        seen = await client.call_tool("get_state", {"connection_id": IDLE})
        assert seen.structured_content is not None
        await client.call_tool(
            "update_state",
            {
                "connection_id": IDLE,
                "merge_patch": {"cursor": "2020"},
                "expected_version": seen.structured_content["version"],
                "wait_seconds": 0,
            },
        )
        status = await end_of(client, f"{IDLE}:1")
    assert status["error"]["code"] == "left_paused"
    assert status["paused_by_update"] is True

    finished = finish(environment, tmp_path)
    assert finished.returncode == 3
    assert f"{IDLE} is still paused by {IDLE}:1" in finished.stderr

    sandbox.set_paused(IDLE, False)
    assert finish(environment, tmp_path).returncode == 0


def test_finish_with_nothing_to_do_changes_nothing_and_ends(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    finished = finish(environment, tmp_path)

    assert (finished.returncode, finished.stdout) == (0, ""), finished.stderr
    assert [request.path for request in sandbox.log] == ["/v1/account/info"]


def test_finish_that_cannot_start_says_why_and_exits_with_1(
    environment: dict[str, str], tmp_path: Path
) -> None:
    del environment["FIVETRAN_API_SECRET"]

    finished = finish(environment, tmp_path)

    assert finished.returncode == 1
    assert "FIVETRAN_API_SECRET" in finished.stderr
