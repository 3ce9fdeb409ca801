"""Somebody ends or deletes an update in the database: its connection is still resumed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from fivetran_state import changes, state
from fivetran_state.sandbox import Fault, LoggedRequest, Sandbox
from fivetran_state.sandbox.faults import FaultKind
from fivetran_state.service.group_status import GroupProgress
from tests.conftest import Connect, Serve
from tests.support.calls import (
    IDLE,
    SYNCING,
    Watch,
    arrival,
    call,
    end_of,
    is_pause,
    is_resume,
    refused,
    status_once,
    sync_runs_on,
    until,
    version_of,
    written_down,
)
from tests.support.commands import doctor, finish, run
from tests.support.grouped import group_of
from tests.support.http_server import http_forked
from tests.support.matrix import each_with_each
from tests.support.outside import delete_after, delete_in_database, end_in_database
from tests.support.processes import running
from tests.support.rest import ANY, get, post
from tests.support.updates import (
    AFTER,
    BEFORE,
    CALLS,
    is_write,
    resumed,
    start_update,
    start_update_that_hangs,
    took_effect,
)
from tests.support.watching import service_in

CHANGE = {"cursor": "2020"}


@dataclass(frozen=True)
class Moment:
    """The moment at which somebody ends the update, and how the update has to end."""

    connection_id: str
    fault: dict[str, Any] | None
    """The fault that keeps the update at this point; None: a sync that does not stop."""
    phase: str
    """The phase that the update reports at this point."""
    is_written: bool

    def hold(self, sandbox: Sandbox) -> Fault | None:
        if self.fault is None:
            sync_runs_on(sandbox)
            return None
        return sandbox.fault(path=f"/{self.connection_id}/state$", **self.fault)

    def has_come(self, request: LoggedRequest) -> bool:
        """True if this request shows that the update has reached this point."""
        if self.fault is None:
            is_poll = request.method == "GET" and request.paused is True
            return request.connection_id == self.connection_id and is_poll
        return request.fault is not None


LONG = {"Retry-After": "3600"}
# Each update reads the state twice: before it starts, and at its inspection.
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


async def start_until(client: Client, sandbox: Sandbox, moment: Moment) -> str:
    moment.hold(sandbox)
    workflow_id = await start_update(client, moment.connection_id)
    await arrival(sandbox, moment.has_come)
    return workflow_id


async def assert_ended(client: Client, workflow_id: str, watch: Watch, moment: Moment) -> None:
    """The update ended as cancelled or as written and verified; and the connection runs."""
    status = await end_of(client, workflow_id)
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
    connect: Connect, sandbox: Sandbox, on_either: dict[str, str], moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with connect(**on_either) as client:
        workflow_id = await start_until(client, sandbox, moment)
        end_in_database(on_either, sandbox, workflow_id)
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(moment.connection_id))
        await assert_ended(client, workflow_id, watch, moment)


@pytest.mark.slow
async def test_ended_then_its_server_is_killed(
    connect: Connect, sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with running(on_either, tmp_path) as server:
        workflow_id = await start_until(server.client, sandbox, moment)
        end_in_database(on_either, sandbox, workflow_id)
        await server.kill()

    with anyio.fail_after(30):
        async with connect(**on_either) as client:
            await arrival(sandbox, resumed(moment.connection_id))
            await assert_ended(client, workflow_id, watch, moment)


@pytest.mark.slow
async def test_ended_while_another_server_lives(
    connect: Connect, sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with connect(**on_either) as other, running(on_either, tmp_path) as dying:
        await call(other, "list_connections")
        workflow_id = await start_until(dying.client, sandbox, moment)
        end_in_database(on_either, sandbox, workflow_id)
        await dying.kill()
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(moment.connection_id))
        await assert_ended(other, workflow_id, watch, moment)


async def test_no_later_update_starts_before(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], moment: Moment
) -> None:
    connection_id = moment.connection_id
    async with connect() as client:
        version = await version_of(client, connection_id)
        hold = sandbox.fault("hang", method="PATCH", path=f"/{connection_id}$", skip=1)
        workflow_id = await start_until(client, sandbox, moment)
        end_in_database(environment, sandbox, workflow_id)
        another = {
            "connection_id": connection_id,
            "merge_patch": {"another": True},
            "expected_version": version,
        }
        at_once = await refused(client, "update_state", **another)
        await arrival(sandbox, lambda each: each.fault == "hang" and is_resume(each))
        while_resuming = await refused(client, "update_state", **another)
        status = await call(client, "workflow_status", workflow_id=workflow_id)
        hold.release()
        await end_of(client, workflow_id)

    for error in (at_once, while_resuming):
        assert (error["code"], error["workflow_id"]) == ("update_in_progress", workflow_id)
    assert (status["status"], status["paused_by_update"]) == ("running", True)


@pytest.mark.slow
async def test_nobody_says_that_all_is_well(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    connection_id = moment.connection_id
    async with running(environment, tmp_path) as server:
        workflow_id = await start_until(server.client, sandbox, moment)
        # Wait until the server is idle: if it is suspended while it writes, it locks the database.
        await status_once(
            server.client, workflow_id, lambda found: found.get("phase") == moment.phase
        )
        version = await version_of(server.client, connection_id)
        await written_down(server.client, connection_id, version)
        with server.suspended():
            end_in_database(environment, sandbox, workflow_id)
            told = await anyio.to_thread.run_sync(
                run, environment, tmp_path, "status", workflow_id, "--json"
            )
            report = await anyio.to_thread.run_sync(doctor, environment, tmp_path)
            finished = await anyio.to_thread.run_sync(finish, environment, tmp_path)
            assert sandbox.connection(connection_id).paused
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(connection_id))
        await end_of(server.client, workflow_id)
        after = await anyio.to_thread.run_sync(doctor, environment, tmp_path)

    status = json.loads(told.stdout)
    assert (status["status"], status["phase"]) == ("running", "wait")
    assert (status["was_paused"], status["paused_by_update"]) == (False, True)
    assert report.returncode == 1
    assert f"BAD  update {workflow_id}: Somebody has ended it in the database." in report.stdout
    assert finished.returncode == 3
    assert f"{connection_id} is still paused by {workflow_id}" in finished.stderr
    assert after.returncode == 0


@pytest.mark.slow
async def test_finish_resumes_what_was_ended(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, moment: Moment
) -> None:
    watch = Watch(sandbox, moment.connection_id)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_until(server.client, sandbox, moment)
        end_in_database(environment, sandbox, workflow_id)
        await server.kill()

    finished = await anyio.to_thread.run_sync(finish, environment, tmp_path)

    assert finished.returncode == 0, finished.stderr
    async with connect() as client:
        await assert_ended(client, workflow_id, watch, moment)


@pytest.mark.slow
@pytest.mark.parametrize(("at_call", "kind"), each_with_each(CALLS, [AFTER, BEFORE]))
async def test_ended_after_its_server_was_killed(
    connect: Connect,
    sandbox: Sandbox,
    environment: dict[str, str],
    tmp_path: Path,
    at_call: int,
    kind: FaultKind,
) -> None:
    watch = Watch(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, kind, at_call=at_call)
        await server.kill()
    end_in_database(environment, sandbox, workflow_id)
    was_written = any(is_write(each) for each in took_effect(sandbox, IDLE))

    async with connect() as client:
        status = await end_of(client, workflow_id)

    assert status["status"] == ("updated" if was_written else "cancelled")
    watch.ended_with(watch.old | CHANGE if was_written else watch.old)


@pytest.mark.slow
async def test_a_paused_connection_stays_paused(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str]
) -> None:
    sandbox.set_paused(IDLE, True)
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        held = sandbox.fault("hang", method="GET", path=f"/{IDLE}/state$", skip=2)
        workflow_id = await start_update(client)
        await arrival(sandbox, lambda each: each.fault == "hang")
        end_in_database(environment, sandbox, workflow_id)
        status = await end_of(client, workflow_id)
        held.release()

    assert status["status"] == "updated"
    watch.ended_with(watch.old | CHANGE)


# A group


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True], ids=["living", "killed"])
async def test_a_group_that_is_ended_is_undone(
    http: Serve, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, is_killed: bool
) -> None:
    sync_runs_on(sandbox)
    watches = [Watch(sandbox, IDLE), Watch(sandbox, SYNCING)]
    body = ANY | {"connection_ids": [IDLE, SYNCING], "merge_patch": CHANGE}
    async with http_forked(environment, tmp_path) as server:
        path = "/state/update-multiple"
        started = await post(server.client, path, body, status=202, Prefer="respond-async")
        workflow_id = started["workflow_id"]
        await arrival(sandbox, lambda each: each.connection_id == SYNCING and is_pause(each))

        async def first_is_held() -> bool:
            found = await get(server.client, f"/workflows/{IDLE}:1")
            return bool(found.get("phase") == "hold")

        await until(first_is_held)
        end_in_database(environment, sandbox, workflow_id)
        if is_killed:
            await server.kill()
        else:
            for name in (IDLE, SYNCING):
                await arrival(sandbox, resumed(name))
    async with http() as next_one:
        for name in (IDLE, SYNCING):
            await arrival(sandbox, resumed(name))
        first = await get(next_one.client, f"/workflows/{IDLE}:1", wait=50)
        second = await get(next_one.client, f"/workflows/{SYNCING}:1", wait=50)
        ended = await get(next_one.client, f"/workflows/{workflow_id}", wait=50)

    assert first["error"]["code"] == "undone"
    assert second["status"] == ended["status"] == "cancelled"
    assert "ended the workflow in the database" in second["message"]
    for watch in watches:
        watch.ended_with(watch.old)


async def test_a_group_that_is_ended_is_followed_with_pauses_until_it_is_taken_up(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync_runs_on(sandbox)
    change = changes.Inline(state.Change("merge_patch", dict(CHANGE), exact=False))
    looks = []

    async def look(progress: GroupProgress) -> None:
        looks.append(progress)

    async with service_in(environment, monkeypatch) as service:
        wanted = changes.for_each([SYNCING], change)
        started = await group_of(service, wanted, changes.GroupOptions())
        await arrival(sandbox, MOMENTS["draining"].has_come)
        end_in_database(environment, sandbox, started.workflow_id)
        ended = await service.groups.updates_status(
            started.workflow_id, wait_seconds=30, on_look=look
        )

    assert ended.status == "cancelled"
    assert len(looks) < 30


async def test_no_member_of_a_group_that_is_deleted_writes(
    http: Serve, sandbox: Sandbox, environment: dict[str, str]
) -> None:
    watch = Watch(sandbox, IDLE)
    # The state is read for the plan, at the inspection, and before the write.
    held = sandbox.fault("hang", method="GET", path=f"/{IDLE}/state$", skip=2)
    body = ANY | {"connection_ids": [IDLE], "merge_patch": CHANGE}
    async with http() as server:
        path = "/state/update-multiple"
        started = await post(server.client, path, body, status=202, Prefer="respond-async")
        await arrival(sandbox, lambda each: each.fault == "hang")
        delete_in_database(environment, sandbox, started["workflow_id"])
        held.release()
        ended = await get(server.client, f"/workflows/{IDLE}:1", wait=30)

    assert ended["error"]["code"] in ("cancelled", "undone")
    watch.ended_with(watch.old)


# Deleted


@pytest.mark.parametrize("moment", MOMENTS)
async def test_deleted_while_its_server_lives(
    connect: Connect, sandbox: Sandbox, on_either: dict[str, str], moment: str
) -> None:
    connection_id = MOMENTS[moment].connection_id
    async with connect(**on_either) as client:
        workflow_id = await start_until(client, sandbox, MOMENTS[moment])
        delete_in_database(on_either, sandbox, workflow_id)
        with anyio.fail_after(30):
            await arrival(sandbox, resumed(connection_id))
        gone = await refused(client, "workflow_status", workflow_id=workflow_id)

    assert gone["code"] == "workflow_not_found"
    assert not sandbox.connection(connection_id).paused


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", ["pause", "DBOS.setEvent", "DBOS.sleep", "drain", "snapshot", "write", "verify"]
)
async def test_deleted_between_two_steps(
    connect: Connect, sandbox: Sandbox, on_either: dict[str, str], step: str
) -> None:
    """Either DBOS or the database refuses to go on."""
    sync_runs_on(sandbox, SYNCING)
    async with connect(**on_either) as client:
        await version_of(client, SYNCING)
        delete_after(on_either, sandbox, step)
        await start_update(client, SYNCING)
        await arrival(sandbox, is_pause)
        sandbox.finish_sync(SYNCING)
        await arrival(sandbox, resumed(SYNCING))

    assert not sandbox.connection(SYNCING).paused
