"""update_states: connections are planned, confirmed, changed and undone together, in both eras."""

import asyncio
import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from mcp import Client
from mcp_types import CallToolResult, ElicitResult, InputRequiredResult

from fivetran_state import state
from fivetran_state.changes import GroupOptions, Inline, for_each
from fivetran_state.errors import RateLimited
from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.service import group_planner
from tests.conftest import ERAS, Connect
from tests.support.calls import (
    EMPTY,
    EXACT,
    IDLE,
    PAUSED,
    SYNCING,
    arrival,
    call,
    is_pause,
    is_resume,
    refused,
    state_of,
    status_once,
    sync_runs_on,
    updates_in,
)
from tests.support.grouped import group_of
from tests.support.human import ACCEPT, Human
from tests.support.tasks import FollowsTasks, ask, ended_task, task_of
from tests.support.watching import only, service_in

PATCH = {"cursor": "2020"}
CURSOR = Inline(state.Change("merge_patch", PATCH))
BOTH = [IDLE, PAUSED]
CHANGE: dict[str, Any] = {"connection_ids": BOTH, "merge_patch": PATCH}


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def writes(sandbox: Sandbox) -> list[str]:
    return [each.path for each in sandbox.log if each.method != "GET"]


def states(sandbox: Sandbox, ids: Sequence[str] = BOTH) -> list[Any]:
    return [state_of(sandbox, each) for each in ids]


# The account's limit


@pytest.mark.slow
async def test_a_group_waits_at_the_limit_and_no_call_is_refused(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 12)
    sandbox.api.requests_per_hour, sandbox.api.limit_window = 100, 3.0
    change = for_each(ids, CURSOR)
    async with service_in(environment, monkeypatch) as service:
        begin = len(sandbox.log)
        group = await group_of(service, change, GroupOptions("independent"), wait_seconds=60)

    assert group.counts == {"updated": 12}
    calls = sandbox.log[begin:]
    assert 429 not in {each.status for each in calls}
    own = [each for each in calls if each.connection_id]
    assert len(own) == 12 * (2 + 7)
    assert len(calls) - len(own) < len(own) / 4


async def test_a_group_that_waits_at_the_limit_can_be_cancelled(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 12)
    sandbox.api.requests_per_hour = 60
    async with service_in(environment, monkeypatch) as service:
        group = await group_of(service, for_each(ids, CURSOR), GroupOptions("independent"))
        await arrival(sandbox, is_resume)

        ended = await service.groups.cancel_updates(group.workflow_id, wait_seconds=60)

    updated = ended.counts["updated"]
    assert ended.status == "partly_updated"
    assert ended.counts == {"updated": updated, "cancelled": 12 - updated}
    # Those of 36 calls that leave a tenth of 60, if each takes seven.
    assert len({each.connection_id for each in sandbox.log if each.method != "GET"}) <= 4


@pytest.mark.slow
async def test_a_plan_waits_at_the_limit_too_and_is_the_same_afterwards(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 12)
    sandbox.api.requests_per_hour, sandbox.api.limit_window = 20, 0.5
    few = {"FIVETRAN_STATE_CONCURRENCY": "2"}
    change = for_each(ids, CURSOR)
    async with service_in(environment | few, monkeypatch) as service:
        plan = await service.groups.plan_updates(change, GroupOptions("independent"))
        group = await group_of(
            service,
            change,
            GroupOptions("independent", expected_version=plan.version),
            wait_seconds=60,
        )

    assert (plan.changed, plan.failed) == (12, 0)
    assert group.counts == {"updated": 12}
    assert 429 not in {each.status for each in sandbox.log}


