"""With a real PostgreSQL: servers are killed, sessions are ended, and the database goes away."""

import json
import signal
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp.client.stdio import PROCESS_TERMINATION_TIMEOUT

from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.sandbox.faults import FaultKind
from fivetran_state.sandbox.server import SandboxServer
from tests.conftest import Connect
from tests.support.calls import (
    API_KEY,
    API_SECRET,
    IDLE,
    PAUSED,
    api_calls,
    arrival,
    call,
    end_of,
    in_order,
    refused,
    state_of,
    until,
    version_of,
)
from tests.support.commands import background
from tests.support.files import files_under, where
from tests.support.hand_over import start_update_that_waits_for_a_sync
from tests.support.postgres import EXECUTORS, KEY, PASSWORD, SECRET_KEY, URL, Postgres
from tests.support.processes import Server, ended, noticed_once_more, running
from tests.support.updates import (
    AFTER,
    BEFORE,
    CALLS,
    CALLS_TO_READ,
    RUNNING_CALLS,
    SLOW,
    WRITE,
    assert_updated_once,
    changes,
    is_poll_of_a_sync,
    kill_while_draining,
    resumed,
    start_update,
    start_update_that_hangs,
)
from tests.support.wire import raw_server


async def answered_once(server: Server, tool: str, **arguments: Any) -> dict[str, Any]:
    """The tool's first answer that is not an error; fails the test after 60 s."""

    async def answer() -> dict[str, Any] | None:
        result = await server.client.call_tool(tool, arguments)
        return None if result.is_error else result.structured_content

    return await until(answer, 60)


async def poll(sandbox: Sandbox, since: int) -> LoggedRequest:
    """The next poll of the running sync that Fivetran has answered."""
    return await arrival(
        sandbox,
        lambda request: (
            request.index >= since and is_poll_of_a_sync(request) and request.status is not None
        ),
    )


# An update


