"""Notices when processes die, when several look at once, and what is left of them on disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.support.calls import EXACT, IDLE, PAUSED, call, end_of, until
from tests.support.commands import doctor, finish
from tests.support.files import files_under, where
from tests.support.processes import ended, running
from tests.support.receiver import PATH, SECRET, Receiver, delivered, receiving
from tests.support.updates import SLOW, refuse_resumes, start_update
from tests.support.watching import service_in

SOON = {"FIVETRAN_STATE_ALERT_MINUTES": "0.001"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


async def propose(client: Client, connection_id: str = IDLE) -> str:
    patch = {"cursor": "2020"}
    asked = await call(
        client, "update_state", connection_id=connection_id, merge_patch=patch, propose=True
    )
    assert asked["status"] == "proposed", asked
    return str(asked["workflow_id"])


@pytest.mark.slow
async def test_a_notice_of_a_dead_server_is_sent_by_the_next(
    sandbox: Sandbox, on_either: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    receiver.status = 500
    async with running(on_either | receiver.variables, tmp_path) as server:
        proposal = await propose(server.client)
        await receiver.has(1)
        await server.kill()
    receiver.status = 204
    async with running(on_either | receiver.variables, tmp_path):
        await delivered(on_either)

    assert [each["workflow_id"] for each in receiver.accepted] == [proposal]
    assert len({each.content for each in receiver.received}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("lacks", ["an address", "the connection"])
async def test_a_server_that_lacks_something_leaves_notices_to_others(
    sandbox: Sandbox, environment: dict[str, str], receiver: Receiver, tmp_path: Path, lacks: str
) -> None:
    receiver.status = 500
    async with running(environment | receiver.variables, tmp_path) as server:
        await propose(server.client)
        await receiver.has(1)
        await server.kill()
    receiver.status = 204
    limited = receiver.variables | {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": PAUSED}
    other = environment | (limited if lacks == "the connection" else {})

    found = await to_thread.run_sync(doctor, other, tmp_path)
    finished = await to_thread.run_sync(finish, other, tmp_path)

    assert (found.returncode, finished.returncode) == (0, 0), found.stdout + finished.stderr
    assert receiver.accepted == []


@pytest.mark.slow
async def test_finish_does_not_wait_for_a_notice(
    sandbox: Sandbox, environment: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    receiver.status = 500
    async with running(environment | receiver.variables, tmp_path) as server:
        await propose(server.client)
        await receiver.has(1)
        await server.kill()

    finished = await to_thread.run_sync(finish, environment | receiver.variables, tmp_path)

    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
async def test_of_two_servers_one_tells_of_each_proposal(
    sandbox: Sandbox,
    on_both: dict[str, str],
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(on_both, tmp_path) as silent:
        before = await propose(silent.client)
        async with (
            running(on_both | receiver.variables, tmp_path) as server,
            service_in(on_both, monkeypatch, **receiver.variables) as service,
        ):
            proposals = {before, await propose(server.client, PAUSED)}
            proposals.add(await propose(silent.client, EXACT))
            await delivered(on_both, 3)
            launched = await service._engine.up()
            await launched.announcer.look_for_proposals()
            await delivered(on_both, 3)

    assert {each["workflow_id"] for each in receiver.accepted} == proposals
    assert len(receiver.received) == 3


@pytest.mark.slow
async def test_of_two_servers_one_tells_of_a_connection_that_stays_paused_for_each_update(
    sandbox: Sandbox,
    on_both: dict[str, str],
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    slow: dict[str, Any],
) -> None:
    variables = receiver.variables | SOON
    async with (
        running(on_both | variables, tmp_path) as server,
        service_in(on_both, monkeypatch, **variables) as service,
    ):
        launched = await service._engine.up()
        for number in (1, 2):
            sandbox.set_state(SLOW, json.dumps({"cursor": f"before {number}"}))
            sandbox.start_sync(SLOW)
            update = await start_update(server.client, SLOW)
            notices = await delivered(on_both, number)
            await launched.announcer.look_for_pauses()
            assert await delivered(on_both, number) == notices
            sandbox.finish_sync(SLOW)
            assert (await ended(server.client, update))["status"] in ("updated", "conflict")

    told = receiver.accepted
    assert [each["workflow_id"] for each in told] == [f"{SLOW}:1", f"{SLOW}:2"]
    assert {(each["type"], each["connection_id"]) for each in told} == {
        ("connection.left_paused", SLOW)
    }
    assert all(each["paused_since"] <= each["time"] for each in told)
    assert all("cancel_update" in each["hint"] for each in told)


@pytest.mark.slow
async def test_a_connection_that_an_update_has_left_paused_is_told_with_what_to_do(
    sandbox: Sandbox, environment: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    refuse_resumes(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        update = await start_update(server.client, IDLE)
        await end_of(server.client, update)
    async with running(environment | receiver.variables | SOON, tmp_path):
        (told,) = await receiver.has(1)

    assert told.body["workflow_id"] == update
    assert "fivetran-state resume" in told.body["hint"]


@pytest.mark.slow
async def test_a_connection_that_somebody_has_resumed_is_not_told(
    sandbox: Sandbox,
    environment: dict[str, str],
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_resumes(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        update = await start_update(server.client, IDLE)
        await end_of(server.client, update)
    sandbox.set_paused(IDLE, False)

    async with service_in(environment, monkeypatch, **receiver.variables | SOON) as service:
        launched = await service._engine.up()
        await launched.announcer.look_for_pauses()
        proposal = await propose_here(environment, tmp_path)
        await delivered(environment)

    assert [each["workflow_id"] for each in receiver.accepted] == [proposal]


async def propose_here(environment: dict[str, str], folder: Path) -> str:
    """A proposal by a server of its own."""
    async with running(environment, folder) as server:
        return await propose(server.client, PAUSED)


async def test_neither_the_address_nor_the_secret_is_in_any_file(
    sandbox: Sandbox, environment: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    variables = receiver.variables | {"FIVETRAN_STATE_LOG_LEVEL": "DEBUG"}
    log = tmp_path / "stderr.txt"

    async def is_away() -> bool:
        return "(ConnectError)" in log.read_text()

    async with running(environment | variables, tmp_path) as server:
        for number, status in enumerate((500, 307, 400), 1):
            receiver.status, receiver.headers = status, {"Location": receiver.url}
            await propose(server.client, (IDLE, PAUSED, EXACT)[number - 1])
            await receiver.has(number)
        receiver.go_away()
        await until(is_away)
        await server.kill()

    assert where([SECRET, PATH, PATH.rpartition("/")[2]], files_under(tmp_path)) == []
