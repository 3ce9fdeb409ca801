"""Notices of proposals and of paused connections, sent by a service in this process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fivetran_state import access, changes, state
from fivetran_state.sandbox import Sandbox
from fivetran_state.service import Service
from tests.support.calls import IDLE, PAUSED
from tests.support.http_server import lines_of
from tests.support.outside import opened
from tests.support.people import APPROVER, ASKER
from tests.support.processes import running
from tests.support.receiver import SECRET, Receiver, delivered, receiving
from tests.support.watching import service_in

CHANGE = changes.Inline(state.Change("merge_patch", {"cursor": "2020"}, exact=False))
PUBLIC = "https://state.example.com"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
async def service(
    sandbox: Sandbox,
    environment: dict[str, str],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    variables = receiver.variables | {"FIVETRAN_STATE_PUBLIC_URL": PUBLIC}
    async with service_in(environment, monkeypatch, **variables) as service:
        yield service


async def propose(service: Service, connection_id: str = IDLE, reason: str | None = None) -> str:
    with access.working_for(ASKER):
        asked = await service.changes.update_state(
            connection_id, CHANGE, expected_version=None, propose=True, reason=reason
        )
    return str(asked.workflow_id)


async def test_a_proposal_is_told_with_who_asks_for_what_why_and_where(
    service: Service, receiver: Receiver
) -> None:
    proposal = await propose(service, reason="A bad deploy.")
    (told,) = await receiver.has(1)

    seen = await service.proposals.proposal(proposal)
    assert told.body == {
        "type": "proposal.created",
        "id": f"notice:{proposal}",
        "time": seen.asked_at,
        "workflow_id": proposal,
        "connection_ids": [IDLE],
        "total": 1,
        "asked_by": "stdio",
        "reason": "A bad deploy.",
        "expires_at": seen.expires_at,
        "page": f"{PUBLIC}/page/proposals/{proposal.replace(':', '%3A')}",
    }
    assert told.headers["webhook-id"] == f"notice:{proposal}"
    assert told.is_signed(SECRET)
    assert not told.is_signed(SECRET + "?")


async def test_each_proposal_is_told_once(
    service: Service, receiver: Receiver, environment: dict[str, str]
) -> None:
    proposals = {await propose(service), await propose(service, PAUSED)}
    assert await propose(service) in proposals, "an equal request attaches"
    launched = await service._engine.up()
    await launched.announcer.look_for_proposals()
    await delivered(environment, 2)

    assert {each["workflow_id"] for each in receiver.accepted} == proposals
    assert len(receiver.received) == 2


async def test_the_answer_names_the_page(service: Service) -> None:
    with access.working_for(ASKER):
        asked = await service.changes.update_state(
            IDLE, CHANGE, expected_version=None, propose=True
        )
    page = f"{PUBLIC}/page/proposals/{str(asked.workflow_id).replace(':', '%3A')}"

    assert f"fivetran-state approve {asked.workflow_id} or {page}. " in str(asked.message)


async def test_a_failure_is_tried_again_as_the_same_notice(
    service: Service, receiver: Receiver, environment: dict[str, str]
) -> None:
    receiver.status = 500
    await propose(service)
    await receiver.has(1)
    receiver.status = 204
    first, second = await receiver.has(2)
    await delivered(environment)

    assert first.content == second.content
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.is_signed(SECRET)
    assert len(receiver.received) == 2


async def test_a_redirect_is_not_followed(
    service: Service, receiver: Receiver, environment: dict[str, str]
) -> None:
    receiver.status, receiver.headers = 307, {"Location": "/elsewhere"}
    await propose(service)
    await receiver.has(1)
    receiver.status, receiver.headers = 204, {}
    await delivered(environment)

    assert {each.path for each in receiver.received} == {receiver.received[0].path}
    assert receiver.received[0].path != "/elsewhere"


async def test_an_answer_without_end_is_not_read(
    service: Service, receiver: Receiver, environment: dict[str, str]
) -> None:
    receiver.status, receiver.headers = 200, {"Content-Length": "1000000000000"}
    await propose(service)
    await delivered(environment)

    assert len(receiver.received) == 1


async def test_a_refusal_ends_the_notice_with_one_line(
    environment: dict[str, str], receiver: Receiver, sandbox: Sandbox, tmp_path: Path
) -> None:
    receiver.status = 410
    async with running(environment | receiver.variables, tmp_path) as server:
        await server.client.call_tool(
            "update_state",
            {"connection_id": IDLE, "merge_patch": {"cursor": "2020"}, "propose": True},
        )
        (notice,) = await delivered(environment)

    of_notice = [
        line for line in lines_of(tmp_path / "stderr.txt") if line.get("workflow_id") == notice
    ]
    assert [(line["level"], line["message"]) for line in of_notice] == [
        ("error", "The receiver refuses the notice (HTTP 410)")
    ]
    assert len(receiver.received) == 1


async def test_nobody_waits_for_a_receiver_that_is_away(
    service: Service, receiver: Receiver, sandbox: Sandbox
) -> None:
    receiver.go_away()
    proposal = await propose(service)
    with access.working_for(APPROVER):
        plan = await service.proposals.plan(proposal)
        version = str(getattr(plan, "version_before", None))
        made = await service.proposals.approve(proposal, expected_version=version, wait_seconds=30)

    assert made.status == "updated"


async def test_a_notice_is_forgotten_with_its_proposal(
    service: Service, receiver: Receiver, environment: dict[str, str]
) -> None:
    proposal = await propose(service)
    await delivered(environment)
    with access.working_for(ASKER):
        await service.proposals.withdraw(proposal)
    launched = await service._engine.up()
    await launched.updates.retention.forget(0)

    with opened(environment) as database:
        left = database.execute(sa.text("SELECT name FROM workflow_status")).scalars().all()
    assert not {"proposal", "notice"} & set(left)


async def test_slack_gets_a_text(
    sandbox: Sandbox,
    environment: dict[str, str],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = {
        "FIVETRAN_STATE_NOTIFY_URL": receiver.url,
        "FIVETRAN_STATE_NOTIFY_FORMAT": "slack",
    }
    async with service_in(environment, monkeypatch, **variables) as service:
        await propose(service, reason="<!channel> <https://evil.example|look>")
        (told,) = await receiver.has(1)

    assert told.body.keys() == {"text"}
    assert IDLE in told.body["text"]
    assert not set(told.body["text"]) & set("<>")
    assert "webhook-signature" not in told.headers


async def test_a_server_tells_nothing_of_connections_that_it_may_not_use(
    sandbox: Sandbox,
    environment: dict[str, str],
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with service_in(environment, monkeypatch) as service:
        await propose(service)
        visible = await propose(service, PAUSED)
    limited = receiver.variables | {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": PAUSED}
    async with service_in(environment, monkeypatch, **limited) as service:
        await delivered(environment)
        launched = await service._engine.up()
        await launched.announcer.look_for_proposals()

    assert [each["workflow_id"] for each in receiver.accepted] == [visible]