@pytest.mark.parametrize("left", [0, 1], ids=["refused", "the last tenth"])
async def test_a_plan_that_would_wait_too_long_says_so_and_is_no_conflict(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    ids = only(sandbox, 12)
    monkeypatch.setattr(group_planner, "MAX_WAIT", 0.5)
    change = for_each(ids, CURSOR)
    async with service_in(environment, monkeypatch) as service:
        plan = await service.groups.plan_updates(change, GroupOptions("independent"))
        sandbox.api.requests_per_hour = 20
        while sandbox.world.admit(20)[0] > left:
            pass
        with pytest.raises(RateLimited) as caught:
            await service.groups.update_states(
                change, GroupOptions("independent", expected_version=plan.version)
            )

    assert caught.value.details["retry_after"] > 0
    assert writes(sandbox) == []


# Beside other updates


def is_pause_of(connection_id: str, call: LoggedRequest) -> bool:
    return call.connection_id == connection_id and is_pause(call)


@pytest.mark.slow
async def test_groups_make_few_steps_at_a_time_while_a_single_update_is_at_work(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    single, *ids = only(sandbox, 9)
    sandbox.latency = 0.05
    held = sandbox.fault("hang", method="PATCH", path=f"{single}/state$")
    async with service_in(environment, monkeypatch) as service:
        alone = asyncio.create_task(
            service.changes.update_state(single, CURSOR, expected_version=None, wait_seconds=60)
        )
        await arrival(sandbox, lambda call: call.fault == "hang")
        begin = len(sandbox.log)
        change = for_each(ids, CURSOR)
        group = await group_of(service, change, GroupOptions("independent"), wait_seconds=60)
        calls = [call for call in sandbox.log[begin:] if call.connection_id]
        held.release()
        made = await alone

    assert (group.counts, made.status) == ({"updated": 8}, "updated")
    # A step makes two calls at most, and each takes the latency.
    two_steps = 2 * 2
    arrivals = sorted(call.time for call in calls)
    assert len(arrivals) == 8 * (2 + 7)
    later = arrivals[two_steps:]
    assert min(b - a for a, b in zip(arrivals, later, strict=False)) > sandbox.latency * 0.9


@pytest.mark.slow
async def test_a_single_update_that_waits_for_a_sync_lets_groups_work(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 8)
    sandbox.add_connection(SYNCING, state='{"cursor":"2026"}')
    sandbox.start_sync(SYNCING)
    sync_runs_on(sandbox)
    async with service_in(environment, monkeypatch) as service:
        asked = await service.changes.update_state(
            SYNCING, CURSOR, expected_version=None, wait_seconds=0
        )
        await arrival(sandbox, lambda call: call.connection_id == SYNCING and is_pause(call))
        held = sandbox.fault("hang", method="PATCH", path="connection_", times=8)
        change = for_each(ids, CURSOR)
        group = asyncio.create_task(
            group_of(service, change, GroupOptions("independent"), wait_seconds=60)
        )
        for each in ids:
            await arrival(sandbox, partial(is_pause_of, each))
        held.release()
        assert (await group).counts == {"updated": 8}
        sandbox.finish_sync(SYNCING)
        ended = await service.workflows.workflow_status(asked.workflow_id or "", wait_seconds=60)

    assert ended.status == "updated"


# Planning and changing


async def test_a_client_that_cannot_ask_gets_the_plan_applies_it_and_undoes_the_group(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    before = states(sandbox)
    async with connect(era) as client:
        plan = await call(client, "update_states", **CHANGE)
        untouched = writes(sandbox)
        seen = {"expected_version": plan["version"], "wait_seconds": 50}
        made = await call(client, "update_states", **CHANGE, **seen)
        changed = states(sandbox)
        history = await call(client, "state_history", connection_id=IDLE)
        undo = {"restore_from": made["workflow_id"]}
        plan_of_undo = await call(client, "update_states", **undo)
        seen = {"expected_version": plan_of_undo["version"], "wait_seconds": 50}
        undone = await call(client, "update_states", **undo, **seen)

    assert (plan["status"], plan["changed"], untouched) == ("planned", 2, [])
    assert plan["version"] in plan["message"]
    assert (made["status"], made["counts"]) == ("updated", {"updated": 2})
    assert [each["cursor"] for each in changed] == ["2020", "2020"]
    assert updates_in(history)[0]["part_of"] == made["workflow_id"]
    assert (undone["status"], states(sandbox)) == ("updated", before)


async def test_a_state_that_moved_is_a_conflict_and_nothing_is_touched(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        plan = await call(client, "update_states", **CHANGE)
        sandbox.set_state(IDLE, '{"cursor":"moved"}')
        seen = {"expected_version": plan["version"]}
        conflict = await refused(client, "update_states", **CHANGE, **seen)

    assert conflict["code"] == "conflict"
    assert writes(sandbox) == []


async def test_every_answer_about_a_group_is_as_its_schema_says(
    connect: Connect, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    ids = [IDLE, SYNCING, EMPTY]
    async with connect() as client:
        schemas = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}

        async def checked(tool: str, **arguments: Any) -> dict[str, Any]:
            found = await call(client, tool, **arguments)
            jsonschema.validate(found, schemas[tool] or {"not": {}})
            unknown = found.keys() - (schemas[tool] or {})["properties"].keys()
            assert not unknown
            return found

        change = {"connection_ids": ids, "merge_patch": PATCH, "independent": True}
        plan = await checked("update_states", **change)
        page = await checked("update_states", **change, cursor=IDLE, dry_run=True)
        seen = {"expected_version": plan["version"], "wait_seconds": 0}
        started = await checked("update_states", **change, **seen)
        await arrival(sandbox, lambda each: each.connection_id == SYNCING and is_pause(each))
        group = {"workflow_id": started["workflow_id"]}
        await status_once(client, **group, wanted=lambda each: "updated" in each["counts"])
        running = await checked("workflow_status", **group)
        await checked("cancel_update", **group, wait_seconds=0)
        ended = await checked("workflow_status", **group, wait_seconds=50)

    assert [each["status"] for each in (plan, page, started, running)] == [
        *("planned", "planned", "running", "running")
    ]
    assert page["total"] == 2
    assert ended["counts"]["cancelled"] == 1
    assert ended["counts"]["no_state_yet"] == 1
    assert state_of(sandbox, SYNCING) != PATCH


async def test_empty_arguments_count_as_left_out(connect: Connect, sandbox: Sandbox) -> None:
    """Strict schemas make a model fill in every argument."""
    empty = dict.fromkeys(
        ("name", "group", "service", "new_state", "restore_from", "copy_from", "only", "cursor"), ""
    )
    async with connect() as client:
        plan = await call(
            client, "update_states", **CHANGE, **empty, changes=[], json_patch=None, reason=""
        )
        each = {"changes": json.dumps([{"connection_id": EXACT, "merge_patch": {"a": 1.10}}])}
        exact = await call(client, "update_states", **empty, **each, connection_ids=[])

    assert plan["changed"] == 2
    assert exact["connections"][0]["changes"] == [{"op": "add", "path": "/a", "after": "1.1"}]
    assert writes(sandbox) == []


async def test_a_filter_chooses_and_two_choices_are_refused(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        plan = await call(client, "update_states", service="aws_lambda", merge_patch=PATCH)
        both = await refused(client, "update_states", **CHANGE, name="*")
        group = f"together:{'0' * 32}"
        undo = await refused(client, "update_states", restore_from=group, merge_patch=PATCH)

    assert IDLE in {each["connection_id"] for each in plan["connections"]}
    assert "exactly one way" in both["message"]
    assert "merge_patch cannot go with" in undo["message"]


async def test_the_client_is_told_how_many_are_done(connect: Connect, sandbox: Sandbox) -> None:
    told: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))

    async with connect() as client:
        plan = await call(client, "update_states", **CHANGE)
        await client.call_tool(
            "update_states",
            CHANGE | {"expected_version": plan["version"], "wait_seconds": 50},
            progress_callback=on_progress,
        )

    assert told[-1] == (2, 2)
    assert told == sorted(told, key=lambda each: each[0])


@pytest.mark.slow
async def test_of_many_updates_a_model_reads_the_failures_first_and_few_of_the_others(
    connect: Connect, sandbox: Sandbox
) -> None:
    ids = [f"ferry_{at:02}" for at in range(30)]
    for connection_id in ids:
        sandbox.add_connection(connection_id, state="{}")
    sandbox.fault("status", method="PATCH", path=f"/{ids[29]}/state$", status=403, times=99)
    change = {"connection_ids": ids, "merge_patch": PATCH, "independent": True}
    async with connect() as client:
        plan = await call(client, "update_states", **change)
        seen = {"expected_version": plan["version"], "wait_seconds": 50}
        made = await call(client, "update_states", **change, **seen)

    assert made["counts"] == {"forbidden": 1, "updated": 29}
    assert made["updates"][0]["connection_id"] == ids[29]
    assert len(made["updates"]) == 20


# Asking


async def test_the_human_sees_every_change_of_every_connection_and_agrees_once(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    sandbox.set_state(EXACT, '{"cursor":"2019","table":{"page":1}}')
    each = [
        {"connection_id": IDLE, "new_state": PATCH},
        {"connection_id": EXACT, "merge_patch": {"cursor": "2020", "table": None}},
        {"connection_id": EMPTY, "merge_patch": PATCH},
    ]
    human = Human(ACCEPT)
    async with connect(era, ask=human) as client:
        made = await call(client, "update_states", changes=each, independent=True, wait_seconds=50)

    (question,) = human.questions
    assert question.startswith("Change the states of 2 connections, each by itself?")
    assert f"Connection {IDLE}, the aws_lambda connection payments_lambda in the group" in question
    lines = re.findall(r"^\((\d) of 3\) (.*?) *$", question, re.MULTILINE)
    assert [text for _, text in lines[1:]] == [
        f'{EXACT} /cursor: from "2019" to "2020"',
        f'{EXACT} /table: removed, was {{"page":1}}',
    ]
    assert f"At {IDLE}, {EXACT}: The connection is paused for a moment and resumed." in question
    assert f"Left out, because they cannot be changed: {EMPTY} no_state_yet." in question
    assert made["status"] == "partly_updated"
    assert states(sandbox, [IDLE, EXACT]) == [PATCH, PATCH]


async def test_without_the_humans_yes_nothing_is_written(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    human = Human(ElicitResult(action="decline"))
    async with connect(era, ask=human) as client:
        error = await refused(client, "update_states", **CHANGE)

    assert error["code"] == "not_confirmed"
    assert len(human.questions) == 1
    assert writes(sandbox) == []


async def test_a_state_that_moved_meanwhile_is_asked_about_again(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    def somebody_writes() -> ElicitResult:
        sandbox.set_state(PAUSED, '{"cursor":"1999"}')
        return ACCEPT

    human = Human(somebody_writes, ACCEPT)
    async with connect(era, ask=human) as client:
        made = await call(client, "update_states", **CHANGE, wait_seconds=50)

    assert len(human.questions) == 2
    assert f'{PAUSED} /cursor: from "1999" to "2020"' in human.questions[1]
    assert made["counts"] == {"updated": 2}


async def test_what_cannot_be_shown_is_not_asked_and_not_made_whatever_version_is_given(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    change = {"connection_ids": BOTH, "merge_patch": {f"table_{at}": at for at in range(60)}}
    human = Human()
    async with connect(era, ask=human) as client:
        error = await refused(client, "update_states", **change)
        plan = await call(client, "update_states", **change, dry_run=True)
        pinned = await refused(client, "update_states", **change, expected_version=plan["version"])

    assert error["code"] == pinned["code"] == "too_large_to_confirm"
    assert "update-many" in error["message"]
    assert human.questions == []
    assert writes(sandbox) == []


async def test_what_can_be_shown_is_asked_even_with_a_version(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    human = Human(ACCEPT)
    async with connect(era, ask=human) as client:
        plan = await call(client, "update_states", **CHANGE, dry_run=True)
        seen = {"expected_version": plan["version"], "wait_seconds": 50}
        made = await call(client, "update_states", **CHANGE, **seen)

    assert (made["status"], len(human.questions)) == ("updated", 1)


async def test_nobody_is_asked_about_no_change_or_about_a_group_that_would_be_refused(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    human = Human()
    async with connect(era, ask=human) as client:
        same = await call(
            client, "update_states", connection_ids=[IDLE], merge_patch=state_of(sandbox, IDLE)
        )
        error = await refused(
            client, "update_states", connection_ids=[IDLE, EMPTY], merge_patch=PATCH
        )

    assert (same["status"], same["changed"]) == ("planned", 0)
    assert error["code"] == "no_state_yet"
    assert human.questions == []
    assert writes(sandbox) == []


async def round_of(
    client: Client, question: InputRequiredResult | None = None
) -> CallToolResult | InputRequiredResult:
    return await client.session.call_tool(
        "update_states",
        CHANGE | {"wait_seconds": 50},
        input_responses=None
        if question is None
        else dict.fromkeys(question.input_requests or {}, ACCEPT),
        request_state=None if question is None else question.request_state,
        allow_input_required=True,
    )


async def test_a_replayed_confirmation_is_the_same_group_and_after_an_undo_it_is_asked_again(
    connect: Connect, sandbox: Sandbox
) -> None:
    before = states(sandbox)
    async with connect(ask=Human(ACCEPT)) as client:
        question = await round_of(client)
        assert isinstance(question, InputRequiredResult)
        results = [await round_of(client, question) for _ in range(2)]
        made = [result.structured_content for result in results]  # type: ignore[union-attr]
        assert made[0] is not None
        undo = {"restore_from": made[0]["workflow_id"], "wait_seconds": 50}
        await call(client, "update_states", **undo)
        replayed = await round_of(client, question)

    assert made[0] == made[1]
    assert isinstance(replayed, InputRequiredResult)
    assert states(sandbox) == before


# Tasks


async def test_a_group_is_a_task_that_ends_with_the_result_of_the_tool(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(extensions=[FollowsTasks()]) as client:
        plan = await call(client, "update_states", **CHANGE)
        request: dict[str, Any] = CHANGE | {"expected_version": plan["version"]}
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        created = await task_of(client, tool="update_states", **request)
        await arrival(sandbox, lambda each: each.fault == "hang")
        working = await ask(client, "tasks/get", created["taskId"])
        hold.release()
        completed = await ended_task(client, created["taskId"])
        result = await client.call_tool("update_states", request)

    assert created["taskId"].startswith("together:")
    assert [each["status"] for each in (created, working)] == ["working", "working"]
    assert completed["status"] == "completed"
    assert completed["result"]["structuredContent"] == result.structured_content
    assert completed["ttlMs"] is not None


async def test_a_task_of_a_group_is_cancelled(connect: Connect, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    ids = [IDLE, SYNCING]
    before = states(sandbox, ids)
    async with connect(extensions=[FollowsTasks()]) as client:
        change: dict[str, Any] = {"connection_ids": ids, "merge_patch": PATCH}
        plan = await call(client, "update_states", **change)
        created = await task_of(
            client, tool="update_states", **change, expected_version=plan["version"]
        )
        await arrival(sandbox, lambda each: each.connection_id == SYNCING and is_pause(each))
        await ask(client, "tasks/cancel", created["taskId"])
        ended = await ended_task(client, created["taskId"])

    assert ended["status"] == "cancelled"
    assert states(sandbox, ids) == before
    assert not any(sandbox.connection(each).paused for each in ids)
