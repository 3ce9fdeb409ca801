"""Every fault at every call of an update: the promises hold for every behaviour of Fivetran."""

from typing import Any

import anyio
import pytest
from mcp import Client

from fivetran_state.sandbox import Fault, LoggedRequest, Sandbox
from tests.conftest import Connect
from tests.support import matrix
from tests.support.calls import (
    IDLE,
    PAUSED,
    Watch,
    arrival,
    call,
    in_order,
    refused,
    state_of,
    status_once,
    version_of,
)
from tests.support.matrix import each_with_each, few

PATCH = {"rewound": True}
BUSY = "slow_river"
"""A connection that these tests add: its sync runs until a test ends it."""

CALLS_THAT_CHANGE = ("pause", "write", "resume")
INSPECT = ("inspect", "inspect_state")
AFTER_INSPECT = [name for name in matrix.RUNNING if name not in INSPECT]
PAUSED_AFTER_INSPECT = [name for name in matrix.PAUSED if name not in INSPECT]

TRANSIENT: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "502": {"kind": "status", "status": 502, "body": "<html>Bad gateway</html>"},
    "503": {"kind": "status", "status": 503, "body": ""},
    "429": {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
    "drop": {"kind": "drop"},
    "hang": {"kind": "hang"},
    "garbage": {"kind": "garbage"},
}
TRANSIENT_WITH_EFFECT: dict[str, dict[str, Any]] = {
    "500 with effect": {"kind": "apply_then_fail"},
    "drop with effect": {"kind": "apply_then_drop"},
    "hang with effect": {"kind": "apply_then_hang"},
    "garbage with effect": {"kind": "apply_then_garbage"},
}
REFUSALS = {
    400: "fivetran_error",
    401: "unauthorized",
    403: "forbidden",
    404: "connection_not_found",
}
REFUSALS_OF_A_STATE = REFUSALS | {400: "no_state_yet", 405: "state_not_kept"}
NO_DATA = '{"code":"Success"}'
MANGLED: dict[str, Any] = {
    "call_name": "write",
    "kind": "wrong_state",
    "body": '{"cursor":"mangled"}',
}
"""Fivetran keeps another state than the one that was written, and says so."""


def befall(
    sandbox: Sandbox, call_name: str, connection_id: str = IDLE, *, times: int = 1, **fault: Any
) -> Fault:
    is_paused = sandbox.connection(connection_id).paused
    calls = matrix.PAUSED if is_paused else matrix.RUNNING | matrix.MORE
    call_ = calls[call_name]
    return sandbox.fault(
        method=call_.method, path=call_.path(connection_id), skip=call_.skip, times=times, **fault
    )


def patience_for(fault: dict[str, Any]) -> dict[str, str]:
    return {"FIVETRAN_STATE_HTTP_TIMEOUT": "1"} if "hang" in fault["kind"] else {}


def changed(watch: Watch) -> dict[str, Any]:
    new: dict[str, Any] = watch.old | PATCH
    return new


async def update_succeeds(
    client: Client, sandbox: Sandbox, connection_id: str, *faults: dict[str, Any]
) -> None:
    """Makes an update, and compares its report with the real result."""
    version = await version_of(client, connection_id)
    watch = Watch(sandbox, connection_id)
    befallen = [befall(sandbox, connection_id=connection_id, **fault) for fault in faults]

    done = await call(client, "update_state", **request(connection_id, version))

    assert [fault.times for fault in befallen] == [0] * len(faults), "a fault did not happen"
    watch.ended_with(changed(watch))
    assert (done["status"], done["paused_by_update"]) == ("updated", False)
    assert done["was_paused"] == watch.was_paused
    assert done["version_before"] == version
    assert [change["path"] for change in done["changes"]] == ["/rewound"]
    status = await call(client, "workflow_status", workflow_id=done["workflow_id"])
    assert (status["status"], status["paused_by_update"]) == ("updated", False)
    assert await version_of(client, connection_id) == done["version_after"] != version


