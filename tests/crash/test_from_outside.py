"""Somebody ends, or deletes, an update in the database: its connection is resumed all the same."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from fivetran_state.sandbox import Fault, LoggedRequest, Sandbox
from fivetran_state.sandbox.faults import FaultKind
from tests.support.calls import (
    IDLE,
    SYNCING,
    Watch,
    arrival,
    call,
    is_pause,
    is_resume,
    refused,
    status_once,
    sync_runs_on,
    version_of,
)
from tests.support.commands import doctor, finish
from tests.support.http_server import http_running
from tests.support.matrix import each_with_each
from tests.support.outside import delete_after, delete_in_database, end_in_database
from tests.support.processes import Server, running
from tests.support.rest import get, post
from tests.support.updates import (
    AFTER,
    BEFORE,
    CALLS,
    is_write,
    start_update,
    start_update_that_hangs,
    took_effect,
)

CHANGE = {"cursor": "2020"}


@dataclass(frozen=True)
class Moment:
    """When somebody ends the update, and how it has to end."""

    connection_id: str
    fault: dict[str, Any] | None
    """What keeps the update where it is; None: a sync that runs on."""
    phase: str
    """Where the update then says that it is."""
    is_written: bool

    def hold(self, sandbox: Sandbox) -> Fault | None:
        if self.fault is None:
            sync_runs_on(sandbox)
            return None
        return sandbox.fault(path=f"/{self.connection_id}/state$", **self.fault)

    def has_come(self, request: LoggedRequest) -> bool:
        """Whether this request shows that the update is where it is to be ended."""
        if self.fault is None:
            is_poll = request.method == "GET" and request.paused is True
            return request.connection_id == self.connection_id and is_poll
        return request.fault is not None


LONG = {"Retry-After": "3600"}
# Of each update, the state is read before it and at its inspection.
MOMENTS = {
    "draining": Moment(SYNCING, None, "drain", False),
    "asleep": Moment(
        IDLE,
        {"kind": "status", "method": "GET", "skip": 2, "status": 429, "headers": LONG},
        "wait",
        False,
    ),
    "written": Moment(IDLE, {"kind": "hang", "method": "GET", "skip": 3}, "verify", True),
}


@pytest.fixture(
    params=[
        "draining",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("asleep", "written")),
    ]
)
def moment(request: pytest.FixtureRequest) -> Moment:
    return MOMENTS[request.param]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a server, once with each kind of database."""
    name = "environment" if request.param == "sqlite" else "on_postgres"
    environment: dict[str, str] = request.getfixturevalue(name)
    return environment


async def start_until(server: Server, sandbox: Sandbox, moment: Moment) -> str:
    moment.hold(sandbox)
    workflow_id = await start_update(server.client, moment.connection_id)
    await arrival(sandbox, moment.has_come)
    return workflow_id


def resumed(connection_id: str) -> Callable[[LoggedRequest], bool]:
    def is_it(request: LoggedRequest) -> bool:
        return request.connection_id == connection_id and request.applied and is_resume(request)

    return is_it


async def assert_ended(server: Server, workflow_id: str, watch: Watch, moment: Moment) -> None:
    """As somebody ended it, or written and verified; and the connection runs."""
    status = await status_once(
        server.client, workflow_id, lambda found: found["status"] != "running"
    )
    assert status["paused_by_update"] is False
    if moment.is_written:
        assert status["status"] == "updated"
        watch.ended_with(watch.old | CHANGE)
    else:
        assert (status["status"], status["error"]["code"]) == ("cancelled", "cancelled")
        assert "ended the workflow in the database" in status["message"]
        watch.ended_with(watch.old)


# Ended


async def test_ended_while_its_server_lives(
    sandbox: Sandbox, database: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with running(database, tmp_path) as server:
        workflow_id = await start_until(server, sandbox, moment)
        end_in_database(database, sandbox, workflow_id)
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(moment.connection_id))
        await assert_ended(server, workflow_id, watch, moment)


