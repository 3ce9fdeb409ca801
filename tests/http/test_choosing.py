"""REST: which updates a list has."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from fivetran_state.service import workflows
from tests.conftest import Serve
from tests.support.calls import EXACT, IDLE, PAUSED, SYNCING, arrival, is_pause, sync_runs_on
from tests.support.http_server import HttpServer, authorization, counted_statements
from tests.support.rest import ANY, get, parsed, post

UPDATE = "/state/update"


async def update(server: HttpServer, connection_id: str, n: int, status: int = 200) -> None:
    body = ANY | {"connection_id": connection_id, "new_state": {"n": n}}
    await post(server.client, UPDATE, body, status=status)


async def page(server: HttpServer, **query: Any) -> dict[str, Any]:
    return parsed(await server.client.get("/workflows", params=query), 200)


async def listed(server: HttpServer, **query: Any) -> list[str]:
    """The ids of all updates that fit, page by page."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        some = await page(server, **query, **cursor)
        found += [each["workflow_id"] for each in some["workflows"]]
        if "next_cursor" not in some:
            return found
        cursor = {"cursor": some["next_cursor"]}


def spread(server: HttpServer) -> None:
    """Lets the updates have started in different seconds, since SQLite keeps whole ones."""
    with closing(sqlite3.connect(server.settings.home / "state.db")) as database, database:
        database.execute("UPDATE workflow_status SET created_at = created_at + 1000 * rowid")


@pytest.mark.parametrize("whose", [{}, {"connection_id": IDLE}])
async def test_updates_are_found_by_their_status(
    http: Serve, sandbox: Sandbox, whose: dict[str, str]
) -> None:
    async with http() as server:
        await update(server, IDLE, 1)
        await update(server, IDLE, 1)
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"n":0}')
        await update(server, IDLE, 2, status=502)
        found = {
            status: await listed(server, status=status, **whose)
            for status in ("updated", "unchanged", "failed", "running")
        }

    assert found == {
        "updated": [f"{IDLE}:1"],
        "unchanged": [f"{IDLE}:2"],
        "failed": [f"{IDLE}:3"],
        "running": [],
    }


@pytest.mark.parametrize("whose", [{}, {"connection_id": IDLE}])
async def test_updates_are_found_by_when_they_were_started(
    http: Serve, whose: dict[str, str]
) -> None:
    async with http() as server:
        for n in range(4):
            await update(server, IDLE, n)
        spread(server)
        newest_first = (await page(server))["workflows"]
        times = [each["started_at"] for each in reversed(newest_first)]
        found = await listed(server, since=times[1], until=times[3], limit=1, **whose)
        none = await listed(server, since="2999-01-01T00:00Z", **whose)

    assert found == [f"{IDLE}:3", f"{IDLE}:2"]
    assert none == []


async def test_updates_are_found_by_who_has_asked(http: Serve) -> None:
    async with http() as server:
        await update(server, IDLE, 1)
        token = server.new_token()
        server.client.headers.update(authorization(token))
        await update(server, PAUSED, 2)
        mine = await listed(server, asked_by=f"token:{token.split('_')[1]}")
        others = await listed(server, asked_by="anonymous")

    assert (mine, others) == ([f"{PAUSED}:1"], [f"{IDLE}:1"])


async def test_a_running_update_is_found_however_many_came_after_it(
    http: Serve, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "MAX_PAGES_SEARCHED", 1)
    monkeypatch.setattr(workflows, "READ_BATCH", 1)
    sync_runs_on(sandbox)
    waiting = ANY | {"connection_id": SYNCING, "new_state": {}}
    async with http() as server:
        await post(server.client, UPDATE, waiting, status=202, Prefer="respond-async")
        await arrival(sandbox, is_pause)
        for n in range(3):
            await update(server, IDLE, n)
        found = await page(server, status="running", limit=1)
        sandbox.finish_sync(SYNCING)
        await get(server.client, f"/workflows/{SYNCING}:1", wait=50)

    assert [each["workflow_id"] for each in found["workflows"]] == [f"{SYNCING}:1"]


@pytest.mark.parametrize("whose", [{}, {"connection_id": IDLE}])
async def test_a_search_that_finds_nothing_reads_a_bounded_number_and_goes_on(
    http: Serve, monkeypatch: pytest.MonkeyPatch, whose: dict[str, str]
) -> None:
    monkeypatch.setattr(workflows, "MAX_PAGES_SEARCHED", 2)
    monkeypatch.setattr(workflows, "READ_BATCH", 1)
    async with http() as server:
        await update(server, PAUSED, 1)
        for n in range(4):
            await update(server, IDLE, n)
        spread(server)
        first = await page(server, status="failed", limit=1, **whose)
        found = await listed(server, status="updated", limit=1, **whose)

    assert first["workflows"] == []
    assert first["next_cursor"]
    assert "next_cursor" in first["message"]
    assert found[:4] == [f"{IDLE}:{n}" for n in (4, 3, 2, 1)]


@pytest.mark.slow
async def test_a_search_costs_the_same_with_a_longer_history(
    http: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "MAX_PAGES_SEARCHED", 1)
    monkeypatch.setattr(workflows, "READ_BATCH", 1)
    async with http() as server:

        async def statements() -> int:
            with counted_statements() as made:
                await page(server, status="failed", limit=1)
            return len(made)

        async def fewest() -> int:  # The server's own looks at the database count, too.
            return min([await statements() for _ in range(5)])

        for n in range(2):
            await update(server, EXACT, n)
        before = await fewest()
        for n in range(6):
            await update(server, IDLE, n)
        after = await fewest()

    assert after <= before


async def test_a_choice_that_makes_no_sense_is_refused(http: Serve) -> None:
    wrong = (
        {"status": "paused"},
        {"since": "yesterday"},
        {"since": "0001-01-01T00:00+14:00"},
        {"until": "2026-11-24T08:00"},
    )
    async with http() as server:
        for query in wrong:
            answer = await server.client.get("/workflows", params=query)
            assert parsed(answer, 422)["code"] == "invalid_request"
