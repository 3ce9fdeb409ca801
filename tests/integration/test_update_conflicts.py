"""Updates while others change the state, and states that are not as they were written."""

import json

import pytest
from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    IDLE,
    Watch,
    api_calls,
    arrival,
    call,
    end_of,
    in_order,
    is_read,
    state_of,
    version_of,
)
from tests.support.updating import SEVEN_CALLS, STEADY, failing, steady_connection, update

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