async def update_fails(
    client: Client, sandbox: Sandbox, connection_id: str, *faults: dict[str, Any]
) -> tuple[dict[str, Any], Watch]:
    """The error of an update that has changed nothing; compares the report with the real result."""
    version = await version_of(client, connection_id)
    watch = Watch(sandbox, connection_id)
    befallen = [befall(sandbox, connection_id=connection_id, **fault) for fault in faults]

    error = await refused(client, "update_state", **request(connection_id, version))

    assert [fault.times for fault in befallen] == [0] * len(faults), "a fault did not happen"
    watch.ended_with(watch.old)
    status = await call(client, "workflow_status", workflow_id=error["workflow_id"])
    assert (status["status"], status["paused_by_update"]) == ("failed", False)
    assert status["error"]["code"] == error["code"]
    assert await version_of(client, connection_id) == version
    return error, watch


def request(connection_id: str, version: str) -> dict[str, Any]:
    return {
        "connection_id": connection_id,
        "merge_patch": PATCH,
        "expected_version": version,
        "wait_seconds": 50,
    }


def busy_connection(sandbox: Sandbox) -> None:
    """The state of this connection has no cursor that a sync would move."""
    forever = 100_000.0
    sandbox.add_connection(
        BUSY, state='{"table":"orders"}', sync_seconds=forever, drain_seconds=forever
    )
    sandbox.start_sync(BUSY)


def alike(watch: Watch, name: str) -> list[LoggedRequest]:
    """All requests of the same kind as this call."""
    call_ = matrix.RUNNING[name]
    return watch.requests(call_.method, state=call_.kind.endswith("state"))


@pytest.mark.parametrize("connection_id", [IDLE, PAUSED])
async def test_the_matrix_has_every_call(
    connect: Connect, sandbox: Sandbox, connection_id: str
) -> None:
    async with connect() as client:
        version = await version_of(client, connection_id)
        watch = Watch(sandbox, connection_id)
        await call(client, "update_state", **request(connection_id, version))

    calls = matrix.PAUSED if watch.was_paused else matrix.RUNNING
    assert in_order(watch.calls) == matrix.kinds(calls)


