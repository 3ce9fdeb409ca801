"""Asking the human: nothing is written that was not shown and agreed to, in both eras."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    InputRequiredResult,
)

from fivetran_state.sandbox import Sandbox
from tests.calls import (
    EMPTY,
    IDLE,
    PAUSED,
    SYNCING,
    Watch,
    api_calls,
    arrival,
    call,
    refused,
    state_of,
    version_of,
)
from tests.conftest import ERAS, Connect

PATCH = {"cursor": "2020"}
ACCEPT = ElicitResult(action="accept", content={})


@pytest.fixture(params=ERAS)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Human:
    """Is asked; `answers` are given in turn, each perhaps after something has happened."""

    def __init__(self, *answers: ElicitResult | ErrorData | Callable[[], ElicitResult]) -> None:
        self.questions: list[str] = []
        self._answers: Iterator[Any] = iter(answers)

    async def __call__(self, _: Any, params: ElicitRequestParams) -> Any:
        self.questions.append(params.message)
        answer = next(self._answers)
        return answer() if callable(answer) else answer


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
    assert f'~ /cursor: {old} -> "2020"' in question
    assert f"{before} becomes {update['version_after']}" in question
    assert "paused for a moment" in question
    assert (update["status"], update["version_before"]) == ("updated", before)
    watch.ended_with(watch.old | PATCH)


async def test_the_human_is_told_that_a_sync_runs_and_how_long_it_may_be_waited_for(
    connect: Connect, era: str
) -> None:
    human = Human(ElicitResult(action="decline"))
    async with connect(era, ask=human, FIVETRAN_STATE_SYNC_WAIT="600") as client:
        await refused(client, "update_state", connection_id=SYNCING, merge_patch=PATCH)

    assert "syncing" in human.questions[0]
    assert "10 min" in human.questions[0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ElicitResult(action="decline"), "declined"),
        (ElicitResult(action="cancel"), "dismissed"),
        (ErrorData(code=INTERNAL_ERROR, message="No window to show it in"), "did not put"),
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
        listed = await call(client, "list_workflows", connection_id=IDLE)

    assert listed["workflows"] == []
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
    assert '~ /cursor: "1999" -> "2020"' in human.questions[1]
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
        plan = await call(client, "update_state", connection_id=EMPTY, new_state=PATCH)

    assert plan["status"] == "planned"
    assert plan["version_before"] in plan["message"]
    assert set(api_calls(sandbox, EMPTY)) == {"GET", "GET state"}


async def round_of(
    client: Client, question: InputRequiredResult | None = None, **arguments: Any
) -> CallToolResult | InputRequiredResult:
    """One round of an update: without `question` the first, otherwise with the human's yes to it."""
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


async def test_a_restart_between_question_and_answer_loses_nothing(
    spawn: Connect, sandbox: Sandbox
) -> None:
    async with spawn(ask=Human()) as client:
        question = await the_question(client)
    async with spawn(ask=Human()) as client:
        result = await round_of(client, question)

    assert isinstance(result, CallToolResult)
    assert result.structured_content is not None
    assert result.structured_content["status"] == "updated"
    assert state_of(sandbox, IDLE)["cursor"] == "2020"


async def test_a_client_that_goes_while_the_human_thinks_leaves_nothing_written(
    spawn: Connect, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, IDLE)

    def leave() -> ElicitResult:
        gone.cancel()
        return ACCEPT

    with anyio.CancelScope() as gone:
        async with spawn("legacy", ask=Human(leave)) as client:
            await client.call_tool("update_state", {"connection_id": IDLE, "merge_patch": PATCH})
    async with spawn() as client:
        listed = await call(client, "list_workflows", connection_id=IDLE)

    assert gone.cancelled_caught
    assert listed["workflows"] == []
    watch.ended_with(watch.old)
