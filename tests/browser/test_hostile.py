"""States, names and reasons that attack whoever looks at them."""

import json
from typing import Any

import pytest
from playwright.async_api import Browser

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.hostile import HIDDEN, MARKUP, STATE, TALL, hostile_connection
from tests.support.rest import ANY, get, post
from tests.support.views import change, remembered
from tests.support.visitor import PHONE, visitor

_PLACES = """() => ["header nav", "header nav a", "h1"].map((each) => {
    const box = document.querySelector(each).getBoundingClientRect();
    return [box.left, box.top].map(Math.round);
})"""


def views_of(connection_id: str, version: str) -> list[str]:
    connection = f"/page/connections/{connection_id}"
    return [
        "/",
        "/page/connections",
        connection,
        f"{connection}/state",
        f"{connection}/state?at={connection_id}:2",
        f"{connection}/compare?from={connection_id}:1",
        f"{connection}/change",
        f"{connection}/plan?restore_from={connection_id}:1",
        "/page/updates",
        f"/page/updates/{connection_id}:1",
        f"/page/updates/{connection_id}:2",
        "/page/proposals",
        f"/page/connections?name={version}&group=%3Cscript%3E",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("size", [None, PHONE])
async def test_nothing_in_a_state_runs_loads_moves_or_leads_elsewhere(
    http: Serve, sandbox: Sandbox, browser: Browser, size: Any
) -> None:
    hostile_connection(sandbox, "evil_one", json.dumps({"cursor": 1}))
    async with http() as server:
        reader = await visitor(browser, server.url, **{"viewport": size} if size else {})
        await reader.go("/page/updates")
        places = await reader.page.evaluate(_PLACES)
        await change(server.client, "evil_one", new_state=STATE, reason=MARKUP + HIDDEN)
        other = {MARKUP: TALL, "new": MARKUP}
        await change(server.client, "evil_one", new_state=other, reason=TALL)
        await remembered(server.client, "evil_one", 3)
        asked = {"connection_id": "evil_one", "new_state": STATE, "reason": MARKUP, "propose": True}
        proposal = (await post(server.client, "/state/update", ANY | asked, status=202))[
            "workflow_id"
        ]
        for path in [*views_of("evil_one", "x"), f"/page/proposals/{proposal}"]:
            assert await reader.go(path) == 200, path
            await reader.page.wait_for_load_state("networkidle")
            assert reader.path == path
            assert await reader.page.evaluate(_PLACES) == places, path
            assert await reader.overflow() == 0, path
            assert reader.problems == [], path
        made = await get(server.client, "/workflows")

    assert len(made["workflows"]) == 2


@pytest.mark.slow
async def test_ten_megabytes_are_shown_in_part_and_run_nothing(
    http: Serve, sandbox: Sandbox, browser: Browser
) -> None:
    values = {f"{n:05}{MARKUP[:60]}": MARKUP[:60] for n in range(60_000)}
    hostile_connection(sandbox, "evil_one", json.dumps(values))
    async with http() as server:
        reader = await visitor(browser, server.url)
        for state in ({MARKUP: "y" * 3_000_000}, {"short": 1}):
            # The answer may be larger than a state.
            body = {"connection_id": "evil_one", "new_state": state}
            assert (await server.client.post("/state/update", json=ANY | body)).status_code == 200
        await remembered(server.client, "evil_one", 3)
        for path in views_of("evil_one", "x"):
            assert await reader.go(path) == 200, path
            assert await reader.overflow() == 0, path
            assert reader.problems == [], path
