"""Syncs around an update: the requested one, syncs since the update, and re-syncs that prevent it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from fivetran_state.sandbox import LoggedRequest, Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    IDLE,
    PAUSED,
    SYNCING,
    Watch,
    arrival,
    call,
    end_of,
    is_pause,
    refused,
    state_of,
    status_once,
    sync_runs_on,
    version_of,
)
from tests.support.processes import running
from tests.support.watching import service_in

RESYNC = "patient_archive"
"""A paused connection with a pending historical re-sync."""
BROKEN = "severed_cable"
MANUAL = "idle_turbine"
PATCH = {"rewound": True}
FOREVER = 1e9


async def request(client: Client, connection_id: str, **more: Any) -> dict[str, Any]:
    return {
        "connection_id": connection_id,
        "merge_patch": PATCH,
        "expected_version": await version_of(client, connection_id),
        "wait_seconds": 50,
        **more,
    }


async def since(client: Client, workflow_id: str) -> dict[str, Any]:
    status = await call(client, "workflow_status", workflow_id=workflow_id)
    found: dict[str, Any] = status["since"]
    return found


def is_sync(logged: LoggedRequest) -> bool:
    return logged.method == "POST" and logged.path.endswith("/sync")


def takes_for_ever(sandbox: Sandbox, connection_id: str, **more: Any) -> None:
    """Starts the connection's next sync, which runs until `sandbox.finish_sync`."""
    sandbox.world.change(
        connection_id, lambda found, _: replace(found, sync_seconds=FOREVER, **more)
    )


# The sync that is asked for


