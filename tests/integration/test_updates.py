"""Updates, one situation at a time: syncs, conflicts, roll-backs, numbers, identity of requests."""

import itertools
import json
from typing import Any

import anyio
import pytest
from mcp import Client

from fivetran_state.sandbox import Fault, LoggedRequest, Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    EMPTY,
    EXACT,
    IDLE,
    LARGE,
    NO_VERSION,
    PAUSED,
    RESCHEDULED,
    STATELESS,
    SYNCING,
    Watch,
    api_calls,
    arrival,
    call,
    end_of,
    in_order,
    is_pause,
    is_read,
    refused,
    state_of,
    status_once,
    version_of,
)

LOOK = ["GET", "GET state"]
"""The first two calls, before anything is touched. They are made at the same time unless the
connection is known to be paused."""
SEVEN_CALLS = [*LOOK, "PATCH", "GET state", "PATCH state", "GET state", "PATCH"]
STEADY = "steady_river"
"""A connection that tests add: its state has no cursor, so a sync does not move it."""
FOREVER = 100_000.0
PATCH = {"rewound": True}


async def update(client: Client, connection_id: str, version: str, **how: Any) -> dict[str, Any]:
    """Makes an update and waits for its end; by PATCH unless another change is given."""
    return await call(client, "update_state", **_update(connection_id, version, how))


async def failing(client: Client, connection_id: str, version: str, **how: Any) -> dict[str, Any]:
    return await refused(client, "update_state", **_update(connection_id, version, how))


def _update(connection_id: str, version: str, how: dict[str, Any]) -> dict[str, Any]:
    change = {} if {"new_state", "json_patch"} & how.keys() else {"merge_patch": PATCH}
    return {
        "connection_id": connection_id,
        "expected_version": version,
        "wait_seconds": 50,
        **change,
        **how,
    }


def steady_connection(sandbox: Sandbox, text: str = '{"table":"orders"}', **more: Any) -> None:
    sandbox.add_connection(STEADY, state=text, sync_seconds=FOREVER, drain_seconds=FOREVER, **more)


