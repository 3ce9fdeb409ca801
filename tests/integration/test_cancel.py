"""Cancelling: either nothing is written and the connection is resumed, or the cancel is refused and
the update completes."""

from typing import Any

import pytest
from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    IDLE,
    SYNCING,
    Watch,
    arrival,
    call,
    refused,
    state_of,
    status_once,
    sync_runs_on,
    version_of,
)
from tests.support.matrix import CALLS, RUNNING, SYNC

RACES = 200
CALLS_TO_READ = 2
"""The calls of get_state to Fivetran about the connection."""
BEFORE_THE_WRITE = [
    name for name, call in RUNNING.items() if call.position < CALLS["write"].position
]
FROM_THE_WRITE_ON = [name for name in RUNNING if name not in BEFORE_THE_WRITE]


async def start(client: Client, connection_id: str) -> str:
    version = await version_of(client, connection_id)
    started = await call(
        client,
        "update_state",
        connection_id=connection_id,
        merge_patch={"cursor": "2020"},
        expected_version=version,
        wait_seconds=0,
    )
    return str(started["workflow_id"])


async def test_cancelled_while_a_sync_is_waited_for(connect: Connect, sandbox: Sandbox) -> None:
    before = state_of(sandbox, SYNCING)
    sync_runs_on(sandbox)
    async with connect() as client:
        workflow_id = await start(client, SYNCING)
        await status_once(client, workflow_id, lambda status: status.get("phase") == "drain")
        cancelled = await call(client, "cancel_update", workflow_id=workflow_id)
        status = await call(client, "workflow_status", workflow_id=workflow_id)

    assert cancelled["status"] == status["status"] == "cancelled"
    assert not sandbox.connection(SYNCING).paused
    assert state_of(sandbox, SYNCING) == before
    assert "write" not in [step["name"] for step in status["steps"]]


async def cancelled_while(
    client: Client, sandbox: Sandbox, name: str, **more: Any
) -> dict[str, Any]:
    """The end of an update that is cancelled while this call has no answer yet."""
    version = await version_of(client, IDLE)
    at = CALLS[name]
    fault = sandbox.fault("hang", method=at.method, path=at.path(IDLE), skip=at.skip)
    started = await call(
        client,
        "update_state",
        connection_id=IDLE,
        merge_patch={"cursor": "2020"},
        expected_version=version,
        wait_seconds=0,
        **more,
    )
    await arrival(sandbox, lambda request: request.fault == "hang")
    asked = await call(client, "cancel_update", workflow_id=started["workflow_id"], wait_seconds=0)
    fault.release()
    assert asked["status"] == "running"
    return await call(
        client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
    )


@pytest.mark.parametrize("name", BEFORE_THE_WRITE)
async def test_cancelled_before_the_write(connect: Connect, sandbox: Sandbox, name: str) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        ended = await cancelled_while(client, sandbox, name)

    assert ended["status"] == "cancelled"
    assert ended["paused_by_update"] is False
    watch.ended_with(watch.old)


@pytest.mark.parametrize("name", FROM_THE_WRITE_ON)
async def test_too_late_once_the_write_is_sent(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        ended = await cancelled_while(client, sandbox, name)
        error = await refused(client, "cancel_update", workflow_id=ended["workflow_id"])

    assert ended["status"] == "updated"
    assert error["code"] == "too_late_to_cancel"
    watch.ended_with(watch.old | {"cursor": "2020"})


async def test_too_late_while_a_write_without_an_answer_is_repeated(
    connect: Connect, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, IDLE)
    at = CALLS["write"]
    sandbox.fault("apply_then_fail", method=at.method, path=at.path(IDLE), skip=at.skip, times=3)
    async with connect() as client:
        workflow_id = await start(client, IDLE)
        await arrival(sandbox, lambda request: request.fault == "apply_then_fail")
        await call(client, "cancel_update", workflow_id=workflow_id, wait_seconds=0)
        ended = await call(client, "workflow_status", workflow_id=workflow_id, wait_seconds=50)

    assert ended["status"] == "updated"
    watch.ended_with(watch.old | {"cursor": "2020"})


async def test_too_late_while_the_sync_is_started(connect: Connect, sandbox: Sandbox) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect() as client:
        ended = await cancelled_while(client, sandbox, "sync", then_sync=True)

    assert ended["status"] == "updated"
    assert len([each for each in sandbox.log if each.method == SYNC.method]) == 1
    watch.ended_with(watch.old | {"cursor": "2020"})


async def test_a_cancelled_update_may_be_started_again(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        fault = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$")
        request = {
            "connection_id": IDLE,
            "merge_patch": {"cursor": "2020"},
            "expected_version": version,
        }
        first = await call(client, "update_state", **request, wait_seconds=0)
        await arrival(sandbox, lambda logged: logged.fault == "hang")
        await call(client, "cancel_update", workflow_id=first["workflow_id"], wait_seconds=0)
        fault.release()
        await call(client, "workflow_status", workflow_id=first["workflow_id"], wait_seconds=50)
        second = await call(client, "update_state", **request)

    assert (second["workflow_id"], second["status"]) == (f"{IDLE}:2", "updated")


async def test_an_unknown_update_cannot_be_cancelled(connect: Connect) -> None:
    async with connect() as client:
        error = await refused(client, "cancel_update", workflow_id=f"{IDLE}:1")

    assert error["code"] == "workflow_not_found"


@pytest.mark.slow
async def test_a_race_with_the_write_has_one_winner(connect: Connect, sandbox: Sandbox) -> None:
    outcomes, calls = set(), len(RUNNING)
    async with connect() as client:
        await version_of(client, IDLE)  # From now on, the server knows the names of groups.
        for turn in range(RACES):
            before = state_of(sandbox, IDLE)
            since = len(sandbox.log) + CALLS_TO_READ
            workflow_id = await start_counting(client)
            # From before its first call to after its last but one.
            await arrival(sandbox, lambda _, until=since + turn % calls: len(sandbox.log) >= until)  # type: ignore[misc]
            result = await client.call_tool("cancel_update", {"workflow_id": workflow_id})
            ended = await call(client, "workflow_status", workflow_id=workflow_id, wait_seconds=50)

            was_written = state_of(sandbox, IDLE) != before
            assert ended["status"] == ("updated" if was_written else "cancelled")
            assert result.is_error == was_written
            assert not sandbox.connection(IDLE).paused
            outcomes.add(ended["status"])
    assert outcomes == {"updated", "cancelled"}


async def start_counting(client: Client) -> str:
    seen = await call(client, "get_state", connection_id=IDLE)
    started = await call(
        client,
        "update_state",
        connection_id=IDLE,
        merge_patch={"count": seen["state"].get("count", 0) + 1},
        expected_version=seen["version"],
        wait_seconds=0,
    )
    return str(started["workflow_id"])
