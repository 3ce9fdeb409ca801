"""Asking the human: nothing is written unless it was shown and agreed to, in both eras."""

import json
import re
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolResult,
    ElicitResult,
    ErrorData,
    InputRequiredResult,
)

from fivetran_state.sandbox import Sandbox
from tests.conftest import ERAS, Connect
from tests.support.calls import (
    IDLE,
    PAUSED,
    SYNCING,
    Watch,
    api_calls,
    arrival,
    call,
    refused,
    state_of,
    updates_in,
    version_of,
)
from tests.support.human import ACCEPT, Human

PATCH = {"cursor": "2020"}


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_what_the_human_agrees_to_is_written(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    human = Human(ACCEPT)
    name = sandbox.connection(IDLE).schema
    async with connect(era, ask=human) as client:
        before = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        update = await call(client, "update_state", connection_id=IDLE, merge_patch=PATCH)

    (question,) = human.questions
    old = json.dumps(watch.old["cursor"])
    assert IDLE in question
    assert name in question
    assert f'(1 of 1) /cursor: from {old} to "2020"' in question
    assert f"{before} becomes {update['version_after']}" in question
    assert "paused for a moment" in question
    assert (update["status"], update["version_before"]) == ("updated", before)
    watch.ended_with(watch.old | PATCH)


async def test_the_human_is_told_that_a_running_sync_is_stopped(connect: Connect, era: str) -> None:
    human = Human(ElicitResult(action="decline"))
    async with connect(era, ask=human, FIVETRAN_STATE_SYNC_WAIT="600") as client:
        await refused(client, "update_state", connection_id=SYNCING, merge_patch=PATCH)

    assert "A sync is running: Fivetran is asked to stop it" in human.questions[0]
    assert "10 min" in human.questions[0]
    assert "conflict" in human.questions[0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ElicitResult(action="decline"), "declined"),
        (ElicitResult(action="cancel"), "dismissed"),
        (ErrorData(code=INTERNAL_ERROR, message="No window to show it in"), "did not ask"),
    ],
    ids=["decline", "cancel", "error"],
)
async def test_without_the_humans_yes_nothing_is_written(
    connect: Connect,
    sandbox: Sandbox,
    era: str,
    answer: ElicitResult | ErrorData,
    said: str,
) -> None:
    watch = Watch(sandbox, IDLE)
    async with connect(era, ask=Human(answer)) as client:
        if isinstance(answer, ErrorData) and era != "legacy":
            # Here the client itself ends the call, without telling the server.
            with pytest.raises(MCPError):
                await client.call_tool(
                    "update_state", {"connection_id": IDLE, "merge_patch": PATCH}
                )
        else:
            error = await refused(client, "update_state", connection_id=IDLE, merge_patch=PATCH)
            assert error["code"] == "not_confirmed"
            assert said in error["message"]
        listed = await call(client, "state_history", connection_id=IDLE)

    assert updates_in(listed) == []
    assert set(watch.calls) == {"GET", "GET state"}
    watch.ended_with(watch.old)