async def test_once_the_sync_is_started_the_progress_is_still_that_of_the_resume(
    connect: Connect, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect() as client:
        done = await call(client, "update_state", **await request(client, IDLE, then_sync=True))

    async with service_in(environment, monkeypatch) as service:
        store = (await service._engine.up()).updates.store
        progress = await store.progress(done["workflow_id"])

    assert progress is not None
    assert progress["message"] == "The connection is back as it was."
    assert progress["still_paused"] is False


async def test_a_sync_is_started_after_the_resume(connect: Connect, sandbox: Sandbox) -> None:
    takes_for_ever(sandbox, IDLE)
    async with connect() as client:
        watch = Watch(sandbox, IDLE)
        done = await call(client, "update_state", **await request(client, IDLE, then_sync=True))

    assert done["status"] == "updated"
    assert done["message"].endswith("A sync was started.")
    *_, resume, sync = watch.calls
    assert (resume, sync) == ("PATCH", "POST")
    (asked,) = [each for each in sandbox.log if is_sync(each)]
    assert asked.body == {"force": False}
    assert asked.paused is False
    assert sandbox.connection(IDLE).syncing
    watch.ended_with(watch.old | PATCH)


async def test_no_sync_is_started_unasked(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        done = await call(client, "update_state", **await request(client, IDLE))

    assert "sync was started" not in done["message"]
    assert not any(map(is_sync, sandbox.log))


async def test_workflow_status_tells_what_has_happened_since(
    connect: Connect, sandbox: Sandbox
) -> None:
    takes_for_ever(sandbox, IDLE)
    async with connect() as client:
        done = await call(client, "update_state", **await request(client, IDLE))
        version = done["version_after"]
        nothing = await since(client, done["workflow_id"])
        sandbox.start_sync(IDLE)
        running = await since(client, done["workflow_id"])
        sandbox.finish_sync(IDLE)
        succeeded = await since(client, done["workflow_id"])
        now = await version_of(client, IDLE)

        def failed(found: Any, at: float) -> Any:
            return replace(found, failed_at=at + 1)

        sandbox.world.change(IDLE, failed)
        failed_later = await since(client, done["workflow_id"])

    assert nothing == {"sync": "none", "state_moved": False, "version": version}
    assert running == {"sync": "running", "state_moved": False, "version": version}
    assert succeeded == {"sync": "succeeded", "state_moved": True, "version": now}
    assert failed_later == succeeded | {"sync": "failed"}


async def test_a_deleted_connection_has_no_since(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        done = await call(client, "update_state", **await request(client, IDLE))
        sandbox.delete_connection(IDLE)
        status = await call(client, "workflow_status", workflow_id=done["workflow_id"])

    assert status["status"] == "updated"
    assert "since" not in status


async def test_a_paused_connection_cannot_sync_afterwards(
    connect: Connect, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, PAUSED)
    async with connect() as client:
        asked = await request(client, PAUSED, then_sync=True)
        plan = await refused(client, "update_state", **asked, dry_run=True)
        error = await refused(client, "update_state", **asked)

    assert plan["code"] == error["code"] == "invalid_request"
    assert "then_sync" in error["message"]
    assert {each for each in watch.calls if "GET" not in each} == set()
    watch.ended_with(watch.old)


async def test_an_unchanged_state_starts_no_sync(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        asked = await request(client, IDLE, merge_patch=state_of(sandbox, IDLE), then_sync=True)
        plan = await call(client, "update_state", **asked, dry_run=True)
        done = await call(client, "update_state", **asked)

    assert done["status"] == "unchanged"
    assert "No sync was started." in plan["message"]
    assert "No sync was started." in done["message"]
    assert not [each for each in sandbox.log if each.method != "GET"]


@pytest.mark.parametrize(
    ("status", "headers"),
    [(400, {}), (403, {}), (404, {}), (429, {"Retry-After": "3600"}), (401, {})],
    ids=str,
)
async def test_a_refused_sync_is_told_and_fails_nothing(
    connect: Connect, sandbox: Sandbox, status: int, headers: dict[str, str]
) -> None:
    async with connect() as client:
        asked = await request(client, IDLE, then_sync=True)
        watch = Watch(sandbox, IDLE)
        sandbox.fault(
            "status", method="POST", path="/sync$", status=status, headers=headers, times=1000
        )
        done = await call(client, "update_state", **asked)

    assert done["status"] == "updated"
    assert "No sync was started: " in done["message"]
    watch.ended_with(watch.old | PATCH)


@pytest.mark.parametrize("status", [500, 429])
async def test_a_sync_is_tried_again(connect: Connect, sandbox: Sandbox, status: int) -> None:
    takes_for_ever(sandbox, IDLE)
    async with connect() as client:
        asked = await request(client, IDLE, then_sync=True)
        sandbox.fault("status", method="POST", path="/sync$", status=status)
        done = await call(client, "update_state", **asked)

    assert done["message"].endswith("A sync was started.")
    assert sandbox.connection(IDLE).syncing


@pytest.mark.slow
async def test_while_the_sync_is_asked_for_nothing_is_paused(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    sandbox.world.change(SYNCING, lambda found, _: replace(found, drain_seconds=0.5))
    async with connect() as client, running(environment, tmp_path) as other:
        asked = await request(client, SYNCING, then_sync=True, wait_seconds=0)
        hold = sandbox.fault("hang", method="POST", path="/sync$")
        started = await call(client, "update_state", **asked)
        await arrival(sandbox, lambda each: each.fault == "hang")
        seen = [
            await call(each, "workflow_status", workflow_id=started["workflow_id"])
            for each in (client, other.client)
        ]
        hold.release()
        await status_once(
            client, started["workflow_id"], lambda status: bool(status["status"] == "updated")
        )

    assert [(each["phase"], each["paused_by_update"]) for each in seen] == [("resume", False)] * 2


async def test_a_connection_that_somebody_else_has_paused_is_not_synced(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        asked = await request(client, IDLE, then_sync=True, wait_seconds=0)
        sandbox.fault("status", method="PATCH", path=f"{IDLE}$", status=409)
        started = await call(client, "update_state", **asked)
        refused_pause = await arrival(sandbox, lambda each: each.fault == "status")
        # The update checks a refused pause: it may have taken effect.
        await arrival(
            sandbox, lambda each: each.index > refused_pause.index and each.status is not None
        )
        sandbox.set_paused(IDLE, True)
        done = await end_of(client, started["workflow_id"])

    assert done["status"] == "updated"
    assert "No sync was started: The connection is paused." in done["message"]


async def test_a_connection_that_is_deleted_meanwhile_is_not_synced(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        asked = await request(client, IDLE, then_sync=True, wait_seconds=0)
        hold = sandbox.fault("hang", method="PATCH", path=f"{IDLE}$", skip=1)
        started = await call(client, "update_state", **asked)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.delete_connection(IDLE)
        hold.release()
        done = await end_of(client, started["workflow_id"])

    assert done["status"] == "updated"
    assert "No sync was started: The connection was deleted." in done["message"]
    assert not [each for each in sandbox.log if is_sync(each)]


async def test_a_running_sync_is_as_good(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        asked = await request(client, IDLE, then_sync=True)
        sandbox.fault("status", method="POST", path="/sync$", status=409)
        done = await call(client, "update_state", **asked)

    assert done["message"].endswith("A sync was started.")


async def test_a_request_with_then_sync_is_another_request(
    connect: Connect, sandbox: Sandbox
) -> None:
    takes_for_ever(sandbox, IDLE)
    async with connect() as client:
        asked = await request(client, IDLE)
        first = await call(client, "update_state", **asked)
        again = await call(client, "update_state", **asked)
        other = await refused(client, "update_state", **asked, then_sync=True)

    assert again["workflow_id"] == first["workflow_id"]
    assert other["code"] == "conflict"
    assert not any(map(is_sync, sandbox.log))


# Historical re-syncs


async def test_a_pending_resync_is_in_the_way(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        asked = await request(client, RESYNC)
        watch = Watch(sandbox, RESYNC)
        plan = await call(client, "update_state", **asked, dry_run=True)
        planned = len(watch.calls)
        error = await refused(client, "update_state", **asked)

    assert plan["status"] == "planned"
    assert "Careful: a historical re-sync" in plan["message"]
    assert error["code"] == "resync_pending"
    assert "allow_resync" in error["hint"]
    assert sorted(watch.calls[planned:]) == ["GET", "GET state"]
    watch.ended_with(watch.old)


async def test_a_running_resync_is_in_the_way(connect: Connect, sandbox: Sandbox) -> None:
    takes_for_ever(sandbox, IDLE)
    sandbox.resync(IDLE)
    async with connect() as client:
        asked = await request(client, IDLE)
        watch = Watch(sandbox, IDLE)
        error = await refused(client, "update_state", **asked)

    assert error["code"] == "resync_pending"
    assert sorted(watch.calls) == ["GET", "GET state"]


async def test_a_resync_that_is_meant_lets_the_change_through(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        watch = Watch(sandbox, RESYNC)
        done = await call(
            client, "update_state", **await request(client, RESYNC, allow_resync=True)
        )

    assert done["status"] == "updated"
    assert "Careful: a historical re-sync" in done["message"]
    watch.ended_with(watch.old | PATCH)


async def test_a_resync_asked_for_meanwhile_is_in_the_way(
    connect: Connect, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    async with connect() as client:
        asked = await request(client, SYNCING)
        watch = Watch(sandbox, SYNCING)
        started = await call(client, "update_state", **asked | {"wait_seconds": 0})
        await arrival(sandbox, lambda each: is_pause(each) and each.applied)
        sandbox.resync(SYNCING)
        sandbox.finish_sync(SYNCING)
        status = await end_of(client, started["workflow_id"])

    assert status["error"]["code"] == "resync_pending"
    assert not watch.requests("PATCH", state=True)
    assert not sandbox.connection(SYNCING).paused


# Connections that do not sync by themselves


async def test_a_broken_connection_is_not_called_running(
    connect: Connect, sandbox: Sandbox
) -> None:
    sandbox.set_paused(BROKEN, False)
    async with connect() as client:
        asked = await request(client, BROKEN)
        plan = await call(client, "update_state", **asked, dry_run=True)
        done = await call(client, "update_state", **asked)

    assert done["status"] == "updated"
    for answer in (plan, done):
        assert "set-up is broken" in answer["message"]
        assert "is running" not in answer["message"]
    assert not sandbox.connection(BROKEN).paused
    assert sandbox.connection(BROKEN).setup_tests_run == 0


async def test_paused_but_shown_as_scheduled_is_drained(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        asked = await request(client, BROKEN)
        watch = Watch(sandbox, BROKEN)
        done = await call(client, "update_state", **asked)

    assert sandbox.connection(BROKEN).sync_state == "scheduled"
    assert watch.calls == ["GET", "GET state", "PATCH state", "GET state"]
    assert "is paused, as it was before" in done["message"]
    watch.ended_with(watch.old | PATCH)


async def test_a_manual_schedule_is_told(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        asked = await request(client, MANUAL)
        plan = await call(client, "update_state", **asked, dry_run=True)
        done = await call(client, "update_state", **asked)

    assert sandbox.connection(MANUAL).sync_state == "rescheduled"
    assert "schedule is manual: no sync starts by itself" in plan["message"]
    assert "schedule is manual and its last sync was postponed" in done["message"]
    assert "no sync starts by itself" in done["message"]


async def test_a_manual_schedule_does_not_keep_from_syncing(
    connect: Connect, sandbox: Sandbox
) -> None:
    takes_for_ever(sandbox, MANUAL)
    async with connect() as client:
        asked = await request(client, MANUAL, then_sync=True)
        plan = await call(client, "update_state", **asked, dry_run=True)
        done = await call(client, "update_state", **asked)

    assert "no sync starts by itself" not in plan["message"]
    assert done["message"].endswith("A sync was started.")
    assert sandbox.connection(MANUAL).syncing


# What an answer tells


async def test_the_seconds_of_the_pause_are_told(connect: Connect) -> None:
    async with connect() as client:
        done = await call(client, "update_state", **await request(client, IDLE))
        status = await call(client, "workflow_status", workflow_id=done["workflow_id"])
        paused = await call(client, "update_state", **await request(client, PAUSED))

    steps = {step["name"]: step for step in status["steps"]}
    assert steps["write"]["seconds"] <= done["paused_seconds"] < 50
    assert status["paused_seconds"] == done["paused_seconds"]
    assert "paused_seconds" not in paused
    assert done["paused_by_update"] is False


async def test_a_plan_made_during_a_sync_warns_of_a_conflict(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        during = await call(client, "update_state", connection_id=SYNCING, merge_patch=PATCH)
        idle = await call(client, "update_state", connection_id=IDLE, merge_patch=PATCH)
        sandbox.finish_sync(SYNCING)
        conflict = await refused(
            client,
            "update_state",
            connection_id=SYNCING,
            merge_patch=PATCH,
            expected_version=during["version_before"],
        )

    assert "Fivetran is asked to stop it" in during["message"]
    assert "ends in a conflict" in during["message"]
    assert "conflict" not in idle["message"]
    assert conflict["code"] == "conflict"
    assert conflict["hint"].startswith("Repeat the call without expected_version for a new plan.")
    assert "Do not pause the connection by other means" in conflict["hint"]
