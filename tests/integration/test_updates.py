"""Updates of connections that run, are paused, sync, or are special."""

import itertools
from typing import Any

import pytest

from fivetran_state.sandbox import LoggedRequest, Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    EMPTY,
    IDLE,
    LARGE,
    NO_VERSION,
    PAUSED,
    RESCHEDULED,
    STATELESS,
    SYNCING,
    Watch,
    arrival,
    call,
    end_of,
    in_order,
    is_pause,
    refused,
    status_once,
    version_of,
)
from tests.support.updating import (
    FOREVER,
    LOOK,
    PATCH,
    SEVEN_CALLS,
    STEADY,
    failing,
    steady_connection,
    update,
)


def _pauses_a_running_sync(request: LoggedRequest) -> bool:
    return is_pause(request) and request.syncing is True and request.applied


# Paused, running, syncing


@pytest.mark.parametrize("connection_id", [IDLE, RESCHEDULED])
async def test_a_running_connection_takes_seven_calls(
    connect: Connect, sandbox: Sandbox, connection_id: str
) -> None:
    async with connect() as client:
        version = await version_of(client, connection_id)
        watch = Watch(sandbox, connection_id)

        done = await update(client, connection_id, version)

    assert done["status"] == "updated"
    assert in_order(watch.calls) == SEVEN_CALLS
    watch.ended_with(watch.old | PATCH)


async def test_a_paused_connection_stays_paused_and_takes_four_calls(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, PAUSED)
        watch = Watch(sandbox, PAUSED)

        done = await update(client, PAUSED, version)

    assert done["was_paused"] is True
    assert watch.calls == ["GET", "GET state", "PATCH state", "GET state"]
    watch.ended_with(watch.old | PATCH)
    assert sandbox.connection(PAUSED).paused


async def test_a_connection_that_was_paused_is_told_as_such_while_its_state_is_read_back(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, PAUSED)
        # The state has been read once, and the update reads it before the write.
        hold = sandbox.fault("hang", method="GET", path="/state$", skip=1)
        started = await update(client, PAUSED, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        told = await call(client, "workflow_status", workflow_id=started["workflow_id"])
        hold.release()
        await end_of(client, started["workflow_id"])

    assert (told["phase"], told["was_paused"], told["paused_by_update"]) == ("verify", True, False)


async def test_a_running_sync_is_waited_for_before_the_write(
    connect: Connect, sandbox: Sandbox
) -> None:
    steady_connection(sandbox)
    sandbox.start_sync(STEADY)
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)
        started = await update(client, STEADY, version, wait_seconds=0)
        draining = await status_once(
            client, started["workflow_id"], lambda status: status.get("phase") == "drain"
        )
        sandbox.finish_sync(STEADY)

        done = await end_of(client, started["workflow_id"])

    assert draining["paused_by_update"] is True
    assert "sync" in draining["message"]
    assert done["status"] == "updated"
    assert "drain" in [step["name"] for step in done["steps"]]
    reads_and_writes = watch.requests("GET", state=True)
    reads_and_writes += watch.requests("PATCH", state=True)
    before_the_pause, *later = [each.syncing for each in reads_and_writes]
    assert before_the_pause
    assert not any(later)
    watch.ended_with({"table": "orders", **PATCH})


async def test_a_paused_connection_whose_last_sync_still_drains_is_waited_for_and_stays_paused(
    connect: Connect, sandbox: Sandbox
) -> None:
    steady_connection(sandbox)
    sandbox.start_sync(STEADY)
    sandbox.set_paused(STEADY, True)
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)
        started = await update(client, STEADY, version, wait_seconds=0)
        await status_once(
            client, started["workflow_id"], lambda status: status.get("phase") == "drain"
        )
        sandbox.finish_sync(STEADY)

        done = await end_of(client, started["workflow_id"])

    assert (done["status"], done["was_paused"]) == ("updated", True)
    assert not watch.requests("PATCH", state=False)
    watch.ended_with({"table": "orders", **PATCH})


async def test_a_sync_that_moves_the_cursor_while_it_drains_makes_a_conflict(
    connect: Connect, sandbox: Sandbox
) -> None:
    steady_connection(sandbox, '{"cursor":7}', stopped_sync_counts=True)
    sandbox.start_sync(STEADY)
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)
        started = await update(client, STEADY, version, wait_seconds=0)
        await arrival(sandbox, lambda each: is_pause(each) and each.applied)
        sandbox.finish_sync(STEADY)

        done = await end_of(client, started["workflow_id"])

    assert done["error"]["code"] == "conflict"
    assert not watch.requests("PATCH", state=True)
    watch.ended_with({"cursor": 8})