async def test_ended_then_its_server_is_killed(
    sandbox: Sandbox, database: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with running(database, tmp_path) as server:
        workflow_id = await start_until(server, sandbox, moment)
        end_in_database(database, sandbox, workflow_id)
        await server.kill()

    with anyio.fail_after(30):
        async with running(database, tmp_path) as server:
            await arrival(sandbox, resumed(moment.connection_id))
            await assert_ended(server, workflow_id, watch, moment)


async def test_ended_while_another_server_lives(
    sandbox: Sandbox, database: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with running(database, tmp_path) as other, running(database, tmp_path) as dying:
        await call(other.client, "list_connections")
        workflow_id = await start_until(dying, sandbox, moment)
        end_in_database(database, sandbox, workflow_id)
        await dying.kill()
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(moment.connection_id))
        await assert_ended(other, workflow_id, watch, moment)


async def test_no_later_update_starts_before(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    connection_id = moment.connection_id
    async with running(environment, tmp_path) as server:
        version = await version_of(server.client, connection_id)
        hold = sandbox.fault("hang", method="PATCH", path=f"/{connection_id}$", skip=1)
        workflow_id = await start_until(server, sandbox, moment)
        end_in_database(environment, sandbox, workflow_id)
        another = {
            "connection_id": connection_id,
            "merge_patch": {"another": True},
            "expected_version": version,
        }
        at_once = await refused(server.client, "update_state", **another)
        await arrival(sandbox, lambda each: each.fault == "hang" and is_resume(each))
        while_resuming = await refused(server.client, "update_state", **another)
        status = await call(server.client, "workflow_status", workflow_id=workflow_id)
        hold.release()
        await status_once(server.client, workflow_id, lambda found: found["status"] != "running")

    for error in (at_once, while_resuming):
        assert (error["code"], error["workflow_id"]) == ("update_in_progress", workflow_id)
    assert (status["status"], status["paused_by_update"]) == ("running", True)


async def test_nobody_says_that_all_is_well(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    connection_id = moment.connection_id
    async with running(environment, tmp_path) as server:
        workflow_id = await start_until(server, sandbox, moment)
        # Until it is idle: one that is suspended while it writes would lock the database.
        await status_once(
            server.client, workflow_id, lambda found: found.get("phase") == moment.phase
        )
        await version_of(server.client, connection_id)
        with server.suspended():
            end_in_database(environment, sandbox, workflow_id)
            report = await anyio.to_thread.run_sync(doctor, environment, tmp_path)
            finished = await anyio.to_thread.run_sync(finish, environment, tmp_path)
            assert sandbox.connection(connection_id).paused
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(connection_id))
        await status_once(server.client, workflow_id, lambda found: found["status"] != "running")
        after = await anyio.to_thread.run_sync(doctor, environment, tmp_path)

    assert report.returncode == 1
    assert f"Still paused: {connection_id} (by {workflow_id})" in report.stdout
    assert finished.returncode == 3
    assert f"{connection_id} is still paused by {workflow_id}" in finished.stderr
    assert after.returncode == 0


async def test_finish_resumes_what_was_ended(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_until(server, sandbox, moment)
        end_in_database(environment, sandbox, workflow_id)
        await server.kill()

    finished = await anyio.to_thread.run_sync(finish, environment, tmp_path)

    assert finished.returncode == 0, finished.stderr
    async with running(environment, tmp_path) as server:
        await assert_ended(server, workflow_id, watch, moment)


@pytest.mark.slow
@pytest.mark.parametrize(("at_call", "kind"), each_with_each(CALLS, [AFTER, BEFORE]))
async def test_ended_after_its_server_was_killed(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, at_call: int, kind: FaultKind
) -> None:
    watch = Watch(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, kind, at_call=at_call)
        await server.kill()
    end_in_database(environment, sandbox, workflow_id)
    was_written = any(is_write(each) for each in took_effect(sandbox, IDLE))

    async with running(environment, tmp_path) as server:
        status = await status_once(
            server.client, workflow_id, lambda found: found["status"] != "running"
        )

    assert status["status"] == ("updated" if was_written else "cancelled")
    watch.ended_with(watch.old | CHANGE if was_written else watch.old)


async def test_a_paused_connection_stays_paused(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    sandbox.set_paused(IDLE, True)
    watch = Watch(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        held = sandbox.fault("hang", method="GET", path=f"/{IDLE}/state$", skip=2)
        workflow_id = await start_update(server.client)
        await arrival(sandbox, lambda each: each.fault == "hang")
        end_in_database(environment, sandbox, workflow_id)
        status = await status_once(
            server.client, workflow_id, lambda found: found["status"] != "running"
        )
        held.release()

    assert status["status"] == "updated"
    watch.ended_with(watch.old | CHANGE)


# A group


@pytest.mark.parametrize("is_killed", [False, True], ids=["living", "killed"])
async def test_a_group_that_is_ended_is_undone(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, is_killed: bool
) -> None:
    sync_runs_on(sandbox)
    watches = [Watch(sandbox, IDLE), Watch(sandbox, SYNCING)]
    body = {"connection_ids": [IDLE, SYNCING], "merge_patch": CHANGE}
    async with http_running(environment, tmp_path) as server:
        path = "/state/update-multiple"
        started = await post(server.client, path, body, status=202, Prefer="respond-async")
        workflow_id = started["workflow_id"]
        await arrival(sandbox, lambda each: each.connection_id == SYNCING and is_pause(each))
        assert sandbox.connection(IDLE).paused
        end_in_database(environment, sandbox, workflow_id)
        if is_killed:
            await server.kill()
        else:
            for name in (IDLE, SYNCING):
                await arrival(sandbox, resumed(name))
    async with http_running(environment, tmp_path) as server:
        for name in (IDLE, SYNCING):
            await arrival(sandbox, resumed(name))
        first = await get(server.client, f"/workflows/{IDLE}:1", wait=50)
        second = await get(server.client, f"/workflows/{SYNCING}:1", wait=50)
        ended = await get(server.client, f"/workflows/{workflow_id}", wait=50)

    assert first["error"]["code"] == "undone"
    assert second["status"] == ended["status"] == "cancelled"
    assert "ended the workflow in the database" in second["message"]
    for watch in watches:
        watch.ended_with(watch.old)


# Deleted


@pytest.mark.parametrize("moment", MOMENTS)
async def test_deleted_while_its_server_lives(
    sandbox: Sandbox, database: dict[str, str], tmp_path: Path, moment: str
) -> None:
    connection_id = MOMENTS[moment].connection_id
    async with running(database, tmp_path) as server:
        workflow_id = await start_until(server, sandbox, MOMENTS[moment])
        delete_in_database(database, sandbox, workflow_id)
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(connection_id))
        gone = await refused(server.client, "workflow_status", workflow_id=workflow_id)

    assert gone["code"] == "workflow_not_found"
    assert not sandbox.connection(connection_id).paused


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", ["pause", "DBOS.setEvent", "DBOS.sleep", "drain", "snapshot", "write", "verify"]
)
async def test_deleted_between_two_steps(
    sandbox: Sandbox, database: dict[str, str], tmp_path: Path, step: str
) -> None:
    """It may be DBOS then that refuses to go on, or the database."""
    sync_runs_on(sandbox, SYNCING)
    async with running(database, tmp_path) as server:
        await version_of(server.client, SYNCING)
        delete_after(database, sandbox, step)
        await start_update(server.client, SYNCING)
        await arrival(sandbox, is_pause)
        sandbox.finish_sync(SYNCING)
        await arrival(sandbox, resumed(SYNCING))

    assert not sandbox.connection(SYNCING).paused
