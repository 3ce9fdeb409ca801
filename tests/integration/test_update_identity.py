"""Which requests are one update: repeated, replayed, with keys, in the wrong order."""

import json
from typing import Any

import anyio
import pytest
from mcp import Client

from fivetran_state.sandbox import Fault, Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    IDLE,
    NO_VERSION,
    PAUSED,
    Watch,
    arrival,
    call,
    end_of,
    refused,
    state_of,
    version_of,
)
from tests.support.updating import PATCH, arguments, failing, update


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
            request = arguments(IDLE, version, {"merge_patch": {"number": number}})
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
        error = await refused(client, "update_state", **arguments(IDLE, version, how))

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