async def test_an_update_with_the_version_after_the_sync_succeeds(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(
        STEADY, state='{"cursor":7}', sync_seconds=FOREVER, stopped_sync_counts=True
    )
    sandbox.start_sync(STEADY)
    async with connect() as client:
        stale = await version_of(client, STEADY)
        first = await failing(client, STEADY, stale)
        watch = Watch(sandbox, STEADY)

        done = await update(client, STEADY, first["current_version"])

    assert first["code"] == "conflict"
    assert done["status"] == "updated"
    watch.ended_with({"cursor": 8, **PATCH})


async def test_a_sync_that_the_pause_stops_without_a_trace_makes_no_difference(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, SYNCING)
        watch = Watch(sandbox, SYNCING)
        started = await update(client, SYNCING, version, wait_seconds=0)
        await arrival(sandbox, lambda each: is_pause(each) and each.applied)
        sandbox.advance(10)

        done = await end_of(client, started["workflow_id"])

    assert done["status"] == "updated"
    watch.ended_with(watch.old | PATCH)


async def test_waiting_asks_at_most_once_a_second(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.add_connection(STEADY, state='{"table":"orders"}', sync_seconds=60, drain_seconds=3.5)
    sandbox.start_sync(STEADY)
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)

        done = await update(client, STEADY, version)

    assert done["status"] == "updated"
    pause = next(each for each in watch.requests("PATCH", state=False))
    polls = [each for each in watch.requests("GET", state=False) if each.index > pause.index]
    assert len(polls) >= 2
    times = [pause.time, *(each.time for each in polls)]
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("patience", ["0", "1"])
async def test_a_sync_that_does_not_end_in_time_ends_the_update_resumed_and_unwritten(
    connect: Connect, sandbox: Sandbox, patience: str
) -> None:
    steady_connection(sandbox)
    sandbox.start_sync(STEADY)
    async with connect(FIVETRAN_STATE_SYNC_WAIT=patience) as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)

        error = await failing(client, STEADY, version)

    assert error["code"] == "sync_still_running"
    assert not watch.requests("PATCH", state=True)
    watch.ended_with(watch.old)