async def test_an_update_takes_seven_calls(
    sandbox: Sandbox, on_postgres: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(on_postgres, tmp_path) as server:
        workflow_id = await start_update(server.client)
        await assert_updated_once(server.client, sandbox, workflow_id, before)

    calls = api_calls(sandbox, IDLE)[CALLS_TO_READ:]
    assert in_order(calls)[: len(RUNNING_CALLS)] == RUNNING_CALLS


# Killed

KILLS = [(BEFORE, at_call) for at_call in CALLS] + [(AFTER, at_call) for at_call in CALLS]
BEFORE_THE_VERIFYING = (BEFORE, 6)


def kills(always: list[tuple[FaultKind, int]]) -> list[Any]:
    """Every point at which to kill; all but `always` are marked as slow."""
    return [
        pytest.param(
            kind,
            at_call,
            id=f"{'before' if kind == BEFORE else 'after'} {CALLS[at_call]}",
            marks=() if (kind, at_call) in always else pytest.mark.slow,
        )
        for kind, at_call in KILLS
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "at_call"), kills([BEFORE_THE_VERIFYING]))
async def test_a_killed_update_is_completed_once_by_a_server_that_was_running(
    sandbox: Sandbox, on_postgres: dict[str, str], tmp_path: Path, kind: FaultKind, at_call: int
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(on_postgres, tmp_path) as living, running(on_postgres, tmp_path) as dying:
        await call(living.client, "get_state", connection_id=PAUSED)
        workflow_id = await start_update_that_hangs(dying.client, sandbox, kind, at_call=at_call)
        await dying.kill()

        await assert_updated_once(living.client, sandbox, workflow_id, before)


@pytest.mark.slow
async def test_an_update_killed_while_a_sync_runs_is_completed_once_by_a_server_that_was_running(
    sandbox: Sandbox, on_postgres: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    async with running(on_postgres, tmp_path) as living, running(on_postgres, tmp_path) as dying:
        await call(living.client, "get_state", connection_id=PAUSED)
        workflow_id = await kill_while_draining(dying, sandbox)
        await poll(sandbox, since=len(sandbox.log))
        assert state_of(sandbox, SLOW) == slow
        sandbox.finish_sync(SLOW)

        await assert_updated_once(living.client, sandbox, workflow_id, slow)


# The session that holds the lock is ended


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks at Linux's sockets")
async def test_the_database_notices_within_seconds_that_a_host_has_vanished(
    connect: Connect, on_postgres: dict[str, str], postgres: Postgres
) -> None:
    """Connections to a machine without power do not end by themselves; by default they last two
    hours."""
    async with connect(**on_postgres) as client:
        await call(client, "list_connections")

        assert postgres.seconds_until_it_asks_for_life(on_postgres[URL]) <= 5


@pytest.mark.slow
async def test_a_server_that_lost_its_lock_leaves_its_update_to_the_one_that_took_over(
    on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    """Each server has its own URL for the same simulated account, which shows who called."""
    first, second = (
        Sandbox(tmp_path / "world.db", api_key=API_KEY, api_secret=API_SECRET, seed=False)
        for _ in range(2)
    )
    before = {"cursor": "2026-01-01T00:00:00Z"}
    first.add_connection(
        SLOW, state=json.dumps(before), drain_seconds=3600, stopped_sync_counts=False
    )
    first.start_sync(SLOW)
    with SandboxServer(first) as door_1, SandboxServer(second) as door_2:
        async with running(on_postgres, tmp_path, FIVETRAN_API_URL=door_1.url) as losing:
            workflow_id = await start_update(losing.client, SLOW)
            await poll(first, since=0)
            async with AsyncExitStack() as stack:
                with ExitStack() as frozen:
                    # This transaction gets the row that others need.
                    with postgres.held_row(on_postgres[URL], workflow_id) as wait_for_another:
                        wait_for_another()
                        frozen.enter_context(losing.suspended())
                    postgres.terminate_executor(on_postgres[URL])
                    winning = await stack.enter_async_context(
                        running(on_postgres, tmp_path, FIVETRAN_API_URL=door_2.url)
                    )
                    await poll(second, since=0)
                await call(losing.client, "get_state", connection_id=SLOW)
                second.finish_sync(SLOW)

                for server in (winning, losing):
                    status = await ended(server.client, workflow_id)
                    assert status["status"] == "updated", status

    assert changes(first, SLOW) == "p"
    assert changes(second, SLOW) == "wr"
    assert state_of(second, SLOW) == before | {"cursor": "2020"}
    assert second.connection(SLOW).paused is False
    first.close()
    second.close()


@pytest.mark.slow
async def test_the_update_of_a_server_that_lost_its_lock_is_completed_once_whoever_is_first(
    sandbox: Sandbox,
    on_postgres: dict[str, str],
    postgres: Postgres,
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    async with running(on_postgres, tmp_path) as losing:
        workflow_id = await start_update(losing.client, SLOW)
        await poll(sandbox, since=0)
        async with running(on_postgres, tmp_path) as other:
            await call(other.client, "get_state", connection_id=SLOW)
            postgres.terminate_executor(on_postgres[URL])
            sandbox.finish_sync(SLOW)

            await assert_updated_once(other.client, sandbox, workflow_id, slow)
            assert (await ended(losing.client, workflow_id))["status"] == "updated"

    assert changes(sandbox, SLOW) == "pwr"


@pytest.mark.slow
async def test_a_lonely_server_that_lost_its_lock_takes_it_again_and_completes_its_update(
    sandbox: Sandbox,
    on_postgres: dict[str, str],
    postgres: Postgres,
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    url = on_postgres[URL]
    held = (
        f"SELECT pid {EXECUTORS} AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    )
    async with running(on_postgres, tmp_path) as server:
        workflow_id = await start_update(server.client, SLOW)
        await poll(sandbox, since=0)
        lost = postgres.terminate_executor(url)

        async def is_held_again() -> bool:
            holders = await anyio.to_thread.run_sync(postgres.query, url, held)
            return holders not in ([], [(lost,)])

        await until(is_held_again)
        sandbox.finish_sync(SLOW)

        await assert_updated_once(server.client, sandbox, workflow_id, slow)

    assert changes(sandbox, SLOW) == "pwr"
    assert "was lost" in (tmp_path / "stderr.txt").read_text()


# The database is away


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "times_noticed"),
    [("tcp", 2), ("socket", 2), ("tcp", 15)],
)
async def test_an_update_is_completed_once_by_the_same_server_after_the_database_was_away(
    sandbox: Sandbox,
    on_postgres: dict[str, str],
    postgres: Postgres,
    tmp_path: Path,
    slow: dict[str, Any],
    way: str,
    times_noticed: int,
) -> None:
    """Each way to fail has its own error text. A failure is noticed every two seconds.

    DBOS waits once more for as long as the database was away, before it looks again.
    """
    if way == "socket":
        on_postgres[URL] = postgres.through_socket(on_postgres[URL])
    async with running(on_postgres, tmp_path) as server:
        workflow_id = await start_update(server.client, SLOW)
        await poll(sandbox, since=0)
        with postgres.stopped():
            for _ in range(times_noticed):  # Longer than the update sleeps before it looks again.
                await noticed_once_more(tmp_path)
            sandbox.finish_sync(SLOW)
            calls: dict[str, dict[str, Any]] = {
                "get_state": {"connection_id": IDLE},
                "workflow_status": {"workflow_id": workflow_id},
                "update_state": {
                    "connection_id": IDLE,
                    "merge_patch": {"cursor": "2020"},
                    "expected_version": "0" * 32,
                },
            }
            for tool, arguments in calls.items():
                error = await refused(server.client, tool, **arguments)
                assert error["code"] == "database_unavailable", (tool, error)
            assert changes(sandbox, SLOW) == "p"

        status = await answered_once(
            server, "workflow_status", workflow_id=workflow_id, wait_seconds=50
        )
        assert status["status"] == "updated"
        await assert_updated_once(server.client, sandbox, workflow_id, slow)

    assert changes(sandbox, SLOW) == "pwr"


@pytest.mark.slow
async def test_a_write_whose_checkpoint_met_no_database_is_not_made_twice(
    sandbox: Sandbox, on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(on_postgres, tmp_path) as server:
        write = sandbox.fault(AFTER, method="PATCH", path=f"/{IDLE}/state$")
        workflow_id = await start_update(server.client)
        await arrival(sandbox, lambda request: request.fault == AFTER)
        with postgres.stopped():
            write.release()
            await arrival(sandbox, lambda r: r.fault == AFTER and r.status is not None)
            await noticed_once_more(tmp_path)

        await answered_once(server, "workflow_status", workflow_id=workflow_id, wait_seconds=30)
        await assert_updated_once(server.client, sandbox, workflow_id, before)


@pytest.mark.slow
async def test_a_server_that_found_no_database_comes_up_when_there_is_one_and_tells_no_password(
    sandbox: Sandbox, on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with AsyncExitStack() as stack:
        with postgres.stopped():
            server = await stack.enter_async_context(
                running(on_postgres, tmp_path, FIVETRAN_STATE_LOG_LEVEL="DEBUG")
            )
            error = await refused(server.client, "get_state", connection_id=IDLE)
            assert error["code"] == "database_unavailable"
            (tmp_path / "answers.txt").write_text(json.dumps(error))

        await answered_once(server, "get_state", connection_id=IDLE)
        await assert_updated_once(server.client, sandbox, await start_update(server.client), before)
    assert "Not up yet" in (tmp_path / "stderr.txt").read_text()
    assert where([PASSWORD, SECRET_KEY, API_SECRET], files_under(tmp_path)) == []


# The server ends


@pytest.mark.slow
def test_a_server_that_ends_while_a_sync_is_waited_for_hands_its_update_over(
    sandbox: Sandbox, on_postgres: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    with raw_server(on_postgres, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PROCESS_TERMINATION_TIMEOUT) == 0

    sandbox.finish_sync(SLOW)

    sandbox.wait_for(resumed(SLOW))
    assert changes(sandbox, SLOW) == "pwr"
    assert state_of(sandbox, SLOW) == slow | {"cursor": "2020"}


@pytest.mark.slow
async def test_a_server_that_ends_while_the_database_is_away_is_gone_at_once_and_loses_nothing(
    connect: Connect,
    sandbox: Sandbox,
    on_postgres: dict[str, str],
    postgres: Postgres,
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    with raw_server(on_postgres, tmp_path) as server:
        start_update_that_waits_for_a_sync(server, sandbox)
        with postgres.stopped():
            assert server.process.stdin is not None
            server.process.stdin.close()
            assert server.process.wait(PROCESS_TERMINATION_TIMEOUT) == 0
    sandbox.finish_sync(SLOW)

    async with connect(**on_postgres) as client:
        await assert_updated_once(client, sandbox, f"{SLOW}:1", slow)


@pytest.mark.slow
async def test_a_process_that_updates_are_handed_over_to_waits_for_a_database_that_is_away(
    sandbox: Sandbox,
    on_postgres: dict[str, str],
    postgres: Postgres,
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    async with running(on_postgres, tmp_path) as server:
        await kill_while_draining(server, sandbox)
    sandbox.finish_sync(SLOW)
    log = Path(on_postgres["FIVETRAN_STATE_DATA_DIR"]) / "finish.log"

    async def is_waiting() -> bool:
        return log.exists() and "Not up yet" in log.read_text()

    with ExitStack() as stack:
        with postgres.stopped():
            command = ("fivetran_state", "finish", "--after", "nobody")
            process = stack.enter_context(background(on_postgres, tmp_path, *command))
            await until(is_waiting)
        await arrival(sandbox, resumed(SLOW))
        assert await anyio.to_thread.run_sync(process.wait, 30) == 0
    assert state_of(sandbox, SLOW) == slow | {"cursor": "2020"}


# Keys


async def test_without_a_key_of_its_own_a_server_says_that_it_needs_the_one_of_all(
    connect: Connect, sandbox: Sandbox, on_postgres: dict[str, str], tmp_path: Path
) -> None:
    del on_postgres[KEY]
    async with connect(**on_postgres) as client:
        error = await refused(client, "get_state", connection_id=IDLE)

    assert error["code"] == "unusable_key"
    assert "Postgres" in error["message"]
    assert KEY in error["message"] + error["hint"]
    assert not (tmp_path / "data" / "key").exists()


@pytest.mark.slow
async def test_a_server_with_another_key_says_so_and_leaves_a_dead_ones_update_alone(
    connect: Connect, sandbox: Sandbox, on_postgres: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(on_postgres, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, BEFORE, at_call=WRITE)
        await server.kill()
    killed_at = len(sandbox.log)

    async with running(on_postgres | {KEY: "the key of somebody else"}, tmp_path) as server:
        error = await refused(server.client, "get_state", connection_id=IDLE)
    assert error["code"] == "unusable_key"
    assert [r for r in sandbox.log[killed_at:] if r.connection_id is not None] == []

    async with connect(**on_postgres) as client:
        await assert_updated_once(client, sandbox, workflow_id, before)


@pytest.mark.slow
async def test_a_server_with_another_key_leaves_everything_alone_from_the_first_start_on(
    sandbox: Sandbox, on_postgres: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(on_postgres, tmp_path) as dying:
        await version_of(dying.client, IDLE)  # This database has no updates.
        async with running(on_postgres | {KEY: "the key of somebody else"}, tmp_path) as other:
            error = await refused(other.client, "get_state", connection_id=PAUSED)
            assert error["code"] == "unusable_key"
            workflow_id = await start_update_that_hangs(
                dying.client, sandbox, BEFORE, at_call=WRITE
            )
            await dying.kill()
            async with running(on_postgres, tmp_path) as server:
                status = await ended(server.client, workflow_id)
                assert status["status"] == "updated", status
                await assert_updated_once(server.client, sandbox, workflow_id, before)


@pytest.mark.slow
async def test_a_dump_of_the_database_shows_no_secret_no_key_and_no_state(
    sandbox: Sandbox, on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    old, new, why = "marker-of-what-was-there", "marker-of-what-is-written", "marker-of-a-reason"
    sandbox.set_state(IDLE, json.dumps({"cursor": old}))
    sandbox.set_state(PAUSED, json.dumps({"cursor": old}))
    async with running(on_postgres, tmp_path) as server:
        for connection_id, wanted in ((IDLE, "updated"), (PAUSED, "failed")):
            if wanted == "failed":
                sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"a":"b"}')
            started = await call(
                server.client,
                "update_state",
                connection_id=connection_id,
                merge_patch={"cursor": new},
                expected_version=await version_of(server.client, connection_id),
                reason=why,
                idempotency_key=f"{why}-{connection_id}",
                wait_seconds=0,
            )
            status = await end_of(server.client, started["workflow_id"])
            assert status["status"] == wanted
        await start_update_that_hangs(
            server.client, sandbox, AFTER, at_call=3, connection_id=PAUSED
        )
        await server.kill()

    (tmp_path / "dump.sql").write_bytes(postgres.dump(on_postgres[URL]))

    assert f"{IDLE}:1" in (tmp_path / "dump.sql").read_text()
    kept_secret = [API_SECRET, PASSWORD, SECRET_KEY, old, new, why]
    assert where(kept_secret, iter([tmp_path / "dump.sql"])) == []
    assert where([PASSWORD, SECRET_KEY], iter([tmp_path / "stderr.txt"])) == []
