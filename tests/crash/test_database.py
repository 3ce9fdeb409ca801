"""The database fails for a moment: a result that it did not record does not count, and the step
runs again."""

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest

from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.updates import marks
from tests.conftest import Connect, Serve
from tests.support import matrix
from tests.support.calls import (
    IDLE,
    PAUSED,
    Watch,
    api_calls,
    arrival,
    call,
    state_of,
    until,
    version_of,
)
from tests.support.people import person
from tests.support.postgres import URL, Postgres
from tests.support.processes import ended, noticed_once_more, running
from tests.support.rest import ANY, get, post
from tests.support.updates import CALLS_TO_READ, start_update

PATCH = {"rewound": True}
FOREIGN = {"cursor": "by somebody else"}

HasFailed = Callable[[], Awaitable[bool]]


@pytest.fixture
def has_failed(caplog: pytest.LogCaptureFixture) -> HasFailed:
    """True if the database has broken off an update."""

    async def look() -> bool:
        return "The database failed" in caplog.messages

    return look


@contextmanager
def refusing(
    environment: dict[str, str], step: str = "", connection_id: str = IDLE
) -> Iterator[None]:
    """The database refuses to record a success of this step, or of the whole update. It would
    record a failure."""
    what = (
        f"INSERT ON operation_outputs WHEN NEW.function_name = '{step}' AND NEW.error IS NULL"
        if step
        else "UPDATE ON workflow_status WHEN NEW.status = 'SUCCESS'"
    )
    with failing(environment, f"{what} AND NEW.workflow_uuid LIKE '{connection_id}:%'"):
        yield


@contextmanager
def failing(environment: dict[str, str], what: str) -> Iterator[None]:
    """The database refuses to do this."""
    path = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "state.db"
    _execute(
        path,
        f"CREATE TRIGGER full BEFORE {what} "
        "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END",
    )
    yield
    _execute(path, "DROP TRIGGER full")


def request(version: str) -> dict[str, Any]:
    """A request that does not wait for the end of the update."""
    return {
        "connection_id": IDLE,
        "merge_patch": PATCH,
        "expected_version": version,
        "wait_seconds": 0,
    }


def _execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as database, database:
        database.execute(sql)


