"""Proposals: a change that one person asks for and another one agrees to."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from mcp_types import ElicitRequestParams, ElicitRequestURLParams, ElicitResult
from sqlalchemy import Engine, event

from fivetran_state.sandbox import Sandbox
from fivetran_state.tokens import TokenFile
from tests.conftest import ERAS, Serve
from tests.support.calls import (
    EMPTY,
    IDLE,
    PAUSED,
    STATELESS,
    SYNCING,
    Watch,
    api_calls,
    arrival,
    call,
    until,
)
from tests.support.http_server import HttpServer, counted_statements
from tests.support.people import Person, person
from tests.support.rest import ANY
from tests.support.tasks import FollowsTasks, ask, ended_task, task_of

PATCH = {"cursor": "2020"}
NO_PROPOSAL = f"proposal:{'0' * 32}"


@dataclass(frozen=True)
class Team:
    server: HttpServer
    asker: Person
    approver: Person


@pytest.fixture
async def team(http: Serve) -> AsyncIterator[Team]:
    """A server, an assistant that may change states, and a person who may approve."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(http())
        asker = await stack.enter_async_context(person(server, "write"))
        approver = await stack.enter_async_context(person(server, "approve"))
        yield Team(server, asker, approver)


def was_left_alone(sandbox: Sandbox, connection_id: str = IDLE) -> bool:
    return "PATCH" not in api_calls(sandbox, connection_id)


async def test_an_approved_change_is_made_once_and_says_who_asked_and_who_agreed(
    team: Team, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, IDLE)
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH, reason="A bad deploy.")
    waiting = await team.approver.get("/proposals")
    seen = await team.approver.get(f"/proposals/{proposal}")
    assert was_left_alone(sandbox)
    made = await team.approver.approve(proposal)
    again = await team.approver.approve(proposal, version=made["version_before"])
    followed = await team.asker.get(f"/workflows/{proposal}")

    assert [each["workflow_id"] for each in waiting["proposals"]] == [proposal]
    assert (seen["asked_by"], seen["reason"]) == (team.asker.name, "A bad deploy.")
    assert seen["plan"]["changes"][0]["path"] == "/cursor"
    assert f"approve version '{seen['plan']['version_before']}'" in seen["plan"]["message"]
    assert (made["status"], made["workflow_id"]) == ("updated", f"{IDLE}:1")
    assert (made["asked_by"], made["agreed_by"]) == (team.asker.name, team.approver.name)
    assert again["workflow_id"] == followed["workflow_id"] == f"{IDLE}:1"
    assert (await team.approver.get("/proposals"))["proposals"] == []
    watch.ended_with(watch.old | PATCH)