async def start_and_hold_at_the_snapshot(
    client: Client, sandbox: Sandbox, connection_id: str = IDLE, **how: Any
) -> tuple[str, Fault]:
    """The workflow id of an update that waits, paused, until the fault is released."""
    version = await version_of(client, connection_id)
    hold = sandbox.fault("hang", method="GET", path=f"{connection_id}/state$", skip=1)
    started = await update(client, connection_id, version, **how | {"wait_seconds": 0})
    assert started["status"] == "running"
    await arrival(sandbox, lambda each: each.fault == "hang")
    return started["workflow_id"], hold


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
        sandbox.fault("hang", method="GET", path="/state$", skip=1)
        started = await update(client, PAUSED, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        told = await call(client, "workflow_status", workflow_id=started["workflow_id"])

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


# Conflicts


async def test_a_state_that_moved_since_it_was_seen_is_not_overwritten(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        seen = await version_of(client, IDLE)
        sandbox.set_state(IDLE, '{"cursor":"moved"}')
        watch = Watch(sandbox, IDLE)

        error = await failing(client, IDLE, seen)

        assert error["code"] == "conflict"
        assert error["current_version"] == await version_of(client, IDLE) != seen
    assert not watch.requests("PATCH", state=True)
    watch.ended_with({"cursor": "moved"})


async def test_an_empty_version_is_as_good_as_none_and_nothing_is_written(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        planned = await update(client, IDLE, "")

    assert planned["status"] == "planned"
    assert "PATCH" not in api_calls(sandbox, IDLE)


async def test_a_state_that_moved_shows_in_the_plan_already(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        seen = await version_of(client, IDLE)
        sandbox.set_state(IDLE, '{"cursor":"moved"}')
        watch = Watch(sandbox, IDLE)

        error = await failing(client, IDLE, seen, dry_run=True)

    assert error["code"] == "conflict"
    assert sorted(watch.calls) == ["GET", "GET state"]


async def test_a_state_that_moves_while_a_write_is_in_doubt_is_not_overwritten(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault("status", method="PATCH", path="/state$", status=502)
        hold = sandbox.fault("hang", method="GET", path="/state$", skip=2)
        started = await update(client, IDLE, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.set_state(IDLE, '{"cursor":"somebody else"}')
        hold.release()

        done = await end_of(client, started["workflow_id"])
        current = await version_of(client, IDLE)

    assert done["error"]["code"] == "conflict"
    assert current in done["message"]
    assert state_of(sandbox, IDLE) == {"cursor": "somebody else"}
    assert not sandbox.connection(IDLE).paused
    assert [each.applied for each in watch.requests("PATCH", state=True)] == [False]


APPEND = [{"op": "add", "path": "/list/-", "value": "once"}]


async def start_and_leave_in_doubt_behind_a_sync(client: Client, sandbox: Sandbox) -> str:
    """The workflow id of an update that has appended, but does not know it."""
    steady_connection(sandbox, '{"list":[]}')
    version = await version_of(client, STEADY)
    sandbox.fault("apply_then_fail", method="PATCH", path="/state$")
    started = await update(client, STEADY, version, json_patch=APPEND, wait_seconds=0)
    written = await arrival(sandbox, lambda each: each.fault == "apply_then_fail")
    sandbox.start_sync(STEADY)
    await arrival(sandbox, lambda each: each.index > written.index and bool(each.syncing))
    workflow_id: str = started["workflow_id"]
    return workflow_id


async def test_a_write_in_doubt_is_not_made_again_once_a_sync_has_moved_the_state(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        workflow_id = await start_and_leave_in_doubt_behind_a_sync(client, sandbox)
        sandbox.set_state(STEADY, '{"list":["once"],"synced":1}')
        # It must not end as if it had written nothing.
        await call(client, "cancel_update", workflow_id=workflow_id, wait_seconds=0)
        sandbox.finish_sync(STEADY)
        done = await end_of(client, workflow_id)
        left = state_of(sandbox, STEADY)
        version = await version_of(client, STEADY)
        undo = {"restore_from": workflow_id, "merge_patch": None}
        undone = await update(client, STEADY, version, **undo)

    assert done["error"]["code"] == "conflict"
    assert "unclear" in done["message"]
    assert left == {"list": ["once"], "synced": 1}
    assert not sandbox.connection(STEADY).paused
    assert undone["status"] == "updated"
    assert state_of(sandbox, STEADY) == {"list": []}


@pytest.mark.parametrize("status", [400, 401, 403, 409])
async def test_a_write_in_doubt_outlives_a_refused_look(
    connect: Connect, sandbox: Sandbox, status: int
) -> None:
    async with connect() as client:
        workflow_id = await start_and_leave_in_doubt_behind_a_sync(client, sandbox)
        refusal = sandbox.fault("status", method="GET", path=f"{STEADY}$", status=status)
        await arrival(sandbox, lambda each: each.fault == "status")
        sandbox.finish_sync(STEADY)
        done = await end_of(client, workflow_id)

    assert refusal.times == 0
    assert done["status"] == "updated"
    assert state_of(sandbox, STEADY) == {"list": ["once"]}
    assert not sandbox.connection(STEADY).paused


async def test_a_write_in_doubt_is_made_again_if_the_state_is_as_before_after_a_sync(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        workflow_id = await start_and_leave_in_doubt_behind_a_sync(client, sandbox)
        sandbox.set_state(STEADY, '{"list":[]}')
        sandbox.finish_sync(STEADY)
        done = await end_of(client, workflow_id)

    assert done["status"] == "updated"
    assert state_of(sandbox, STEADY) == {"list": ["once"]}
    assert not sandbox.connection(STEADY).paused


async def test_a_write_that_was_refused_and_took_effect_is_found_and_can_be_undone(
    connect: Connect, sandbox: Sandbox
) -> None:
    steady_connection(sandbox, '{"old":1}')
    async with connect() as client:
        watch = Watch(sandbox, STEADY)
        version = await version_of(client, STEADY)
        sandbox.fault("apply_then_fail", method="PATCH", path="/state$", status=409)
        renamed = [{"op": "move", "from": "/old", "path": "/new"}]
        done = await update(client, STEADY, version, json_patch=renamed)
        undo = {"restore_from": done["workflow_id"], "merge_patch": None}
        undone = await update(client, STEADY, done["version_after"], **undo)

    assert (done["status"], done["version_before"]) == ("updated", version)
    assert done["changes_total"] == 2
    assert undone["version_after"] == version
    watch.ended_with(watch.old)


# Verification


async def test_a_state_that_fivetran_did_not_keep_is_rolled_back_and_verified_before_the_resume(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"cursor":"mangled"}')

        error = await failing(client, IDLE, version)

        assert await version_of(client, IDLE) == version
    assert error["code"] == "verification_failed"
    assert in_order(watch.calls)[:9] == [*SEVEN_CALLS[:6], "GET", "GET state", "PATCH state"]
    assert "mangled" in error["differences"]
    watch.ended_with(watch.old)


@pytest.mark.parametrize("waits", ["a rate limit", "a slow answer"])
async def test_a_state_somebody_wrote_after_the_write_is_left(
    connect: Connect, sandbox: Sandbox, waits: str
) -> None:
    theirs = '{"cursor":"theirs"}'
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        started = await update(client, IDLE, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        if waits == "a rate limit":
            headers = {"Retry-After": "2"}
            readback = sandbox.fault(
                "status", method="GET", path="/state$", status=429, headers=headers
            )
        else:
            readback = sandbox.fault("hang", method="GET", path="/state$")
        hold.release()
        await arrival(sandbox, lambda each: each.fault == readback.kind and is_read(each))
        sandbox.set_state(IDLE, theirs)
        readback.release()

        done = await end_of(client, started["workflow_id"])
        current = await version_of(client, IDLE)

    assert done["error"]["code"] == "verification_failed"
    assert "left as it is" in done["message"]
    assert current in done["message"]
    assert "theirs" in done["message"]
    watch.ended_with(json.loads(theirs))


async def test_an_answer_that_lies_is_not_rolled_back(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault("lost_write", method="PATCH", path="/state$", body='{"cursor":"other"}')

        error = await failing(client, IDLE, version)

    assert error["code"] == "verification_failed"
    watch.ended_with({"cursor": "other"})


async def test_somebody_writes_before_the_roll_back(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"x":1}')
        hold = sandbox.fault("hang", method="GET", path="/state$", skip=3)
        started = await update(client, IDLE, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.set_state(IDLE, '{"x":2}')
        hold.release()

        done = await end_of(client, started["workflow_id"])

    assert done["error"]["code"] == "rollback_failed"
    watch.ended_with({"x": 2})


async def test_a_roll_back_that_fivetran_does_not_keep_either_is_reported_and_resumed(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"x":1}', times=2)

        error = await failing(client, IDLE, version)

    assert error["code"] == "rollback_failed"
    watch.ended_with({"x": 1})


async def test_a_state_kept_with_a_rounded_number_counts_as_not_kept(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        rounded = json.dumps(watch.old | {"id": 9007199254740992})
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body=rounded)

        error = await failing(client, IDLE, version, merge_patch='{"id":9007199254740993}')

    assert error["code"] == "verification_failed"
    watch.ended_with(watch.old)


async def test_a_state_kept_with_another_key_order_and_spelling_counts_as_kept(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(STEADY, state='{"a":1}')
    async with connect() as client:
        version = await version_of(client, STEADY)
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"b":2.50,"a":1}')

        done = await update(client, STEADY, version, merge_patch='{"b":2.5}')

    assert done["status"] == "updated"


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


# Changes


async def test_a_change_to_what_is_there_already_writes_nothing(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        done = await update(client, IDLE, version, merge_patch=watch.old)

    assert done["status"] == "unchanged"
    assert done["version_before"] == done["version_after"] == version
    assert not watch.requests("PATCH", state=True)
    watch.ended_with(watch.old)


async def test_a_new_state_that_is_the_expected_one_pauses_nobody(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        done = await update(client, IDLE, version, new_state=watch.old)

    assert done["status"] == "unchanged"
    assert sorted(watch.calls) == LOOK


async def test_a_new_state_that_was_the_expected_one_conflicts_with_what_came_since(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        seen = state_of(sandbox, IDLE)
        sandbox.set_state(IDLE, '{"cursor":"moved"}')
        watch = Watch(sandbox, IDLE)

        error = await failing(client, IDLE, version, new_state=seen)

    assert error["code"] == "conflict"
    assert sorted(watch.calls) == LOOK


async def test_each_kind_of_change_does_what_it_says(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.add_connection(STEADY, state='{"a":{"b":1,"c":2},"d":[1,2]}')
    async with connect() as client:

        async def after(**change: Any) -> Any:
            await update(client, STEADY, await version_of(client, STEADY), **change)
            return state_of(sandbox, STEADY)

        assert await after(merge_patch={"a": {"b": None}}) == {"a": {"c": 2}, "d": [1, 2]}
        assert await after(json_patch=[{"op": "remove", "path": "/d/0"}]) == {
            "a": {"c": 2},
            "d": [2],
        }
        assert await after(new_state={"e": None}) == {"e": None}
        assert await after(new_state={}) == {}


async def test_a_json_patch_whose_test_fails_writes_nothing_and_resumes(
    connect: Connect, sandbox: Sandbox
) -> None:
    operations = [
        {"op": "replace", "path": "/cursor", "value": "x"},
        {"op": "test", "path": "/cursor", "value": "y"},
    ]
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        error = await failing(client, IDLE, version, json_patch=operations)

    assert error["code"] == "invalid_change"
    assert not watch.requests("PATCH", state=True)
    watch.ended_with(watch.old)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"merge_patch": {}, "new_state": {}},
        {"merge_patch": {}, "json_patch": []},
        {"new_state": {}, "merge_patch": {}, "json_patch": []},
    ],
    ids=["none", "two", "another two", "three"],
)
@pytest.mark.parametrize("version", [None, NO_VERSION], ids=["plan", "update"])
async def test_anything_but_exactly_one_kind_of_change_is_refused(
    connect: Connect, sandbox: Sandbox, change: dict[str, Any], version: str | None
) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        error = await refused(
            client, "update_state", connection_id=IDLE, expected_version=version, **change
        )

    assert error["code"] == "invalid_request"
    assert "exactly one" in error["message"]
    assert watch.calls == []


@pytest.mark.parametrize(
    "change",
    [
        {"new_state": "[]"},
        {"new_state": "not JSON"},
        {"new_state": '{"a":1,"a":2}'},
        {"new_state": '{"a":NaN}'},
        {"merge_patch": "3"},
        {"json_patch": "{}"},
        {"json_patch": "null"},
        {"new_state": '{"a":' * 200 + "1" + "}" * 200},
    ],
    ids=lambda change: str(change)[:40],
)
async def test_a_change_that_is_no_such_json_is_refused_before_anything_is_sent(
    connect: Connect, sandbox: Sandbox, change: dict[str, str]
) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        error = await refused(
            client, "update_state", connection_id=IDLE, expected_version=NO_VERSION, **change
        )

    assert error["code"] == "invalid_request"
    assert next(iter(change)) in error["message"]
    assert watch.calls == []


async def test_a_state_deeper_than_the_limit_by_the_change_is_refused_and_resumed(
    connect: Connect, sandbox: Sandbox
) -> None:
    deep = '{"a":' * 90 + "1" + "}" * 90
    sandbox.add_connection(STEADY, state=deep)
    pointer = "/a" * 90
    operation = f'[{{"op":"replace","path":"{pointer}","value":{deep}}}]'
    async with connect() as client:
        version = await version_of(client, STEADY)
        watch = Watch(sandbox, STEADY)

        error = await failing(client, STEADY, version, json_patch=operation)

    assert error["code"] == "invalid_change"
    watch.ended_with(watch.old)


# Numbers


async def test_numbers_that_a_merge_patch_does_not_touch_stay_exactly_as_they_were(
    connect: Connect, sandbox: Sandbox
) -> None:
    text = sandbox.connection(EXACT).state
    assert text is not None
    async with connect() as client:
        await update(client, EXACT, await version_of(client, EXACT), merge_patch={"other": 1})

    assert sandbox.connection(EXACT).state == text[:-1] + ',"other":1}'


async def test_numbers_of_a_whole_state_sent_back_by_a_client_stay_exactly_as_they_were(
    connect: Connect, sandbox: Sandbox
) -> None:
    text = (
        '{"forty_digits":3.141592653589793238462643383279502884197,"price":1.10,'
        '"big":9007199254740993,"zero":-0,"list":[1e2,0.1000]}'
    )
    sandbox.add_connection(STEADY, state=text)
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=STEADY)

        done = await update(client, STEADY, seen["version"], new_state=seen["state"] | {"other": 1})

    assert [change["path"] for change in done["changes"]] == ["/other"]
    assert sandbox.connection(STEADY).state == text[:-1] + ',"other":1}'


async def test_a_number_beyond_doubles_in_a_whole_state_sent_back_stays_a_number(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.add_connection(STEADY, state='{"far":1e400}')
    async with connect() as client:
        seen = await call(client, "get_state", connection_id=STEADY)

        await update(client, STEADY, seen["version"], new_state=seen["state"] | {"other": 1})

    assert sandbox.connection(STEADY).state == '{"far":1e400,"other":1}'


@pytest.mark.parametrize("kind", ["merge_patch", "new_state", "json_patch"])
async def test_a_change_given_as_text_is_written_with_every_digit(
    connect: Connect, sandbox: Sandbox, kind: str
) -> None:
    number = "1.230000000000000000000000000000000000000000001"
    text = f'{{"price":{number}}}'
    if kind == "json_patch":
        text = f'[{{"op":"add","path":"/price","value":{number}}}]'
    sandbox.add_connection(STEADY, state="{}")
    async with connect() as client:
        done = await update(client, STEADY, await version_of(client, STEADY), **{kind: text})

    assert sandbox.connection(STEADY).state == f'{{"price":{number}}}'
    assert done["changes"] == [{"op": "add", "path": "/price", "after": number}]


# Identity of requests


async def test_updates_count_up_without_a_gap_whether_they_succeed_or_fail(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        first = await update(client, IDLE, await version_of(client, IDLE))
        second = await failing(client, IDLE, NO_VERSION)
        third = await update(
            client, IDLE, await version_of(client, IDLE), merge_patch={"rewound": 2}
        )
        other = await update(client, PAUSED, await version_of(client, PAUSED))

    assert [each["workflow_id"] for each in (first, second, third)] == [
        f"{IDLE}:{number}" for number in (1, 2, 3)
    ]
    assert other["workflow_id"] == f"{PAUSED}:1"


async def test_waiting_for_nothing_answers_running_and_the_status_follows_to_the_end(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        workflow_id, hold = await start_and_hold_at_the_snapshot(client, sandbox)
        held = await call(client, "workflow_status", workflow_id=workflow_id)
        seen = await call(client, "get_state", connection_id=IDLE)
        hold.release()
        done = await call(client, "workflow_status", workflow_id=workflow_id, wait_seconds=50)
        after = await call(client, "get_state", connection_id=IDLE)

    assert (held["status"], held["paused_by_update"]) == ("running", True)
    assert "ended_at" not in held
    assert seen["update_in_progress"] == workflow_id
    assert done["status"] == "updated"
    assert done["started_at"] <= done["ended_at"]
    assert "update_in_progress" not in after


async def test_the_same_request_attaches_to_the_running_update(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        first = await update(client, IDLE, version, wait_seconds=0)
        await arrival(sandbox, lambda each: each.fault == "hang")
        second = await update(client, IDLE, version, wait_seconds=0)
        hold.release()
        done = await update(client, IDLE, version)

    assert first["workflow_id"] == second["workflow_id"] == done["workflow_id"] == f"{IDLE}:1"
    assert done["status"] == "updated"
    assert len(watch.requests("PATCH", state=True)) == 1


async def test_the_same_request_after_its_success_attaches_and_does_not_write_again(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        first = await update(client, IDLE, version)
        watch = Watch(sandbox, IDLE)

        second = await update(client, IDLE, version)

    assert second == first
    assert not watch.requests("PATCH", state=True)
    assert not watch.requests("PATCH", state=False)


async def test_the_same_request_once_the_state_came_back_is_a_new_update(
    connect: Connect, sandbox: Sandbox
) -> None:
    text = sandbox.connection(IDLE).state
    async with connect() as client:
        version = await version_of(client, IDLE)
        first = await update(client, IDLE, version)
        sandbox.set_state(IDLE, text)
        watch = Watch(sandbox, IDLE)

        second = await update(client, IDLE, version)

    assert (first["workflow_id"], second["workflow_id"]) == (f"{IDLE}:1", f"{IDLE}:2")
    watch.ended_with(watch.old | PATCH)


@pytest.mark.parametrize("moves", ["somebody else", "another update"])
async def test_the_same_request_after_its_failure_is_a_new_update(
    connect: Connect, sandbox: Sandbox, moves: str
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        sandbox.fault("status", method="PATCH", path=f"{IDLE}$", status=403)
        first = await failing(client, IDLE, version)
        if moves == "somebody else":
            sandbox.set_state(IDLE, '{"moved":true}')
        else:
            await update(client, IDLE, version, new_state={"moved": True})

        second = await failing(client, IDLE, version)

    assert (first["code"], second["code"]) == ("forbidden", "conflict")
    assert second["workflow_id"] != first["workflow_id"]


async def test_ten_copies_of_a_request_at_once_are_one_update(
    connect: Connect, sandbox: Sandbox
) -> None:
    answers: list[dict[str, Any]] = []
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        async def ask() -> None:
            answers.append(await update(client, IDLE, version))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(ask)

    assert [answer["workflow_id"] for answer in answers] == [f"{IDLE}:1"] * 10
    assert [answer["status"] for answer in answers] == ["updated"] * 10
    assert len(watch.requests("PATCH", state=True)) == 1
    watch.ended_with(watch.old | PATCH)


async def test_of_different_requests_at_once_one_is_done_and_the_others_are_told(
    connect: Connect, sandbox: Sandbox
) -> None:
    outcomes: list[str] = []
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)

        async def ask(number: int) -> None:
            request = _update(IDLE, version, {"merge_patch": {"number": number}})
            result = await client.call_tool("update_state", request)
            content = result.content[0]
            assert content.type == "text"
            answer = json.loads(content.text)
            outcomes.append(answer["code"] if result.is_error else answer["status"])

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(ask, number)

    assert outcomes.count("updated") == 1
    assert set(outcomes) <= {"updated", "update_in_progress", "conflict"}
    assert len(watch.requests("PATCH", state=True)) == 1


async def test_another_request_while_one_is_running_is_told_which(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        workflow_id, hold = await start_and_hold_at_the_snapshot(client, sandbox)
        error = await failing(client, IDLE, NO_VERSION)
        keyed = await failing(client, IDLE, NO_VERSION, idempotency_key="mine")
        hold.release()
        await end_of(client, workflow_id)

    assert error["code"] == keyed["code"] == "update_in_progress"
    assert error["workflow_id"] == keyed["workflow_id"] == workflow_id


async def test_a_failed_update_without_a_key_may_be_tried_again(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        sandbox.fault("status", method="PATCH", path="/state$", status=403)
        error = await failing(client, IDLE, version)
        watch = Watch(sandbox, IDLE)

        done = await update(client, IDLE, version)

    assert (error["code"], error["workflow_id"]) == ("forbidden", f"{IDLE}:1")
    assert (done["status"], done["workflow_id"]) == ("updated", f"{IDLE}:2")
    watch.ended_with(watch.old | PATCH)


async def test_a_key_attaches_to_its_update_for_ever(connect: Connect, sandbox: Sandbox) -> None:
    text = sandbox.connection(IDLE).state
    async with connect() as client:
        version = await version_of(client, IDLE)
        first = await update(client, IDLE, version, idempotency_key="mine")
        await update(client, IDLE, first["version_after"], merge_patch={"another": 1})
        sandbox.set_state(IDLE, text)
        watch = Watch(sandbox, IDLE)

        again = await update(client, IDLE, version, idempotency_key="mine", reason="said anew")

    assert again == first
    assert watch.calls == []


async def test_a_key_attaches_to_its_running_update(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        workflow_id, hold = await start_and_hold_at_the_snapshot(
            client, sandbox, idempotency_key="mine"
        )
        hold.release()
        done = await update(client, IDLE, version, idempotency_key="mine")

    assert (done["workflow_id"], done["status"]) == (workflow_id, "updated")


async def test_a_key_attaches_to_its_failed_update(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        sandbox.fault("status", method="PATCH", path="/state$", status=403)
        first = await failing(client, IDLE, version, idempotency_key="mine")
        await update(client, IDLE, version, merge_patch={"another": 1})
        watch = Watch(sandbox, IDLE)

        again = await failing(client, IDLE, version, idempotency_key="mine")

    assert again == first
    assert again["code"] == "forbidden"
    assert watch.calls == []


@pytest.mark.parametrize(
    "other",
    [{"merge_patch": {"rewound": 1}}, {"expected_version": NO_VERSION}, {"new_state": {}}],
    ids=["value", "version", "kind"],
)
async def test_a_key_used_for_another_request_is_refused(
    connect: Connect, sandbox: Sandbox, other: dict[str, Any]
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        first = await update(client, IDLE, version, idempotency_key="mine")
        watch = Watch(sandbox, IDLE)

        how = {"expected_version": version, "idempotency_key": "mine", **other}
        error = await refused(client, "update_state", **_update(IDLE, version, how))

    assert error["code"] == "idempotency_key_reused"
    assert error["workflow_id"] == first["workflow_id"]
    assert watch.calls == []


async def test_a_key_belongs_to_one_connection(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        versions = [await version_of(client, each) for each in (IDLE, PAUSED)]
        first = await update(client, IDLE, versions[0], idempotency_key="mine")
        second = await update(client, PAUSED, versions[1], idempotency_key="mine")

    assert (first["workflow_id"], second["workflow_id"]) == (f"{IDLE}:1", f"{PAUSED}:1")


async def test_two_keys_are_two_updates_of_the_same_change(
    connect: Connect, sandbox: Sandbox
) -> None:
    text = sandbox.connection(IDLE).state
    async with connect() as client:
        version = await version_of(client, IDLE)
        await update(client, IDLE, version, idempotency_key="mine")
        sandbox.set_state(IDLE, text)

        second = await update(client, IDLE, version, idempotency_key="yours")

    assert (second["status"], second["workflow_id"]) == ("updated", f"{IDLE}:2")


async def test_a_client_that_goes_away_does_not_stop_the_update(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        hold = sandbox.fault("hang", method="GET", path="/state$")
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await update(client, IDLE, version)

            tasks.start_soon(ask)
            await arrival(sandbox, lambda each: each.fault == "hang")
            tasks.cancel_scope.cancel()
        hold.release()

        done = await end_of(client, f"{IDLE}:1")

    assert done["status"] == "updated"
    watch.ended_with(watch.old | PATCH)


@pytest.mark.slow
async def test_a_server_that_closes_during_an_update_leaves_it_to_the_next(
    connect: Connect, spawn: Connect, sandbox: Sandbox
) -> None:
    async with spawn() as client:
        watch = Watch(sandbox, IDLE)
        workflow_id, hold = await start_and_hold_at_the_snapshot(client, sandbox)
    hold.release()
    async with connect() as client:
        done = await end_of(client, workflow_id)

    assert done["status"] == "updated"
    watch.ended_with(watch.old | PATCH)


async def test_an_unknown_workflow_is_not_found(connect: Connect) -> None:
    async with connect() as client:
        error = await refused(client, "workflow_status", workflow_id=f"{IDLE}:1")

    assert error["code"] == "workflow_not_found"


async def test_a_request_repeated_after_other_updates_is_answered_by_its_own(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        request = {
            "connection_id": IDLE,
            "merge_patch": {"cursor": "2020"},
            "expected_version": await version_of(client, IDLE),
        }
        first = await call(client, "update_state", **request)
        for cursor in ("2021", "2022"):
            await call(
                client,
                "update_state",
                connection_id=IDLE,
                merge_patch={"cursor": cursor},
                expected_version=await version_of(client, IDLE),
            )
        again = await call(client, "update_state", **request)

    assert again == first
    assert state_of(sandbox, IDLE)["cursor"] == "2022"
