"""Cancelling: nothing written and the connection resumed, or refused and completed."""

from dataclasses import replace

import pytest
from mcp import Client

from fivetran_state.sandbox import Connection, Sandbox
from tests.calls import (
    IDLE,
    SYNCING,
    Watch,
    arrival,
    call,
    refused,
    state_of,
    status_once,
    version_of,
)
from tests.conftest import Connect


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


async def test_an_update_that_waits_for_a_sync_is_cancelled_and_the_connection_resumed(
    connect: Connect, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, SYNCING)
    sandbox.world.change(SYNCING, lambda found, _: _endless(found))
    async with connect() as client:
        workflow_id = await start(client, SYNCING)
        await status_once(client, workflow_id, lambda status: status.get("phase") == "drain")
        cancelled = await call(client, "cancel_update", workflow_id=workflow_id)
        status = await call(client, "workflow_status", workflow_id=workflow_id)

    assert cancelled["status"] == status["status"] == "cancelled"
    assert not sandbox.connection(SYNCING).paused
    assert state_of(sandbox, SYNCING) == before
    assert "write" not in [step["name"] for step in status["steps"]]


def _endless(connection: Connection) -> Connection:
    return replace(connection, drain_seconds=1000.0, sync_ends_at=4e9)


@pytest.mark.parametrize(("method", "path"), [("PATCH", f"/{IDLE}$"), ("GET", "/state$")])
async def test_an_update_is_cancelled_before_its_write_in_any_phase(
    connect: Connect, sandbox: Sandbox, method: str, path: str
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        fault = sandbox.fault("hang", method=method, path=path)
        started = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2020"},
            expected_version=version,
            wait_seconds=0,
        )
        await arrival(sandbox, lambda request: request.fault == "hang")
        asked = await call(
            client, "cancel_update", workflow_id=started["workflow_id"], wait_seconds=0
        )
        fault.release()
        ended = await call(
            client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
        )

    assert asked["status"] == "running"
    assert ended["status"] == "cancelled"
    watch.ended_with(watch.old)


async def test_an_update_that_has_written_is_completed_and_the_cancel_refused(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        fault = sandbox.fault("hang", method="GET", path="/state$", skip=2)
        workflow_id = await start(client, IDLE)
        await arrival(sandbox, lambda request: request.fault == "hang")
        await call(client, "cancel_update", workflow_id=workflow_id, wait_seconds=0)
        fault.release()
        ended = await call(client, "workflow_status", workflow_id=workflow_id, wait_seconds=50)
        error = await refused(client, "cancel_update", workflow_id=workflow_id)

    assert ended["status"] == "updated"
    assert error["code"] == "too_late_to_cancel"
    assert state_of(sandbox, IDLE)["cursor"] == "2020"
    assert not sandbox.connection(IDLE).paused


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


async def test_cancelling_in_a_race_with_the_write_either_stops_it_or_is_refused(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        for _ in range(20):
            before = state_of(sandbox, IDLE)
            workflow_id = await start_counting(client)
            result = await client.call_tool("cancel_update", {"workflow_id": workflow_id})
            ended = await call(client, "workflow_status", workflow_id=workflow_id, wait_seconds=50)

            was_written = state_of(sandbox, IDLE) != before
            assert ended["status"] == ("updated" if was_written else "cancelled")
            assert result.is_error == was_written
            assert not sandbox.connection(IDLE).paused


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