async def test_a_state_that_moved_meanwhile_is_asked_about_again(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    def somebody_writes() -> ElicitResult:
        sandbox.set_state(IDLE, '{"cursor": "1999", "other": 1}')
        return ACCEPT

    human = Human(somebody_writes, ACCEPT)
    async with connect(era, ask=human) as client:
        update = await call(client, "update_state", connection_id=IDLE, merge_patch=PATCH)

    assert len(human.questions) == 2
    assert '/cursor: from "1999" to "2020"' in human.questions[1]
    assert update["status"] == "updated"
    assert state_of(sandbox, IDLE) == {"cursor": "2020", "other": 1}
    assert api_calls(sandbox, IDLE).count("PATCH state") == 1


async def test_a_state_that_moved_is_a_conflict_for_whoever_named_a_version(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    def somebody_writes() -> ElicitResult:
        sandbox.set_state(IDLE, '{"cursor": "1999"}')
        return ACCEPT

    human = Human(somebody_writes)
    async with connect(era, ask=human) as client:
        request = {
            "connection_id": IDLE,
            "merge_patch": PATCH,
            "expected_version": await version_of(client, IDLE),
        }
        after_the_answer = await refused(client, "update_state", **request)
        at_once = await refused(client, "update_state", **request)

    assert after_the_answer["code"] == at_once["code"] == "conflict"
    assert len(human.questions) == 1
    assert "PATCH state" not in api_calls(sandbox, IDLE)


async def test_a_copy_whose_source_moved_meanwhile_is_asked_about_again(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    def somebody_writes() -> ElicitResult:
        sandbox.set_state(PAUSED, '{"cursor": "moved"}')
        return ACCEPT

    human = Human(somebody_writes, ACCEPT)
    async with connect(era, ask=human) as client:
        await call(client, "update_state", connection_id=IDLE, copy_from=PAUSED)

    assert [PAUSED in question for question in human.questions] == [True, True]
    assert '"moved"' in human.questions[1]
    assert state_of(sandbox, IDLE) == {"cursor": "moved"}


async def test_a_request_that_is_being_carried_out_is_not_asked_about_again(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    human = Human(ACCEPT)
    request = {"connection_id": IDLE, "merge_patch": PATCH, "wait_seconds": 0}
    async with connect(era, ask=human) as client:
        fault = sandbox.fault("hang", method="PATCH", path="/state$")
        first = await call(client, "update_state", **request)
        await arrival(sandbox, lambda logged: logged.fault == "hang")
        again = await call(client, "update_state", **request)
        fault.release()
        ended = await call(
            client, "workflow_status", workflow_id=first["workflow_id"], wait_seconds=50
        )

    assert again["workflow_id"] == first["workflow_id"]
    assert ended["status"] == "updated"
    assert len(human.questions) == 1


async def test_nobody_is_asked_about_a_dry_run_or_about_no_change(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    human = Human()
    async with connect(era, ask=human) as client:
        dry = await call(
            client, "update_state", connection_id=IDLE, merge_patch=PATCH, dry_run=True
        )
        same = await call(
            client, "update_state", connection_id=IDLE, merge_patch=state_of(sandbox, IDLE)
        )

    assert human.questions == []
    assert (dry["status"], dry["changes_total"]) == ("planned", 1)
    assert (same["status"], same["changes_total"]) == ("planned", 0)
    assert set(api_calls(sandbox, IDLE)) == {"GET", "GET state"}


async def test_a_headless_server_asks_nobody(connect: Connect, sandbox: Sandbox, era: str) -> None:
    human = Human()
    async with connect(era, ask=human, FIVETRAN_STATE_CONFIRM="never") as client:
        plan = await call(client, "update_state", connection_id=IDLE, merge_patch=PATCH)
        update = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch=PATCH,
            expected_version=plan["version_before"],
        )

    assert (plan["status"], update["status"]) == ("planned", "updated")
    assert human.questions == []


async def test_a_client_that_cannot_ask_gets_the_plan(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    async with connect(era) as client:
        plan = await call(client, "update_state", connection_id=IDLE, new_state=PATCH)

    assert plan["status"] == "planned"
    assert plan["version_before"] in plan["message"]
    assert set(api_calls(sandbox, IDLE)) == {"GET", "GET state"}


# The content of the question


async def question_about(connect: Connect, era: str, **arguments: Any) -> str:
    human = Human(ElicitResult(action="decline"))
    async with connect(era, ask=human) as client:
        error = await refused(client, "update_state", **arguments)
    assert error["code"] == "not_confirmed"
    (question,) = human.questions
    return question


async def test_all_of_thirty_changes_are_shown(
    connect: Connect, sandbox: Sandbox, era: str
) -> None:
    old = {f"table_{number}": {"cursor": number} for number in range(25)}
    sandbox.set_state(IDLE, json.dumps(old))
    new = {f"table_{number}": {"cursor": number + 100} for number in range(20)}
    gone = dict.fromkeys((f"table_{number}" for number in range(20, 25)), None)
    added = {f"new_{number}": number for number in range(5)}
    change: dict[str, Any] = new | gone | added
    question = await question_about(connect, era, connection_id=IDLE, merge_patch=change)

    lines = re.findall(r"^\((\d+) of 30\) (.*?) *$", question, re.MULTILINE)
    assert [int(number) for number, _ in lines] == list(range(1, 31))
    assert {text for _, text in lines} == {
        *(f"/table_{number}/cursor: from {number} to {number + 100}" for number in range(20)),
        *(f'/table_{number}: removed, was {{"cursor":{number}}}' for number in range(20, 25)),
        *(f"/new_{number}: added, {number}" for number in range(5)),
    }
    assert all("added" in text for _, text in lines[25:])


@pytest.mark.parametrize(
    "change", [{f"table_{number}": 1 for number in range(150)}, {"cursor": "x" * 10_000}], ids=len
)
async def test_what_cannot_be_shown_is_not_asked(
    connect: Connect, sandbox: Sandbox, era: str, change: dict[str, Any]
) -> None:
    human = Human()
    watch = Watch(sandbox, IDLE)
    async with connect(era, ask=human) as client:
        error = await refused(client, "update_state", connection_id=IDLE, merge_patch=change)
        dry = await call(
            client, "update_state", connection_id=IDLE, merge_patch=change, dry_run=True
        )

    assert error["code"] == "too_large_to_confirm"
    assert "smaller steps" in error["hint"]
    assert human.questions == []
    assert dry["changes_total"] == len(change)
    assert set(watch.calls) == {"GET", "GET state"}
    watch.ended_with(watch.old)


@pytest.mark.parametrize(
    ("connection_id", "group"),
    [
        (SYNCING, '"Production warehouse" (warehouse)'),
        ("twin_harvest", '"Staging warehouse" (projected_sickle)'),
    ],
)
async def test_question_and_plan_name_the_group(
    connect: Connect, era: str, connection_id: str, group: str
) -> None:
    change = {"connection_id": connection_id, "merge_patch": {"page": 1}}
    question = await question_about(connect, era, **change)
    async with connect(era) as client:
        plan = await call(client, "update_state", **change)

    described = f"{connection_id}, the connector_sdk connection orders_api in the group {group}"
    assert question.startswith(f"Change the state of {described}?")
    assert described in plan["message"]


CONSEQUENCES: dict[str, tuple[dict[str, Any], str]] = {
    "then_sync": ({"connection_id": IDLE, "merge_patch": PATCH, "then_sync": True}, "a sync is st"),
    "empty": ({"connection_id": IDLE, "new_state": {}}, "starts over"),
    "emptied": ({"connection_id": IDLE, "merge_patch": {"cursor": None}}, "starts over"),
    "broken": ({"connection_id": "severed_cable", "merge_patch": PATCH}, "set-up is broken"),
    "manual": ({"connection_id": "idle_turbine", "merge_patch": PATCH}, "schedule is manual"),
    "re-sync": (
        {"connection_id": "patient_archive", "merge_patch": PATCH, "allow_resync": True},
        "historical re-sync",
    ),
    "rounded": (
        {
            "connection_id": "exact_ledger",
            "merge_patch": {"largest_exact_double_and_one": 9007199254740992, "page": 1},
        },
        "give the change as JSON text",
    ),
    "paused": ({"connection_id": PAUSED, "merge_patch": PATCH}, "is paused and stays paused"),
}


@pytest.mark.parametrize(("arguments", "said"), CONSEQUENCES.values(), ids=CONSEQUENCES)
async def test_the_question_says_what_follows(
    connect: Connect, sandbox: Sandbox, arguments: dict[str, Any], said: str
) -> None:
    question = await question_about(connect, "2026-07-28", **arguments)
    async with connect() as client:
        plan = await call(client, "update_state", **arguments)

    assert said in question
    assert said in plan["message"]
    for path in plan.get("kept_numbers", []):
        assert path in question
        assert path in plan["message"]
    assert not [each for each in sandbox.log if each.method != "GET"]


# Rounds


async def round_of(
    client: Client, question: InputRequiredResult | None = None, **arguments: Any
) -> CallToolResult | InputRequiredResult:
    """One round of an update: the first without `question`, otherwise with the human's yes to it."""
    return await client.session.call_tool(
        "update_state",
        {"connection_id": IDLE, "merge_patch": PATCH} | arguments,
        input_responses=None if question is None else dict.fromkeys(asked(question), ACCEPT),
        request_state=None if question is None else question.request_state,
        allow_input_required=True,
    )


def asked(question: InputRequiredResult) -> list[str]:
    assert question.input_requests is not None
    return list(question.input_requests)


async def the_question(client: Client) -> InputRequiredResult:
    question = await round_of(client)
    assert isinstance(question, InputRequiredResult)
    return question


async def test_a_replayed_confirmation_attaches_to_the_same_update(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(ask=Human()) as client:
        question = await the_question(client)
        results = [await round_of(client, question) for _ in range(3)]

    assert [result.structured_content["workflow_id"] for result in results] == [f"{IDLE}:1"] * 3  # type: ignore[union-attr]
    assert api_calls(sandbox, IDLE).count("PATCH state") == 1


async def test_a_confirmation_replayed_after_an_undo_is_asked_about_again(
    connect: Connect, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    async with connect(ask=Human(ACCEPT)) as client:
        question = await the_question(client)
        await round_of(client, question)
        await call(client, "update_state", connection_id=IDLE, restore_from=f"{IDLE}:1")
        replayed = await round_of(client, question)

    assert isinstance(replayed, InputRequiredResult)
    assert state_of(sandbox, IDLE) == before


async def test_a_confirmation_holds_for_the_arguments_that_it_was_asked_for(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(ask=Human()) as client:
        question = await the_question(client)
        for changed in ({"merge_patch": {"cursor": "1900"}}, {"connection_id": PAUSED}):
            with pytest.raises(MCPError, match="requestState"):
                await round_of(client, question, **changed)
        forged = question.model_copy(update={"request_state": "v1.forged"})
        with pytest.raises(MCPError, match="requestState"):
            await round_of(client, forged)
        unsealed = await client.session.call_tool(
            "update_state",
            {"connection_id": IDLE, "merge_patch": PATCH},
            input_responses=dict.fromkeys(asked(question), ACCEPT),
            allow_input_required=True,
        )

    assert isinstance(unsealed, InputRequiredResult)
    assert "PATCH state" not in api_calls(sandbox, IDLE) + api_calls(sandbox, PAUSED)


@pytest.mark.slow
async def test_a_restart_between_question_and_answer_loses_nothing(
    connect: Connect, spawn: Connect, sandbox: Sandbox
) -> None:
    async with connect(ask=Human()) as client:
        question = await the_question(client)
    async with spawn(ask=Human()) as client:
        result = await round_of(client, question)

    assert isinstance(result, CallToolResult)
    assert result.structured_content is not None
    assert result.structured_content["status"] == "updated"
    assert state_of(sandbox, IDLE)["cursor"] == "2020"


@pytest.mark.slow
async def test_a_client_that_goes_while_the_human_thinks_leaves_nothing_written(
    connect: Connect, spawn: Connect, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, IDLE)

    def leave() -> ElicitResult:
        gone.cancel()
        return ACCEPT

    with anyio.CancelScope() as gone:
        async with spawn("legacy", ask=Human(leave)) as client:
            await client.call_tool("update_state", {"connection_id": IDLE, "merge_patch": PATCH})
    async with connect() as client:
        listed = await call(client, "state_history", connection_id=IDLE)

    assert gone.cancelled_caught
    assert updates_in(listed) == []
    watch.ended_with(watch.old)
