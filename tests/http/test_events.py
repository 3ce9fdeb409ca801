"""Events of requests over HTTP: who asked, who agreed, who was refused, and by which request."""

import re
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.support.audited import AUDIT_FILE, events_in
from tests.support.calls import IDLE, NO_VERSION, refused
from tests.support.people import person
from tests.support.rest import ANY

PATCH = {"cursor": "2020"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


async def test_an_approved_change_names_who_asked_and_who_agreed(http: Serve, path: Path) -> None:
    async with (
        http(**{AUDIT_FILE: str(path)}) as server,
        person(server, "write") as asker,
        person(server, "approve") as approver,
    ):
        proposal = await asker.propose(IDLE, merge_patch=PATCH)
        done = await approver.approve(proposal)

    told = {each["event"]: each for each in events_in(path)}
    asked, agreed, started = (
        told[name] for name in ("proposal.created", "proposal.approved", "update.started")
    )
    assert (asked["workflow_id"], asked["principal"]) == (proposal, asker.name)
    assert (agreed["workflow_id"], agreed["principal"]) == (done["workflow_id"], approver.name)
    assert agreed["part_of"] == proposal
    assert (started["principal"], started["agreed_by"]) == (asker.name, approver.name)


async def test_histories_and_pages_say_who_asked_and_who_agreed(http: Serve) -> None:
    async with (
        http() as server,
        person(server, "write") as asker,
        person(server, "approve") as approver,
    ):
        await approver.approve(await asker.propose(IDLE, merge_patch=PATCH))
        listed = (await asker.get("/workflows"))["workflows"]
        entries = (await asker.get(f"/connections/{IDLE}/history", kind="update"))["entries"]
        pages = [
            (await asker.client.get(path, headers={"Accept": "text/html"})).text
            for path in (f"/page/connections/{IDLE}", "/page/updates")
        ]

    told = [(each["asked_by"], each["agreed_by"]) for each in (*listed, *entries)]
    assert told == [(asker.name, approver.name)] * 2
    for page in pages:
        assert f"{asker.name}, agreed by {approver.name}" in re.sub("<[^>]+>", "", page)


async def test_a_rejected_proposal_names_who_rejected_it(http: Serve, path: Path) -> None:
    async with (
        http(**{AUDIT_FILE: str(path)}) as server,
        person(server, "write") as asker,
        person(server, "approve") as approver,
    ):
        proposal = await asker.propose(IDLE, merge_patch=PATCH)
        await approver.post(f"/proposals/{proposal}/reject", X_Request_Id="of-the-rejection")

    last = events_in(path)[-1]
    assert (last["event"], last["principal"]) == ("proposal.rejected", approver.name)
    assert last["request_id"] == "of-the-rejection"


async def test_who_approves_their_own_proposal_is_refused_in_the_file(
    http: Serve, path: Path
) -> None:
    async with (
        http(**{AUDIT_FILE: str(path)}) as server,
        person(server, "approve") as asker,
    ):
        proposal = await asker.propose(IDLE, merge_patch=PATCH)
        await asker.approve(proposal, status=403)

    last = events_in(path)[-1]
    assert (last["event"], last["error"]) == ("request.refused", "not_allowed")
    assert (last["workflow_id"], last["principal"]) == (proposal, asker.name)


async def test_a_caller_without_the_scope_is_refused_in_the_file(http: Serve, path: Path) -> None:
    async with (
        http(**{AUDIT_FILE: str(path)}) as server,
        person(server, "read") as reader,
        server.mcp(token=reader.text) as client,
    ):
        body = {"connection_id": IDLE, "merge_patch": PATCH}
        await reader.post("/state/update", ANY | body, status=403)
        await refused(client, "update_state", expected_version=NO_VERSION, **body)

    by_rest, by_mcp = events_in(path)
    assert {by_rest["error"], by_mcp["error"]} == {"insufficient_scope"}
    assert {by_rest["principal"], by_mcp["principal"]} == {reader.name}
    assert by_mcp["connection"] == IDLE


async def test_the_events_of_a_request_have_its_id(http: Serve, path: Path) -> None:
    async with http(**{AUDIT_FILE: str(path)}) as server:
        answer = await server.client.post(
            "/state/update",
            json={"connection_id": IDLE, "merge_patch": PATCH, "expected_version": "*"},
            headers={"X-Request-Id": "from-a-test"},
        )

    assert answer.status_code == 200
    assert {each.get("request_id") for each in events_in(path)} == {"from-a-test"}