@pytest.mark.parametrize("step", ["inspect", "pause", "write", "verify", "resume"])
async def test_a_step_that_is_not_recorded_is_done_again_and_the_update_ends_well(
    connect: Connect,
    sandbox: Sandbox,
    environment: dict[str, str],
    has_failed: HasFailed,
    step: str,
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        with refusing(environment, step):
            started = await call(client, "update_state", **request(version))
            await until(has_failed)
        status = await call(
            client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
        )

    assert (status["status"], status["paused_by_update"]) == ("updated", False)
    watch.ended_with(watch.old | PATCH)
    assert len([each for each in watch.requests("PATCH", state=True) if each.applied]) == 1


async def test_an_update_whose_end_is_not_recorded_ends_once_it_can_be(
    connect: Connect,
    sandbox: Sandbox,
    environment: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def is_run_again() -> bool:
        return any(message.startswith("Going on with") for message in caplog.messages)

    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        with refusing(environment):
            started = await call(client, "update_state", **request(version))
            await until(is_run_again)
        status = await call(
            client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
        )

    assert status["status"] == "updated"
    watch.ended_with(watch.old | PATCH)
    # The status reads too.
    assert len(watch.calls) == len(matrix.RUNNING) + CALLS_TO_READ


async def test_what_somebody_else_wrote_before_a_write_is_done_again_is_left_as_it_is(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], has_failed: HasFailed
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        with refusing(environment, "write"):
            started = await call(client, "update_state", **request(version))
            await until(has_failed)
            sandbox.set_state(IDLE, '{"cursor":"by somebody else"}')
        status = await call(
            client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
        )

    assert status["error"]["code"] == "conflict"
    assert state_of(sandbox, IDLE) == FOREIGN
    assert not sandbox.connection(IDLE).paused


async def test_connections_are_changed_together_though_a_step_of_one_is_not_recorded(
    http: Serve, sandbox: Sandbox, environment: dict[str, str], has_failed: HasFailed
) -> None:
    watches = [Watch(sandbox, name) for name in (IDLE, PAUSED)]
    body = ANY | {"connection_ids": [IDLE, PAUSED], "merge_patch": PATCH}
    async with http() as server:
        await get(server.client, "/connections")
        with refusing(environment, "write", PAUSED):
            path = "/state/update-multiple"
            started = await post(server.client, path, body, status=202, Prefer="respond-async")
            await until(has_failed)
        ended = await get(server.client, f"/workflows/{started['workflow_id']}", wait=50)

    assert ended["status"] == "updated"
    for watch in watches:
        watch.ended_with(watch.old | PATCH)


async def test_an_approved_group_is_started_when_the_database_is_there_again(
    http: Serve, sandbox: Sandbox, environment: dict[str, str], has_failed: HasFailed
) -> None:
    watches = [Watch(sandbox, name) for name in (IDLE, PAUSED)]
    body = {"connection_ids": [IDLE, PAUSED], "merge_patch": PATCH, "propose": True}
    async with (
        http() as server,
        person(server, "write") as asker,
        person(server, "approve") as approver,
    ):
        proposal = (await asker.post("/states/update", ANY | body, status=202))["workflow_id"]
        async with anyio.create_task_group() as tasks:
            with failing(environment, f"INSERT ON {marks.table.name}"):
                tasks.start_soon(approver.approve, proposal)
                await until(has_failed)
        ended = await asker.get(f"/workflows/{proposal}")

    assert (ended["status"], ended["counts"]) == ("updated", {"updated": 2})
    for watch in watches:
        watch.ended_with(watch.old | PATCH)


@pytest.mark.slow
async def test_a_recording_that_postgres_cancels_is_no_outcome(
    sandbox: Sandbox, on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    url, before = on_postgres[URL], state_of(sandbox, IDLE)
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query ILIKE 'INSERT INTO%operation_outputs%'"
    )

    async def recording() -> int | None:
        rows = await anyio.to_thread.run_sync(postgres.query, url, waiting)
        return rows[0][0] if rows else None

    async with running(on_postgres, tmp_path) as server:
        hold = sandbox.fault("apply_then_hang", method="PATCH", path=f"/{IDLE}$")
        workflow_id = await start_update(server.client)
        await arrival(sandbox, lambda each: each.fault == "apply_then_hang")
        with psycopg.connect(url) as session:
            session.execute("LOCK TABLE dbos.operation_outputs IN SHARE ROW EXCLUSIVE MODE")
            hold.release()
            postgres.query(url, f"SELECT pg_cancel_backend({await until(recording)})")
        status = await ended(server.client, workflow_id)

    assert status["status"] == "updated"
    assert state_of(sandbox, IDLE) == before | {"cursor": "2020"}
    assert not sandbox.connection(IDLE).paused


@pytest.mark.slow
async def test_a_write_in_doubt_outlasts_a_database_that_is_away(
    sandbox: Sandbox, on_postgres: dict[str, str], postgres: Postgres, tmp_path: Path
) -> None:
    def is_look(request: LoggedRequest) -> bool:
        return request.fault == "hang"

    before = state_of(sandbox, IDLE)
    async with running(on_postgres, tmp_path) as server:
        sandbox.fault("status", method="PATCH", path="/state$", status=500)
        # The state is read before the update, at its inspection, and for its snapshot.
        hold = sandbox.fault("hang", method="GET", path="/state$", skip=3)
        workflow_id = await start_update(server.client)
        await arrival(sandbox, is_look)
        with postgres.stopped():
            hold.release()
            await noticed_once_more(tmp_path)

        async def status() -> str | None:
            asked = {"workflow_id": workflow_id, "wait_seconds": 20}
            answer = await server.client.call_tool("workflow_status", asked)
            return (answer.structured_content or {}).get("status")

        assert await until(status, 60) == "updated"

    assert state_of(sandbox, IDLE) == before | {"cursor": "2020"}
    assert api_calls(sandbox, IDLE)[-1 - CALLS_TO_READ] == "PATCH"  # The status asks as well.
    assert not sandbox.connection(IDLE).paused
