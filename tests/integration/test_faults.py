"""Every fault at every call of an update: the promises hold whatever Fivetran does."""

from typing import Any, NamedTuple

import anyio
import pytest
from mcp import Client

from fivetran_state.sandbox import Fault, LoggedRequest, Sandbox
from tests.calls import (
    IDLE,
    PAUSED,
    Watch,
    arrival,
    call,
    refused,
    status_once,
    version_of,
)
from tests.conftest import Connect
from tests.matrix import each_with_each

PATCH = {"rewound": True}
BUSY = "slow_river"
"""A connection that these tests add: its sync runs until a test ends it."""


class Call(NamedTuple):
    """The `skip`-th call of its kind (from 0), and the `position`-th of all, in an undisturbed update."""

    method: str
    path: str
    skip: int
    position: int


CALLS = {
    "inspect": Call("GET", r"/connections/\w+$", 0, 0),
    "pause": Call("PATCH", r"/connections/\w+$", 0, 1),
    "snapshot": Call("GET", "/state$", 0, 2),
    "write": Call("PATCH", "/state$", 0, 3),
    "verify": Call("GET", "/state$", 1, 4),
    "resume": Call("PATCH", r"/connections/\w+$", 1, 5),
}
# A fault does not count the requests that an earlier one takes: of the two writes, the first is.
MORE_CALLS = {
    "drain": Call("GET", r"/connections/\w+$", 1, 2),
    "roll_back": Call("PATCH", "/state$", 0, 5),
    "verify_roll_back": Call("GET", "/state$", 2, 6),
}
CALLS_OF_PAUSED = ("inspect", "snapshot", "write", "verify")
CALLS_THAT_CHANGE = ("pause", "write", "resume")
CALLS_AFTER_INSPECT = ("pause", "snapshot", "write", "verify", "resume")

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


def befall(sandbox: Sandbox, call_name: str, *, times: int = 1, **fault: Any) -> Fault:
    method, path, skip, _ = (CALLS | MORE_CALLS)[call_name]
    return sandbox.fault(method=method, path=path, skip=skip, times=times, **fault)


def patience_for(fault: dict[str, Any]) -> dict[str, str]:
    return {"FIVETRAN_STATE_HTTP_TIMEOUT": "1"} if "hang" in fault["kind"] else {}


def changed(watch: Watch) -> dict[str, Any]:
    new: dict[str, Any] = watch.old | PATCH
    return new


async def update_succeeds(
    client: Client, sandbox: Sandbox, connection_id: str, *faults: dict[str, Any]
) -> None:
    """Updates, and holds what is reported against what happened."""
    version = await version_of(client, connection_id)
    watch = Watch(sandbox, connection_id)
    befallen = [befall(sandbox, **fault) for fault in faults]

    done = await call(client, "update_state", **request(connection_id, version))

    assert [fault.times for fault in befallen] == [0] * len(faults), "a fault did not happen"
    watch.ended_with(changed(watch))
    assert (done["status"], done["still_paused"]) == ("updated", False)
    assert done["was_paused"] == watch.was_paused
    assert done["version_before"] == version
    assert [change["path"] for change in done["changes"]] == ["/rewound"]
    status = await call(client, "workflow_status", workflow_id=done["workflow_id"])
    assert (status["status"], status["still_paused"]) == ("updated", False)
    assert await version_of(client, connection_id) == done["version_after"] != version


async def update_fails(
    client: Client, sandbox: Sandbox, connection_id: str, *faults: dict[str, Any]
) -> tuple[dict[str, Any], Watch]:
    """The error, after holding what is reported against what happened: nothing has changed."""
    version = await version_of(client, connection_id)
    watch = Watch(sandbox, connection_id)
    befallen = [befall(sandbox, **fault) for fault in faults]

    error = await refused(client, "update_state", **request(connection_id, version))

    assert [fault.times for fault in befallen] == [0] * len(faults), "a fault did not happen"
    watch.ended_with(watch.old)
    status = await call(client, "workflow_status", workflow_id=error["workflow_id"])
    assert (status["status"], status["still_paused"]) == ("failed", False)
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
    """Its state holds nothing that a sync would move."""
    forever = 100_000.0
    sandbox.add_connection(
        BUSY, state='{"table":"orders"}', sync_seconds=forever, drain_seconds=forever
    )
    sandbox.start_sync(BUSY)


