"""The first view of the page, with a real browser. `scripts/bench views` runs it.

The database has 100,000 past updates and the account 10,000 connections. Each view is opened by a browser
without a cache. Its time is that of the first content on the screen, as Chromium tells it; its bytes are
what was sent for it, styles and scripts included.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from playwright.async_api import Browser, async_playwright

from benchmarks import growth
from benchmarks.account import DATABASES, new_database, postgres_for
from benchmarks.figures import Figure, Line, Table
from fivetran_state.config import Settings
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support import browser as chromium
from tests.support.http_server import http_running
from tests.support.postgres import Postgres

UPDATES = 100_000
CONNECTIONS = 10_000
VIEWS = {
    "now": "/",
    "connections": "/page/connections",
    "connections, by part of a name": "/page/connections?name=other_9",
    "a connection with half of the updates": f"/page/connections/{growth.BUSY}",
    "updates": "/page/updates",
    "an update": f"/page/updates/{growth.BUSY}%3A{UPDATES // 2}",
    "a state": f"/page/connections/{growth.BUSY}/state",
    "proposals": "/page/proposals",
}
TELLS_ADDRESS = {"FIVETRAN_STATE_LOG_LEVEL": "INFO"}
_LOOK = """() => {
  const sent = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return {
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? null,
    bytes: sent.reduce((sum, each) => sum + each.transferSize, 0),
  };
}"""


def lines_of(view: str, database: str) -> tuple[Line, Line]:
    return (
        Line(f"{view}: first content", "ms", case=database),
        Line(f"{view}: sent", "KB", case=database),
    )


def account() -> Sandbox:
    sandbox = growth.sandbox()
    with sandbox.world.transaction():
        for number in range(CONNECTIONS - len(sandbox.world.connections())):
            sandbox.add_connection(f"more_{number}", state='{"cursor":"2026"}', paused=True)
    return sandbox


async def seen(browser: Browser, url: str) -> tuple[float, float]:
    """Milliseconds until the first content, and kilobytes."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        answer = await page.goto(url, wait_until="networkidle")
        assert answer is not None
        assert answer.ok, url
        await page.wait_for_function(f"() => ({_LOOK})().paint !== null")
        found: dict[str, Any] = await page.evaluate(_LOOK)
        return found["paint"], found["bytes"] / 1000
    finally:
        await context.close()


async def rounds_of(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """What each view takes, in each round; in the environment's database."""
    await growth.make_past(Settings(), UPDATES)
    found: dict[str, list[tuple[float, float]]] = {view: [] for view in VIEWS}
    with tempfile.TemporaryDirectory() as folder:
        path = await anyio.to_thread.run_sync(chromium.executable)
        with chromium.running(path, Path(folder)) as address:
            async with (
                http_running(os.environ | TELLS_ADDRESS, Path(folder)) as server,
                async_playwright() as playwright,
            ):
                url = str(server.client.base_url).rstrip("/")
                browser = await playwright.chromium.connect_over_cdp(address)
                await seen(browser, url)  # Warm up.
                for _ in range(rounds):
                    for view, at in VIEWS.items():
                        found[view].append(await seen(browser, url + at))
    return found


def measured(rounds: int, postgres: Postgres | None) -> dict[str, list[tuple[float, float]]]:
    with (
        SandboxServer(account()) as fivetran,
        growth.environment(fivetran.url, new_database(postgres)),
    ):
        return anyio.run(rounds_of, rounds)


def measure(rounds: int) -> Iterator[Figure]:
    for database in DATABASES:
        with postgres_for(database) as postgres:
            found = measured(rounds, postgres)
        for view, each in found.items():
            content, sent = lines_of(view, database)
            yield Figure(content, tuple(one[0] for one in each))
            yield Figure(sent, tuple(one[1] for one in each))


TABLE = Table(
    "views",
    f"First views of the page, with {UPDATES:,} updates and {CONNECTIONS:,} connections",
    "view",
    tuple(line for view in VIEWS for database in DATABASES for line in lines_of(view, database)),
    measure,
    rounds=5,
)