async def test_nobody_approves_what_they_have_asked_for(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server, AsyncExitStack() as stack:
        one = await stack.enter_async_context(person(server, "approve", "alice"))
        other = await stack.enter_async_context(person(server, "approve", "alice"))
        third = await stack.enter_async_context(person(server, "approve"))
        proposal = await one.propose(IDLE, merge_patch=PATCH)
        own = await one.approve(proposal, status=403)
        own_by_another_token = await other.approve(proposal, status=403)
        assert was_left_alone(sandbox)
        made = await third.approve(proposal)

    assert own["code"] == own_by_another_token["code"] == "not_allowed"
    assert "another person" in own["detail"]
    assert made["status"] == "updated"


async def test_a_new_token_of_the_same_name_is_the_same_person(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server, AsyncExitStack() as stack:
        old = await stack.enter_async_context(person(server, "write", "alice"))
        proposal = await old.propose(IDLE, merge_patch=PATCH)
        new = await stack.enter_async_context(person(server, "approve", "alice"))
        TokenFile(server.settings).revoke(old.token.id)
        own = await new.approve(proposal, status=403)
        withdrawn = await new.post(f"/proposals/{proposal}/withdraw")

    assert own["code"] == "not_allowed"
    assert withdrawn["status"] == "withdrawn"
    assert was_left_alone(sandbox)


async def test_only_the_scope_approve_decides(team: Team, sandbox: Sandbox) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    async with person(team.server, "write") as another:
        for what, body in (("approve", {"expected_version": "0" * 32}), ("reject", {})):
            error = await another.post(f"/proposals/{proposal}/{what}", body, status=403)
            assert error["code"] == "insufficient_scope"
            assert "scope approve" in error["detail"]
        withdrawn = await another.post(f"/proposals/{proposal}/withdraw", status=403)
    async with person(team.server, "read") as reader:
        seen = await reader.get(f"/proposals/{proposal}")

    assert withdrawn["code"] == "not_allowed"
    assert seen["status"] == "proposed"
    assert was_left_alone(sandbox)


async def test_a_rejected_proposal_says_why(team: Team, sandbox: Sandbox) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    version = await team.approver.version_of(proposal)
    rejected = await team.approver.post(f"/proposals/{proposal}/reject", {"reason": "Not today."})
    status = await team.asker.get(f"/workflows/{proposal}")
    late = await team.approver.approve(proposal, version=version, status=409)

    assert (rejected["status"], rejected["decided_by"]) == ("rejected", team.approver.name)
    assert status["status"] == "rejected"
    assert "Not today." in status["message"]
    assert late["code"] == "already_decided"
    assert was_left_alone(sandbox)


@pytest.mark.parametrize("way", ["/proposals/{}/withdraw", "/workflows/{}/cancel"])
async def test_a_proposal_is_withdrawn_by_who_asked(team: Team, sandbox: Sandbox, way: str) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    version = await team.approver.version_of(proposal)
    withdrawn = await team.asker.post(way.format(proposal))
    late = await team.approver.approve(proposal, version=version, status=409)

    assert withdrawn["status"] == "withdrawn"
    assert late["code"] == "already_decided"
    assert was_left_alone(sandbox)


async def test_a_proposal_expires(http: Serve, sandbox: Sandbox) -> None:
    hours = {"FIVETRAN_STATE_APPROVAL_HOURS": "0.0001"}
    async with http(**hours) as server, person(server, "write") as asker:
        proposal = await asker.propose(IDLE, merge_patch=PATCH)
        ended = await asker.get(f"/workflows/{proposal}", wait=30)

    assert ended["status"] == "expired"
    assert was_left_alone(sandbox)


async def test_a_proposal_that_is_followed_is_not_read_again_with_its_change(team: Team) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    with counted_statements() as statements:
        waits = await team.asker.get(f"/workflows/{proposal}", wait=1)

    assert waits["status"] == "proposed"
    assert len(statements) > 2
    assert len([each for each in statements if "inputs" in each]) == 1


async def test_a_state_that_has_moved_is_planned_and_approved_anew(
    team: Team, sandbox: Sandbox
) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    seen = await team.approver.version_of(proposal)
    sandbox.set_state(IDLE, '{"cursor":"2027","page":7}')
    moved = await team.approver.approve(proposal, version=seen, status=409)
    assert was_left_alone(sandbox)
    made = await team.approver.approve(proposal, version=moved["current_version"])

    assert (moved["code"], made["status"]) == ("conflict", "updated")
    assert "approve its version" in moved["detail"]
    assert sandbox.connection(IDLE).state == '{"cursor":"2020","page":7}'


async def test_a_plan_that_has_not_moved_is_not_sent_again(team: Team, sandbox: Sandbox) -> None:
    proposal = f"/proposals/{await team.asker.propose(IDLE, merge_patch=PATCH)}"
    first = await team.approver.client.get(proposal)
    known = {"If-None-Match": first.headers["ETag"]}
    again = await team.approver.client.get(proposal, headers=known)
    sandbox.set_state(IDLE, '{"cursor":"2027"}')
    moved = await team.approver.client.get(proposal, headers=known)
    known = {"If-None-Match": moved.headers["ETag"]}
    await team.approver.post(f"{proposal}/reject")
    decided = await team.approver.client.get(proposal, headers=known)

    assert first.headers["ETag"] == f'"{first.json()["plan"]["version_before"]}"'
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert (moved.status_code, moved.json()["plan"]["changes"][0]["before"]) == (200, '"2027"')
    assert (decided.status_code, decided.json()["status"]) == (200, "rejected")
    assert "ETag" not in decided.headers


@pytest.mark.parametrize("decision", ["approve", "reject"])
@pytest.mark.parametrize("is_group", [False, True], ids=["one", "group"])
async def test_if_match_decides_only_upon_what_was_seen(
    team: Team, sandbox: Sandbox, decision: str, is_group: bool
) -> None:
    body: dict[str, Any] = {"merge_patch": PATCH, "propose": True} | ANY
    one_or_more = ("/states/update", {"connection_ids": [IDLE, PAUSED]})
    path, which = one_or_more if is_group else ("/state/update", {"connection_id": IDLE})
    asked = await team.asker.post(path, body | which, status=202)
    proposal = f"/proposals/{asked['workflow_id']}"

    async def tag() -> str:
        return (await team.approver.client.get(proposal)).headers["ETag"]

    async def decide(status: int, if_match: str, **body: str) -> dict[str, Any]:
        return await team.approver.post(
            f"{proposal}/{decision}", body, status=status, If_Match=if_match
        )

    seen = await tag()
    sandbox.set_state(IDLE, '{"cursor":"2027"}')
    moved = await decide(412, seen)
    weak = await decide(412, f"W/{await tag()}")
    waits = await team.approver.get(proposal)
    made = await decide(200, await tag())
    async with person(team.server, "approve") as other:
        late = await other.post(f"{proposal}/{decision}", status=412, If_Match=seen)

    assert (moved["code"], weak["code"]) == ("conflict", "precondition_failed")
    assert f'"{moved["current_version"]}"' != seen
    assert f"{decision} its version" in moved["detail"]
    assert waits["status"] == "proposed"
    assert made["status"] == {"approve": "updated", "reject": "rejected"}[decision]
    assert late["code"] == "already_decided"


async def test_an_approval_names_one_version_once(team: Team, sandbox: Sandbox) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    path, version = f"/proposals/{proposal}/approve", await team.approver.version_of(proposal)
    nothing = await team.approver.post(path, status=422)
    star = await team.approver.post(path, status=422, If_Match="*")
    other = {"expected_version": "0" * 32}
    await team.approver.post(path, other, status=400, If_Match=f'"{version}"')
    assert was_left_alone(sandbox)
    both = {"expected_version": version}
    made = await team.approver.post(path, both, If_Match=f'"{version}"')

    assert nothing["detail"] == star["detail"]
    assert "expected_version or in If-Match" in nothing["detail"]
    assert made["status"] == "updated"


async def test_a_rejection_of_any_plan_needs_no_plan(team: Team, sandbox: Sandbox) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    before = len(sandbox.log)
    rejected = await team.approver.post(f"/proposals/{proposal}/reject", If_Match="*")

    assert rejected["status"] == "rejected"
    assert sandbox.log[before:] == []


async def test_two_approvals_at_once_make_one_update(team: Team, sandbox: Sandbox) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    version = await team.approver.version_of(proposal)
    answers: list[dict[str, object]] = []
    async with person(team.server, "approve") as other, anyio.create_task_group() as tasks:

        async def approve(who: Person) -> None:
            answer = await who.client.post(
                f"/proposals/{proposal}/approve", json={"expected_version": version}
            )
            answers.append(answer.json())

        for who in (team.approver, other) * 3:
            tasks.start_soon(approve, who)

    updated = [each for each in answers if each.get("workflow_id") == f"{IDLE}:1"]
    assert len(updated) == len(answers) == 6
    assert {each.get("code", each["status"]) for each in answers} <= {"updated", "already_decided"}
    listed = await team.asker.get("/workflows", connection_id=IDLE)
    assert [each["workflow_id"] for each in listed["workflows"]] == [f"{IDLE}:1"]


async def test_an_approval_counts_only_while_its_token_may_approve(
    team: Team, sandbox: Sandbox
) -> None:
    """The token is revoked as the approval is sent, before the update is started."""
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    body = {"expected_version": await team.approver.version_of(proposal)}

    def revoke(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO main.notifications"):
            TokenFile(team.server.settings).revoke(team.approver.token.id)

    event.listen(Engine, "before_cursor_execute", revoke)
    try:
        answer = await team.approver.client.post(f"/proposals/{proposal}/approve", json=body)
    finally:
        event.remove(Engine, "before_cursor_execute", revoke)

    async def was_refused() -> bool:
        return "last_problem" in await team.asker.get(f"/proposals/{proposal}")

    await until(was_refused)
    status = await team.asker.get(f"/workflows/{proposal}")
    assert answer.status_code in (401, 403)
    assert (status["status"], status["error"]["code"]) == ("proposed", "not_allowed")
    assert was_left_alone(sandbox)


@pytest.mark.slow
async def test_the_connection_is_busy_when_it_is_approved(team: Team, sandbox: Sandbox) -> None:
    proposal = await team.asker.propose(IDLE, merge_patch=PATCH)
    version = await team.approver.version_of(proposal)
    held = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$")
    await team.asker.post(
        "/state/update",
        {"connection_id": IDLE, "merge_patch": {"page": 1}, "expected_version": "*"},
        status=202,
        Prefer="respond-async",
    )
    await arrival(sandbox, lambda request: request.fault == "hang")
    busy = await team.approver.approve(proposal, version=version, status=409)
    status = await team.asker.get(f"/proposals/{proposal}")
    held.release()
    await team.asker.get(f"/workflows/{IDLE}:1", wait=30)
    made = await team.approver.approve(proposal)

    assert busy["code"] == status["last_problem"]["code"] == "update_in_progress"
    assert status["status"] == "proposed"
    assert made["workflow_id"] == f"{IDLE}:2"


@pytest.mark.slow
async def test_an_equal_request_attaches_and_a_key_names_one_proposal(team: Team) -> None:
    first = await team.asker.propose(IDLE, merge_patch=PATCH)
    second = await team.asker.propose(IDLE, merge_patch=PATCH)
    other = await team.asker.propose(IDLE, merge_patch={"cursor": "2021"})
    body = {"connection_id": IDLE, "propose": True, "merge_patch": PATCH}
    keyed = [
        await team.asker.post("/state/update", ANY | body, status=202, Idempotency_Key="one")
        for _ in range(2)
    ]
    reused = await team.asker.post(
        "/state/update", ANY | body | {"merge_patch": {"a": 1}}, status=422, Idempotency_Key="one"
    )
    await team.approver.approve(keyed[0]["workflow_id"])
    repeated = await team.asker.post("/state/update", ANY | body, Idempotency_Key="one")

    assert first == second != other
    assert keyed[0]["workflow_id"] == keyed[1]["workflow_id"] != first
    assert reused["code"] == "idempotency_key_reused"
    assert (repeated["status"], repeated["workflow_id"]) == ("approved", keyed[0]["workflow_id"])


async def test_what_changes_nothing_or_cannot_be_made_is_not_proposed(
    team: Team, sandbox: Sandbox
) -> None:
    path, body = "/state/update", ANY | {"connection_id": IDLE, "propose": True}
    same = json.loads(str(sandbox.connection(IDLE).state))
    nothing = await team.asker.post(path, body | {"new_state": same})
    impossible = await team.asker.post(
        path, body | {"json_patch": [{"op": "remove", "path": "/nowhere"}]}, status=422
    )
    moved = await team.asker.post(
        path, body | {"merge_patch": PATCH, "expected_version": "0" * 32}, status=409
    )
    unknown = await team.approver.get(f"/proposals/{NO_PROPOSAL}", status=404)
    strange = await team.approver.get("/proposals/proposal:1", status=404)

    assert nothing["status"] == "planned"
    assert (impossible["code"], moved["code"]) == ("invalid_change", "conflict")
    assert unknown["code"] == strange["code"] == "workflow_not_found"
    assert (await team.approver.get("/proposals"))["proposals"] == []


@pytest.mark.slow
async def test_with_always_only_the_scope_approve_changes_by_itself(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http(FIVETRAN_STATE_CONFIRM="always") as server, AsyncExitStack() as stack:
        asker = await stack.enter_async_context(person(server, "write"))
        approver = await stack.enter_async_context(person(server, "approve"))
        change = {"connection_id": IDLE, "merge_patch": PATCH}
        by_rest = await asker.post("/state/update", ANY | change, status=202)
        async with server.mcp(token=asker.text) as client:
            by_mcp = await call(client, "update_state", **change)
            together = await call(
                client, "update_states", connection_ids=[IDLE, PAUSED], merge_patch=PATCH
            )
        multiple = await asker.post(
            "/state/update-multiple",
            {"connection_ids": [IDLE, PAUSED], "merge_patch": PATCH, "expected_version": "*"},
            status=202,
        )
        assert was_left_alone(sandbox)
        directly = await approver.post(
            "/state/update",
            {"connection_id": SYNCING, "merge_patch": PATCH, "expected_version": "*"},
        )

    assert by_rest["status"] == by_mcp["status"] == "proposed"
    assert by_rest["workflow_id"] == by_mcp["workflow_id"]
    assert f"fivetran-state approve {by_mcp['workflow_id']}" in by_mcp["message"]
    assert together["workflow_id"] == multiple["workflow_id"]
    assert (together["status"], together["counts"]) == ("proposed", {"proposed": 2})
    assert directly["status"] == "updated"


@pytest.mark.slow
async def test_a_group_is_approved_as_it_was_seen(team: Team, sandbox: Sandbox) -> None:
    watches = [Watch(sandbox, IDLE), Watch(sandbox, PAUSED)]
    body = {"connection_ids": [IDLE, PAUSED], "merge_patch": PATCH, "propose": True}
    proposal = (await team.asker.post("/states/update", ANY | body, status=202))["workflow_id"]
    plan = (await team.approver.get(f"/proposals/{proposal}"))["plan"]
    sandbox.set_state(PAUSED, '{"cursor":"2027"}')
    moved = await team.approver.approve(proposal, version=plan["version"], status=409)
    assert was_left_alone(sandbox)
    assert was_left_alone(sandbox, PAUSED)
    made = await team.approver.approve(proposal)
    followed = await team.asker.get(f"/workflows/{proposal}")
    member = await team.asker.get(f"/workflows/{IDLE}:1")

    assert f"approve version '{plan['version']}'" in plan["message"]
    assert moved["code"] == "conflict"
    assert (made["status"], made["counts"]) == ("updated", {"updated": 2})
    assert followed["workflow_id"] == made["workflow_id"] == member["part_of"]
    assert (member["asked_by"], member["agreed_by"]) == (team.asker.name, team.approver.name)
    watches[0].ended_with(watches[0].old | PATCH)
    assert sandbox.connection(PAUSED).state == '{"cursor":"2020"}'


async def test_an_independent_proposal_loses_no_connection(team: Team, sandbox: Sandbox) -> None:
    """Those that cannot be changed, or need not be, when it is asked for are looked at again."""
    sandbox.set_state(PAUSED, '{"cursor":"2020"}')
    sandbox.fault("status", path=f"/{SYNCING}/state$", status=404)
    body = {
        "mode": "independent",
        "propose": True,
        "changes": [
            {"connection_id": IDLE, "merge_patch": PATCH},
            {"connection_id": PAUSED, "merge_patch": PATCH},
            {"connection_id": SYNCING, "merge_patch": PATCH},
            {"connection_id": STATELESS, "merge_patch": PATCH},
            {"connection_id": EMPTY, "restore_from": f"{EMPTY}:7"},
        ],
    }
    asked = await team.asker.post("/states/update", ANY | body, status=202)
    sandbox.set_state(PAUSED, '{"cursor":"2027"}')
    proposal = asked["workflow_id"]
    listed = (await team.asker.get("/proposals"))["proposals"][0]
    plan = (await team.approver.get(f"/proposals/{proposal}"))["plan"]
    made = await team.approver.approve(proposal)

    lost = {EMPTY: "workflow_not_found"}
    assert (asked["total"], asked["counts"]) == (5, {"proposed": 4, "workflow_not_found": 1})
    assert failures(asked["not_started"]) == lost
    assert listed["total"] == 5
    assert (plan["total"], plan["changed"]) == (5, 3)
    assert failures(plan["failures"]) == lost | {STATELESS: "state_not_kept"}
    assert (made["status"], made["counts"]) == (
        "partly_updated",
        {"state_not_kept": 1, "updated": 3, "workflow_not_found": 1},
    )
    assert failures(made["not_started"]) == lost | {STATELESS: "state_not_kept"}


def failures(members: list[dict[str, Any]]) -> dict[str, str]:
    return {each["connection_id"]: each["error"]["code"] for each in members}


async def test_an_assistant_proposes_follows_and_withdraws(team: Team, sandbox: Sandbox) -> None:
    async with team.server.mcp(token=team.asker.text) as client:
        change = {"connection_id": IDLE, "merge_patch": PATCH, "propose": True}
        asked = await call(client, "update_state", **change)
        proposal = asked["workflow_id"]
        waits = await call(client, "workflow_status", workflow_id=proposal)
        withdrawn = await call(client, "cancel_update", workflow_id=proposal)
        again = await call(client, "cancel_update", workflow_id=proposal)
        anew = (await call(client, "update_state", **change))["workflow_id"]
        await team.approver.approve(anew)
        ended = await call(client, "workflow_status", workflow_id=anew)

    assert asked["status"] == waits["status"] == "proposed"
    assert withdrawn["status"] == again["status"] == "withdrawn"
    assert anew != proposal
    assert (ended["status"], ended["workflow_id"]) == ("updated", f"{IDLE}:1")
    assert '"2020"' in str(sandbox.connection(IDLE).state)


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_can_open_a_page_is_sent_to_the_proposals(
    http: Serve, sandbox: Sandbox, era: str
) -> None:
    opened: list[str] = []

    async def open_(_: object, asked: ElicitRequestParams) -> ElicitResult:
        assert isinstance(asked, ElicitRequestURLParams), asked
        opened.append(asked.url)
        return ElicitResult(action="accept")

    public = "https://state.example.com/fivetran"
    async with http() as server, person(server, "write") as asker:
        pass  # Others can reach the next one, so it needs a token before it starts.
    change = {"connection_id": IDLE, "merge_patch": PATCH, "propose": True}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(http(FIVETRAN_STATE_PUBLIC_URL=public))
        client = await stack.enter_async_context(server.mcp(era, token=asker.text, ask=open_))
        asked = await call(client, "update_state", **change)

    assert asked["status"] == "proposed"
    proposal = asked["workflow_id"].replace(":", "%3A")
    assert opened == [f"{public}/page/proposals/{proposal}"]
    assert was_left_alone(sandbox)


CAN_OPEN = "https://state.example.com"


async def never(_: object, asked: ElicitRequestParams) -> ElicitResult:
    raise AssertionError(f"asked within the call: {asked}")


@pytest.mark.parametrize("is_group", [False, True], ids=["one", "group"])
async def test_a_proposal_is_a_task_that_needs_input_and_ends_as_the_update(
    http: Serve, sandbox: Sandbox, is_group: bool
) -> None:
    change: dict[str, Any] = (
        {"connection_ids": [IDLE, PAUSED]} if is_group else {"connection_id": IDLE}
    )
    tool = "update_states" if is_group else "update_state"
    async with http(FIVETRAN_STATE_CONFIRM="always") as first, person(first, "write") as asker:
        pass  # Others can reach the next one, so it needs a token before it starts.
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            http(FIVETRAN_STATE_CONFIRM="always", FIVETRAN_STATE_PUBLIC_URL=CAN_OPEN)
        )
        approver = await stack.enter_async_context(person(server, "approve"))
        client = await stack.enter_async_context(
            server.mcp(token=asker.text, ask=never, extensions=[FollowsTasks()])
        )
        created = await task_of(client, tool=tool, **change, merge_patch=PATCH)
        proposal = created["taskId"]
        waits = await ask(client, "tasks/get", proposal)
        answered = await ask(client, "tasks/update", proposal)
        still = await ask(client, "tasks/get", proposal)
        assert was_left_alone(sandbox)
        await approver.approve(proposal)
        ended = await ended_task(client, proposal)

    assert created["status"] == waits["status"] == still["status"] == "input_required"
    assert "inputRequests" not in created
    asked = waits["inputRequests"]["approval"]
    assert asked["method"] == "elicitation/create"
    assert (asked["params"]["mode"], asked["params"]["url"]) == (
        "url",
        f"{CAN_OPEN}/page/proposals/{proposal.replace(':', '%3A')}",
    )
    assert waits["inputRequests"] == still["inputRequests"]
    assert answered == {"resultType": "complete"}
    assert (ended["taskId"], ended["status"]) == (proposal, "completed")
    assert ended["createdAt"] == created["createdAt"]
    assert ended["result"]["structuredContent"]["status"] == "updated"
    assert "isError" not in ended["result"] or not ended["result"]["isError"]


async def test_a_task_of_a_proposal_is_followed_without_a_page_too_and_cancelled(
    team: Team, sandbox: Sandbox
) -> None:
    change: dict[str, Any] = {"connection_id": IDLE, "merge_patch": PATCH, "propose": True}
    async with team.server.mcp(token=team.asker.text, extensions=[FollowsTasks()]) as client:
        created = await task_of(client, **change)
        await ask(client, "tasks/cancel", created["taskId"])
        cancelled = await ended_task(client, created["taskId"])
        await ask(client, "tasks/cancel", created["taskId"])
        rejected = await task_of(client, **change)
        await team.approver.post(f"/proposals/{rejected['taskId']}/reject", {"reason": "Not now."})
        refused = await ended_task(client, rejected["taskId"])
        approved = await task_of(client, **change)
        held = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(team.approver.approve, approved["taskId"])
            await arrival(sandbox, lambda request: request.fault == "hang")
            runs = await ask(client, "tasks/get", approved["taskId"])
            await ask(client, "tasks/cancel", approved["taskId"])
            held.release()
            stopped = await ended_task(client, approved["taskId"])
            tasks.cancel_scope.cancel()

    assert (created["status"], cancelled["status"]) == ("working", "cancelled")
    assert "A person with the scope approve" in created["statusMessage"]
    assert (refused["status"], refused["result"]["structuredContent"]["status"]) == (
        "completed",
        "rejected",
    )
    assert "Not now." in refused["statusMessage"]
    assert (runs["status"], stopped["status"]) == ("working", "cancelled")