# What passes by itself


@pytest.mark.parametrize(("name", "fault"), each_with_each(CALLS, TRANSIENT))
async def test_one_transient_fault_at_any_call_makes_no_difference(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    async with connect(**patience_for(TRANSIENT[fault])) as client:
        await update_succeeds(client, sandbox, IDLE, {"call_name": name, **TRANSIENT[fault]})


@pytest.mark.parametrize(
    ("name", "fault"), each_with_each(CALLS_THAT_CHANGE, TRANSIENT_WITH_EFFECT)
)
async def test_a_change_whose_answer_is_lost_is_not_taken_for_a_failure(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    befalls = TRANSIENT_WITH_EFFECT[fault]
    async with connect(**patience_for(befalls)) as client:
        await update_succeeds(client, sandbox, IDLE, {"call_name": name, **befalls})


@pytest.mark.parametrize(
    ("name", "fault"), each_with_each(CALLS_OF_PAUSED, ["503", "drop", "hang"])
)
async def test_one_transient_fault_leaves_a_paused_connection_paused(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    async with connect(**patience_for(TRANSIENT[fault])) as client:
        await update_succeeds(client, sandbox, PAUSED, {"call_name": name, **TRANSIENT[fault]})


@pytest.mark.parametrize("fault", TRANSIENT_WITH_EFFECT.values(), ids=TRANSIENT_WITH_EFFECT)
async def test_a_write_whose_answer_is_lost_leaves_a_paused_connection_paused(
    connect: Connect, sandbox: Sandbox, fault: dict[str, Any]
) -> None:
    async with connect(**patience_for(fault)) as client:
        await update_succeeds(client, sandbox, PAUSED, {"call_name": "write", **fault})


async def test_every_call_may_fail_once_in_the_same_update(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        # Each attempt that is let through is the next one that the fault skips.
        for method, path in {(each.method, each.path) for each in CALLS.values()}:
            for success in range(3):
                sandbox.fault("status", method=method, path=path, skip=success, status=502)

        done = await call(client, "update_state", **request(IDLE, version))

    assert done["status"] == "updated"
    watch.ended_with(changed(watch))


@pytest.mark.parametrize(("name", "fault"), each_with_each(CALLS_AFTER_INSPECT, ["503", "drop"]))
async def test_an_outage_that_begins_at_any_call_after_inspect_is_sat_out(
    connect: Connect, sandbox: Sandbox, name: str, fault: str
) -> None:
    messages: list[str] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message or "")

    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        sandbox.fault(path=IDLE, skip=CALLS[name].position, times=6, **TRANSIENT[fault])

        result = await client.call_tool(
            "update_state", request(IDLE, version), progress_callback=on_progress
        )

    assert result.structured_content is not None, result.content
    assert result.structured_content["status"] == "updated"
    watch.ended_with(changed(watch))
    waits = [message for message in messages if "Trying again in" in message]
    assert waits
    assert all("the connection is still paused" in message for message in waits)


@pytest.mark.parametrize("name", CALLS_OF_PAUSED[1:])
async def test_an_outage_leaves_a_paused_connection_paused(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        fault = {"call_name": name, "kind": "status", "status": 503, "times": 2}
        await update_succeeds(client, sandbox, PAUSED, fault)


@pytest.mark.parametrize("fault", ["500", "drop", "garbage"])
async def test_an_outage_at_inspect_fails_at_once_with_nothing_done(
    connect: Connect, sandbox: Sandbox, fault: str
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client, sandbox, IDLE, {"call_name": "inspect", "times": 4, **TRANSIENT[fault]}
        )

    assert error["code"] == "fivetran_unavailable"
    assert not watch.requests("PATCH", state=False)
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize("name", ["inspect", "snapshot", "write", "resume"])
async def test_a_long_rate_limit_is_waited_for_durably_and_shown(
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

    assert "6 s" in waiting["message"]
    assert waiting["still_paused"] == (name != "inspect")
    assert ("the connection is still paused" in waiting["message"]) == (name != "inspect")
    assert done["status"] == "updated"
    limited, again = _kind(watch, name)[CALLS[name].skip :][:2]
    assert limited.status == 429
    assert again.time - limited.time >= 6
    watch.ended_with(changed(watch))


@pytest.mark.parametrize("retry_after", ["0", "soon", "-5", None])
async def test_any_retry_after_is_understood(
    connect: Connect, sandbox: Sandbox, retry_after: str | None
) -> None:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    fault = {"call_name": "write", "kind": "status", "status": 429, "headers": headers}
    async with connect() as client:
        await update_succeeds(client, sandbox, IDLE, fault)


@pytest.mark.parametrize("fault", ["500", "drop"])
async def test_a_fault_while_a_sync_drains_makes_no_difference(
    connect: Connect, sandbox: Sandbox, fault: str
) -> None:
    busy_connection(sandbox)
    async with connect() as client, anyio.create_task_group() as tasks:

        async def the_sync_ends_during_the_fault() -> None:
            await arrival(sandbox, lambda each: each.fault == TRANSIENT[fault]["kind"])
            sandbox.finish_sync(BUSY)

        tasks.start_soon(the_sync_ends_during_the_fault)
        await update_succeeds(
            client,
            sandbox,
            BUSY,
            {"call_name": "drain", **TRANSIENT[fault]},
        )


async def test_a_pause_that_answers_500_during_a_sync_is_found_to_have_taken_effect(
    connect: Connect, sandbox: Sandbox
) -> None:
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
async def test_a_transient_fault_during_the_roll_back_makes_no_difference(
    connect: Connect, sandbox: Sandbox, fault: str
) -> None:
    async with connect() as client:
        error, _ = await update_fails(
            client,
            sandbox,
            IDLE,
            {"call_name": "write", "kind": "wrong_state", "body": '{"cursor":"mangled"}'},
            {"call_name": "roll_back", **(TRANSIENT | TRANSIENT_WITH_EFFECT)[fault]},
        )

    assert error["code"] == "verification_failed"


# What is refused


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("inspect", 409),
        *(("inspect", status) for status in REFUSALS),
        *(("pause", status) for status in REFUSALS if status != 404),
    ],
)
async def test_a_refusal_before_the_pause_ends_the_update_with_nothing_done(
    connect: Connect, sandbox: Sandbox, name: str, status: int
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client, sandbox, IDLE, {"call_name": name, "kind": "status", "status": status}
        )

    assert error["code"] == REFUSALS.get(status, "fivetran_error")
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize("connection_id", [IDLE, PAUSED])
@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_refused_snapshot_ends_the_update_with_nothing_written(
    connect: Connect, sandbox: Sandbox, connection_id: str, status: int
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client,
            sandbox,
            connection_id,
            {"call_name": "snapshot", "kind": "status", "status": status},
        )

    assert error["code"] == REFUSALS.get(status, "state_not_kept")
    assert not watch.requests("PATCH", state=True)


async def test_a_snapshot_answered_with_400_counts_as_empty_and_so_as_a_conflict(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        error, watch = await update_fails(
            client, sandbox, IDLE, {"call_name": "snapshot", "kind": "status", "status": 400}
        )

    assert error["code"] == "conflict"
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize("connection_id", [IDLE, PAUSED])
@pytest.mark.parametrize("status", [*REFUSALS, 405])
async def test_a_refused_write_ends_the_update_with_the_old_state(
    connect: Connect, sandbox: Sandbox, connection_id: str, status: int
) -> None:
    async with connect() as client:
        error, _ = await update_fails(
            client,
            sandbox,
            connection_id,
            {"call_name": "write", "kind": "status", "status": status},
        )

    assert error["code"] == REFUSALS.get(status, "state_not_kept")


@pytest.mark.parametrize("connection_id", [IDLE, PAUSED])
async def test_a_write_refused_because_of_a_sync_is_tried_again(
    connect: Connect, sandbox: Sandbox, connection_id: str
) -> None:
    async with connect() as client:
        fault = {"call_name": "write", "kind": "status", "status": 409}
        await update_succeeds(client, sandbox, connection_id, fault)


@pytest.mark.parametrize("connection_id", [IDLE, PAUSED])
@pytest.mark.parametrize("status", REFUSALS)
async def test_when_verifying_is_refused_the_old_state_is_put_back_before_the_resume(
    connect: Connect, sandbox: Sandbox, connection_id: str, status: int
) -> None:
    async with connect() as client:
        error, _ = await update_fails(
            client,
            sandbox,
            connection_id,
            {"call_name": "verify", "kind": "status", "status": status},
        )

    assert error["code"] == "verification_failed"


@pytest.mark.parametrize("status", [400, 401, 403, 409])
async def test_a_refused_resume_is_tried_until_it_succeeds_and_says_so_meanwhile(
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

    assert (stuck["status"], stuck["still_paused"]) == ("running", True)
    assert "still paused" in stuck["message"]
    assert (done["status"], done["still_paused"]) == ("updated", False)
    watch.ended_with(changed(watch))


async def test_a_refused_resume_after_a_refused_write_ends_with_the_refusal_of_the_write(
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


@pytest.mark.parametrize("name", ["roll_back", "verify_roll_back"])
async def test_a_refusal_during_the_roll_back_does_not_hide_that_the_state_was_mangled(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        befall(sandbox, "write", kind="wrong_state", body='{"cursor":"mangled"}')
        befall(sandbox, name, kind="status", status=403)

        error = await refused(client, "update_state", **request(IDLE, version))

    assert error["code"] == "rollback_failed"
    assert not sandbox.connection(IDLE).paused


async def test_a_write_of_uncertain_effect_is_verified_even_if_the_look_at_it_is_refused(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        befall(sandbox, "write", kind="apply_then_drop")
        sandbox.fault("status", method="GET", path=f"/{IDLE}$", skip=1, status=403)

        done = await call(client, "update_state", **request(IDLE, version))

    assert done["status"] == "updated"
    watch.ended_with(changed(watch))


@pytest.mark.parametrize("status", [403, 409])
async def test_a_pause_of_uncertain_effect_is_not_forgotten_if_the_look_at_it_is_refused(
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


async def test_a_200_without_data_is_no_success(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        fault = {"call_name": "snapshot", "kind": "garbage", "body": '{"code":"Success"}'}
        error, watch = await update_fails(client, sandbox, IDLE, fault)

    assert error["code"] in ("conflict", "fivetran_error", "invalid_state_document")
    assert not watch.requests("PATCH", state=True)


@pytest.mark.parametrize("status", [400, 409])
async def test_a_pause_that_fivetran_says_it_refused_is_found_to_have_taken_effect(
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


async def test_connection_details_that_lack_everything_end_the_update_before_the_pause(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        fault = {"call_name": "inspect", "kind": "garbage", "body": '{"data":{}}'}
        error, watch = await update_fails(client, sandbox, IDLE, fault)

    assert error["code"] == "fivetran_unavailable"
    assert watch.calls[0] == "GET"
    assert not watch.requests("PATCH", state=False)


@pytest.mark.parametrize("name", ["pause", "resume"])
async def test_details_that_lack_everything_after_a_change_make_no_difference(
    connect: Connect, sandbox: Sandbox, name: str
) -> None:
    async with connect() as client:
        fault = {"call_name": name, "kind": "apply_then_garbage", "body": '{"data":{}}'}
        await update_succeeds(client, sandbox, IDLE, fault)


def _kind(watch: Watch, name: str) -> list[LoggedRequest]:
    return watch.requests(CALLS[name].method, state=CALLS[name].path == "/state$")