async def test_a_sync_is_the_eighth_call(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        await call(client, "update_state", **request(IDLE, version), then_sync=True)

    assert in_order(watch.calls) == matrix.kinds(matrix.CALLS)


# What passes by itself


@pytest.mark.parametrize(("name", "fault"), each_with_each(matrix.RUNNING, TRANSIENT))
async def test_one_fault_makes_no_difference(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    async with connect(**patience_for(TRANSIENT[fault])) as client:
        await update_succeeds(client, sandbox, IDLE, {"call_name": name, **TRANSIENT[fault]})


@pytest.mark.parametrize(
    ("name", "fault"), each_with_each(CALLS_THAT_CHANGE, TRANSIENT_WITH_EFFECT)
)
async def test_a_lost_answer_is_not_a_failure(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    befalls = TRANSIENT_WITH_EFFECT[fault]
    async with connect(**patience_for(befalls)) as client:
        await update_succeeds(client, sandbox, IDLE, {"call_name": name, **befalls})


@pytest.mark.parametrize(("name", "fault"), each_with_each(matrix.PAUSED, TRANSIENT))
async def test_one_fault_at_a_paused_connection(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    async with connect(**patience_for(TRANSIENT[fault])) as client:
        await update_succeeds(client, sandbox, PAUSED, {"call_name": name, **TRANSIENT[fault]})


@pytest.mark.parametrize("fault", TRANSIENT_WITH_EFFECT.values(), ids=TRANSIENT_WITH_EFFECT)
async def test_a_lost_answer_at_a_paused_connection(
    connect: Connect, sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    async with connect(**patience_for(fault)) as client:
        await update_succeeds(client, sandbox, PAUSED, {"call_name": "write", **fault})


async def test_every_call_may_fail_once(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        # An attempt that passes one fault is one that the next fault skips.
        for method, path in {(each.method, each.path(IDLE)) for each in matrix.RUNNING.values()}:
            for success in range(4):
                sandbox.fault("status", method=method, path=path, skip=success, status=502)

        done = await call(client, "update_state", **request(IDLE, version))

    assert done["status"] == "updated"
    watch.ended_with(changed(watch))


@pytest.mark.parametrize(("name", "fault"), each_with_each(AFTER_INSPECT, ["503", "drop"]))
async def test_an_outage_after_inspect_is_sat_out(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    messages: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")

    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        position = matrix.RUNNING[name].position
        sandbox.fault(path=IDLE, skip=position, times=6, **TRANSIENT[fault])

        result = await client.call_tool(
            "update_state", request(IDLE, version), progress_callback=on_progress
        )

    assert result.structured_content is not None, result.content
    assert result.structured_content["status"] == "updated"
    watch.ended_with(changed(watch))
    waits = [message for message in messages if "Trying again in" in message]
    assert waits
    assert all("the connection is still paused" in message for message in waits)


@pytest.mark.parametrize("name", PAUSED_AFTER_INSPECT)
async def test_an_outage_leaves_a_paused_connection_paused(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        fault = {"call_name": name, "kind": "status", "status": 503, "times": 2}
        await update_succeeds(client, sandbox, PAUSED, fault)


@pytest.mark.parametrize(("name", "fault"), each_with_each(INSPECT, ["500", "drop", "garbage"]))
async def test_an_outage_at_inspect_touches_nothing(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client, sandbox, IDLE, {"call_name": name, "times": 4, **TRANSIENT[fault]}
        )

    assert error["code"] == "fivetran_unavailable"
    assert {each.split()[0] for each in watch.calls} == {"GET"}


@pytest.mark.parametrize("name", few(["snapshot", "resume"], matrix.RUNNING))
async def test_a_long_rate_limit_is_waited_for_and_shown(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        befall(sandbox, name, kind="status", status=429, headers={"Retry-After": "6"})
        started = await call(client, "update_state", **request(IDLE, version) | {"wait_seconds": 0})

        waiting = await status_once(
            client, started["workflow_id"], lambda status: status.get("phase") == "wait"
        )
        done = await call(
            client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
        )

    is_paused = name not in (*INSPECT, "pause")
    assert "6 s" in waiting["message"]
    assert waiting["paused_by_update"] == is_paused
    assert ("the connection is still paused" in waiting["message"]) == is_paused
    assert done["status"] == "updated"
    limited, again = alike(watch, name)[matrix.RUNNING[name].skip :][:2]
    assert limited.status == 429
    assert again.time - limited.time >= 6
    watch.ended_with(changed(watch))


@pytest.mark.parametrize("fault", ["500", "drop"])
async def test_a_fault_while_a_sync_drains(connect: Connect, sandbox: Sandbox, fault: str) -> None:
    busy_connection(sandbox)
    async with connect() as client, anyio.create_task_group() as tasks:

        async def the_sync_ends_during_the_fault() -> None:
            await arrival(sandbox, lambda each: each.fault == TRANSIENT[fault]["kind"])
            sandbox.finish_sync(BUSY)

        tasks.start_soon(the_sync_ends_during_the_fault)
        await update_succeeds(client, sandbox, BUSY, {"call_name": "drain", **TRANSIENT[fault]})


async def test_a_pause_that_answers_500_during_a_sync(connect: Connect, sandbox: Sandbox) -> None:
    busy_connection(sandbox)
    async with connect() as client, anyio.create_task_group() as tasks:

        async def the_sync_ends_after_the_pause() -> None:
            await arrival(sandbox, lambda each: each.method == "GET" and each.paused is True)
            sandbox.finish_sync(BUSY)

        tasks.start_soon(the_sync_ends_after_the_pause)
        await update_succeeds(
            client, sandbox, BUSY, {"call_name": "pause", "kind": "apply_then_fail"}
        )


@pytest.mark.parametrize("fault", ["500", "drop", "garbage with effect"])
async def test_a_fault_during_the_roll_back(connect: Connect, sandbox: Sandbox, fault: str) -> None:
    async with connect() as client:
        error, _ = await update_fails(
            client,
            sandbox,
            IDLE,
            MANGLED,
            {"call_name": "roll_back", **(TRANSIENT | TRANSIENT_WITH_EFFECT)[fault]},
        )

    assert error["code"] == "verification_failed"


@pytest.mark.parametrize("fault", few(["503"], TRANSIENT | TRANSIENT_WITH_EFFECT))
async def test_one_fault_at_the_sync(connect: Connect, sandbox: Sandbox, fault: str) -> None:
    befalls = (TRANSIENT | TRANSIENT_WITH_EFFECT)[fault]
    async with connect(**patience_for(befalls)) as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault(method="POST", path=matrix.SYNC.path(IDLE), **befalls)

        done = await call(client, "update_state", **request(IDLE, version), then_sync=True)

    assert done["status"] == "updated"
    assert "A sync was started." in done["message"]
    assert sandbox.connection(IDLE).syncing
    watch.ended_with(changed(watch))


# What is refused


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        *(("inspect", status, code) for status, code in REFUSALS.items()),
        ("inspect", 409, "fivetran_error"),
        *(("inspect_state", status, code) for status, code in REFUSALS_OF_A_STATE.items()),
        ("inspect_state", 409, "fivetran_error"),
    ],
)
async def test_a_refused_inspection_pauses_nobody(
    connect: Connect, sandbox: Sandbox, name: str, status: int, code: str
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client, sandbox, IDLE, {"call_name": name, "kind": "status", "status": status}
        )

    assert error["code"] == code
    assert in_order(watch.calls)[:2] == ["GET", "GET state"]
    assert not watch.requests("PATCH", state=False)
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize(("status", "code"), REFUSALS_OF_A_STATE.items())
async def test_a_refused_state_of_a_paused_connection(
    connect: Connect, sandbox: Sandbox, status: int, code: str
) -> None:
    fault = {"call_name": "inspect_state", "kind": "status", "status": status}
    async with connect() as client:
        error, watch = await update_fails(client, sandbox, PAUSED, fault)

    assert error["code"] == code
    assert watch.calls[:2] == ["GET", "GET state"]
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize(("status", "code"), [each for each in REFUSALS.items() if each[0] != 404])
async def test_a_refused_pause_changes_nothing(
    connect: Connect, sandbox: Sandbox, status: int, code: str
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client, sandbox, IDLE, {"call_name": "pause", "kind": "status", "status": status}
        )

    assert error["code"] == code
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize(("status", "code"), REFUSALS_OF_A_STATE.items())
async def test_a_refused_snapshot_is_not_written_over(
    connect: Connect, sandbox: Sandbox, status: int, code: str
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client, sandbox, IDLE, {"call_name": "snapshot", "kind": "status", "status": status}
        )

    assert error["code"] == code
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize("connection_id", [IDLE, PAUSED])
@pytest.mark.parametrize(("status", "code"), [*REFUSALS.items(), (405, "state_not_kept")])
async def test_a_refused_write_leaves_the_old_state(
    connect: Connect, sandbox: Sandbox, connection_id: str, status: int, code: str
) -> None:
    fault = {"call_name": "write", "kind": "status", "status": status}
    async with connect() as client:
        error, _ = await update_fails(client, sandbox, connection_id, fault)

    assert error["code"] == code


@pytest.mark.parametrize("connection_id", [IDLE, PAUSED])
async def test_a_write_refused_because_of_a_sync_is_tried_again(
    connect: Connect, sandbox: Sandbox, connection_id: str
) -> None:
    async with connect() as client:
        fault = {"call_name": "write", "kind": "status", "status": 409}
        await update_succeeds(client, sandbox, connection_id, fault)


@pytest.mark.parametrize("connection_id", few([IDLE], [IDLE, PAUSED]))
@pytest.mark.parametrize("status", few([401, 404], [400, 401, 403, 404, 405, 409]))
async def test_a_refused_verify_is_tried_again(
    connect: Connect, sandbox: Sandbox, connection_id: str, status: int
) -> None:
    async with connect() as client:
        fault = {"call_name": "verify", "kind": "status", "status": status}
        await update_succeeds(client, sandbox, connection_id, fault)


@pytest.mark.slow
async def test_a_verify_that_stays_refused(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        fault = befall(sandbox, "verify", kind="status", status=403, times=6)

        error = await refused(client, "update_state", **request(IDLE, version))

    assert fault.times == 0
    assert error["code"] == "rollback_failed"
    assert "could not be read back" in error["message"]
    assert state_of(sandbox, IDLE) == changed(watch)
    assert len(watch.requests("PATCH", state=True)) == 1
    assert not sandbox.connection(IDLE).paused


async def test_a_person_may_resume_what_the_key_may_not(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        befall(sandbox, "resume", times=1000, kind="status", status=403)
        started = await call(client, "update_state", **request(IDLE, version) | {"wait_seconds": 0})
        of = {"workflow_id": started["workflow_id"]}
        await status_once(client, of["workflow_id"], lambda status: status.get("phase") == "wait")

        sandbox.set_paused(IDLE, False)
        done = await call(client, "workflow_status", **of, wait_seconds=50)

    assert (done["status"], done["paused_by_update"]) == ("updated", False)
    watch.ended_with(changed(watch))


@pytest.mark.slow
async def test_an_outage_at_verify_is_sat_out_for_longer_than_a_refusal(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        fault = befall(sandbox, "verify", kind="status", status=503, times=24)

        sent = await call(client, "update_state", **request(IDLE, version))
        of = {"workflow_id": sent["workflow_id"], "wait_seconds": 50}
        done = await call(client, "workflow_status", **of)

    assert fault.times == 0
    assert done["status"] == "updated"
    watch.ended_with(changed(watch))


@pytest.mark.parametrize("status", few([400, 403], [400, 401, 403, 409]))
async def test_a_refused_resume_is_tried_until_it_succeeds(
    connect: Connect, sandbox: Sandbox, status: int
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        befall(sandbox, "resume", times=1000, kind="status", status=status)
        started = await call(client, "update_state", **request(IDLE, version) | {"wait_seconds": 0})
        workflow_id = started["workflow_id"]

        stuck = await status_once(client, workflow_id, lambda status: status.get("phase") == "wait")
        assert sandbox.connection(IDLE).paused
        sandbox.clear_faults()
        done = await call(client, "workflow_status", workflow_id=workflow_id, wait_seconds=50)

    assert (stuck["status"], stuck["paused_by_update"]) == ("running", True)
    assert "still paused" in stuck["message"]
    assert (done["status"], done["paused_by_update"]) == ("updated", False)
    watch.ended_with(changed(watch))


async def test_a_refused_resume_does_not_hide_a_refused_write(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        error, _ = await update_fails(
            client,
            sandbox,
            IDLE,
            {"call_name": "write", "kind": "status", "status": 403},
            {"call_name": "resume", "kind": "status", "status": 401},
        )

    assert error["code"] == "forbidden"


async def test_a_roll_back_that_meets_a_sync_waits_for_it(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client,
            sandbox,
            IDLE,
            MANGLED,
            {"call_name": "roll_back", "kind": "status", "status": 409, "times": 2},
        )

    assert error["code"] == "verification_failed"
    assert "back in place" in error["message"]
    assert len(watch.requests("PATCH", state=True)) == 4


async def test_a_refused_roll_back_is_reported(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        befall(sandbox, **MANGLED)
        befall(sandbox, "roll_back", kind="status", status=403)

        error = await refused(client, "update_state", **request(IDLE, version))

    assert error["code"] == "rollback_failed"
    assert "mangled" in error["differences"]
    assert not sandbox.connection(IDLE).paused


@pytest.mark.parametrize(("name", "status"), [("roll_back", 401), ("verify_roll_back", 403)])
async def test_a_roll_back_is_tried_again(
    connect: Connect, sandbox: Sandbox, name: str, status: int
) -> None:
    async with connect() as client:
        error, _ = await update_fails(
            client, sandbox, IDLE, MANGLED, {"call_name": name, "kind": "status", "status": status}
        )

    assert error["code"] == "verification_failed"
    assert "back in place" in error["message"]


@pytest.mark.parametrize(("status", "started"), [(400, False), (403, False), (409, True)])
async def test_a_refused_sync_changes_no_outcome(
    connect: Connect, sandbox: Sandbox, status: int, started: bool
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault("status", method="POST", path=matrix.SYNC.path(IDLE), status=status)

        done = await call(client, "update_state", **request(IDLE, version), then_sync=True)

    assert done["status"] == "updated"
    assert ("A sync was started." in done["message"]) == started
    assert ("No sync was started: " in done["message"]) != started
    watch.ended_with(changed(watch))


async def test_a_refused_look_at_an_uncertain_write(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        befall(sandbox, "write", kind="apply_then_drop")
        sandbox.fault("status", method="GET", path=f"/{IDLE}$", skip=1, status=403)

        done = await call(client, "update_state", **request(IDLE, version))

    assert done["status"] == "updated"
    watch.ended_with(changed(watch))


@pytest.mark.parametrize("status", [403, 409])
async def test_a_refused_look_at_an_uncertain_pause(
    connect: Connect, sandbox: Sandbox, status: int
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        befall(sandbox, "pause", kind="apply_then_fail", status=502)
        sandbox.fault("status", method="GET", path=f"/{IDLE}$", skip=1, status=status)

        done = await call(client, "update_state", **request(IDLE, version))

    assert done["status"] == "updated"
    watch.ended_with(changed(watch))


async def test_a_refusal_carries_fivetrans_own_code_and_message(
    connect: Connect, sandbox: Sandbox
) -> None:
    body = '{"code":"InvalidInput","message":"The cursor is not a cursor"}'
    async with connect() as client:
        error, _ = await update_fails(
            client,
            sandbox,
            IDLE,
            {"call_name": "write", "kind": "status", "status": 400, "body": body},
        )

    assert (error["fivetran_code"], error["status"]) == ("InvalidInput", 400)
    assert "The cursor is not a cursor" in error["message"]


# Answers that say nothing


@pytest.mark.parametrize("name", few(["snapshot"], ["snapshot", "verify"]))
async def test_one_read_without_data_is_tried_again(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        fault = {"call_name": name, "kind": "garbage", "body": NO_DATA}
        await update_succeeds(client, sandbox, IDLE, fault)


async def test_an_inspection_without_a_state(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        fault = {"call_name": "inspect_state", "kind": "garbage", "body": NO_DATA}
        error, watch = await update_fails(client, sandbox, IDLE, fault)

    assert error["code"] == "fivetran_unavailable"
    assert not watch.requests("PATCH", state=False)


async def test_a_write_that_answers_no_state_is_verified(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        fault = {"call_name": "write", "kind": "apply_then_garbage", "body": NO_DATA}
        await update_succeeds(client, sandbox, IDLE, fault)


@pytest.mark.parametrize("status", [400, 409])
async def test_a_pause_is_looked_at_whatever_is_said(
    connect: Connect, sandbox: Sandbox, status: int
) -> None:
    body = '{"message":"Failed to stop in-progress sync after trying for 60 seconds"}'
    async with connect() as client:
        fault = {"call_name": "pause", "kind": "apply_then_fail", "status": status, "body": body}
        await update_succeeds(client, sandbox, IDLE, fault)


async def test_a_pause_refused_because_of_a_sync_is_tried_again(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        fault = {"call_name": "pause", "kind": "status", "status": 409}
        await update_succeeds(client, sandbox, IDLE, fault)


async def test_details_that_lack_everything_pause_nobody(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        fault = {"call_name": "inspect", "kind": "garbage", "body": '{"data":{}}'}
        error, watch = await update_fails(client, sandbox, IDLE, fault)

    assert error["code"] == "fivetran_unavailable"
    assert in_order(watch.calls)[:2] == ["GET", "GET state"]
    assert not watch.requests("PATCH", state=False)


@pytest.mark.parametrize("name", ["pause", "resume"])
async def test_details_that_lack_everything_after_a_change(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        fault = {"call_name": name, "kind": "apply_then_garbage", "body": '{"data":{}}'}
        await update_succeeds(client, sandbox, IDLE, fault)