async def test_a_sync_that_slips_in_before_the_write_is_waited_for(
    connect: Connect, sandbox: Sandbox
) -> None:
    steady_connection(sandbox)
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        started = await update(client, STEADY, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.set_paused(STEADY, False)
        sandbox.start_sync(STEADY)
        hold.release()
        await arrival(sandbox, lambda each: each.status == 409)
        await arrival(sandbox, _pauses_a_running_sync)
        sandbox.finish_sync(STEADY)

        done = await end_of(client, started["workflow_id"])

    assert done["status"] == "updated"
    watch.ended_with({"table": "orders", **PATCH})


async def test_a_connection_that_a_person_resumes_meanwhile_ends_running(
    connect: Connect, sandbox: Sandbox
) -> None:
    steady_connection(sandbox, paused=True)
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        started = await update(client, STEADY, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.set_paused(STEADY, False)
        sandbox.start_sync(STEADY)
        hold.release()
        await arrival(sandbox, _pauses_a_running_sync)
        sandbox.finish_sync(STEADY)

        done = await end_of(client, started["workflow_id"])

    assert (done["status"], done["was_paused"]) == ("updated", True)
    assert "resumed it during the update" in done["message"]
    watch.was_paused = False
    watch.ended_with({"table": "orders", **PATCH})


async def test_a_person_resumes_while_the_last_sync_ends(
    connect: Connect, sandbox: Sandbox
) -> None:
    steady_connection(sandbox)
    sandbox.start_sync(STEADY)
    sandbox.set_paused(STEADY, True)
    async with connect() as client:
        version = await version_of(client, STEADY)
        started = await update(client, STEADY, version, wait_seconds=0)
        await status_once(
            client, started["workflow_id"], lambda status: status.get("phase") == "drain"
        )
        sandbox.set_paused(STEADY, False)
        await arrival(sandbox, lambda each: is_pause(each) and each.applied)
        sandbox.finish_sync(STEADY)

        done = await end_of(client, started["workflow_id"])

    assert (done["status"], done["was_paused"]) == ("updated", True)
    assert not sandbox.connection(STEADY).paused


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"kind": "status", "status": 409}, id="409"),
        pytest.param({"kind": "status", "status": 429}, id="429", marks=pytest.mark.slow),
    ],
)
async def test_a_person_pauses_before_the_update_can(
    connect: Connect, sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        headers = {"Retry-After": "6"}  # Longer than a call waits by itself.
        sandbox.fault(method="PATCH", path=f"{IDLE}$", headers=headers, **fault)
        started = await update(client, IDLE, version, wait_seconds=0)
        refused_pause = await arrival(sandbox, lambda each: each.fault == "status")
        if fault["status"] == 409:
            # The update checks a refused pause: it may have taken effect.
            await arrival(
                sandbox,
                lambda each: each.index > refused_pause.index and each.status is not None,
            )
        sandbox.set_paused(IDLE, True)

        done = await end_of(client, started["workflow_id"])

    assert done["status"] == "updated"
    assert sandbox.connection(IDLE).paused
    assert "somebody else paused it" in done["message"]


# Connections that are special


async def test_a_state_that_does_not_exist_is_not_written(
    connect: Connect, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, EMPTY)
    async with connect() as client:
        seen = await refused(client, "get_state", connection_id=EMPTY)
        planned = await refused(
            client, "update_state", connection_id=EMPTY, merge_patch=PATCH, dry_run=True
        )
        watch = Watch(sandbox, EMPTY)
        error = await failing(client, EMPTY, NO_VERSION)
        calls = watch.calls
        copied = await refused(
            client, "update_state", connection_id=IDLE, copy_from=EMPTY, dry_run=True
        )

    assert seen["code"] == planned["code"] == error["code"] == copied["code"] == "no_state_yet"
    assert "first sync" in error["hint"]
    assert sorted(calls) == LOOK
    assert not watch.requests("PATCH", state=False)


@pytest.mark.parametrize("status", [400, 405])
async def test_a_service_that_keeps_no_state_is_refused(
    connect: Connect, sandbox: Sandbox, status: int
) -> None:
    sandbox.fault("status", path=f"{STATELESS}/state$", status=status)
    watch = Watch(sandbox, STATELESS)
    async with connect() as client:
        error = await failing(client, STATELESS, NO_VERSION)

    assert error["code"] == "state_not_kept"
    assert sorted(watch.calls) == LOOK


async def test_an_unknown_connection_is_not_found(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        error = await failing(client, "no_such_connection", NO_VERSION)
        planned = await refused(
            client, "update_state", connection_id="no_such_connection", merge_patch=PATCH
        )

    assert error["code"] == planned["code"] == "connection_not_found"


@pytest.mark.parametrize(("method", "path"), [("GET", "/state$"), ("PATCH", "/state$")])
async def test_a_connection_deleted_during_the_update_ends_it(
    connect: Connect, sandbox: Sandbox, method: str, path: str
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        hold = sandbox.fault("hang", method=method, path=path)
        started = await update(client, IDLE, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.delete_connection(IDLE)
        hold.release()

        done = await end_of(client, started["workflow_id"])

    assert done["error"]["code"] == "connection_not_found"
    assert done["paused_by_update"] is False


async def test_a_connection_deleted_after_the_write_ends_the_update_as_done(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        hold = sandbox.fault("hang", method="PATCH", path=f"{IDLE}$", skip=1)
        started = await update(client, IDLE, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.delete_connection(IDLE)
        hold.release()

        done = await end_of(client, started["workflow_id"])

    assert (done["status"], done["paused_by_update"]) == ("updated", False)
    assert "is running again" not in done["message"]


@pytest.mark.slow
async def test_two_megabytes_of_state_are_changed_by_a_small_patch(
    connect: Connect, sandbox: Sandbox
) -> None:
    patch = {"tables": {"library_00042": {"offset": 0}, "library_00043": None}}
    async with connect() as client:
        version = await version_of(client, LARGE)
        watch = Watch(sandbox, LARGE)

        done = await update(client, LARGE, version, merge_patch=patch)

    assert done["status"] == "updated"
    assert [(each["op"], each["path"]) for each in done["changes"]] == [
        ("replace", "/tables/library_00042/offset"),
        ("remove", "/tables/library_00043"),
    ]
    wanted = watch.old
    wanted["tables"]["library_00042"]["offset"] = 0
    del wanted["tables"]["library_00043"]
    watch.ended_with(wanted)
