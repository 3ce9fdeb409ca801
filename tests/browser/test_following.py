"""A running update on the page, while the server dies and comes back."""

from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from fivetran_state.sandbox import Sandbox
from tests.support.calls import SYNCING, state_of
from tests.support.http_server import http_forked
from tests.support.postgres import free_port
from tests.support.views import running_update
from tests.support.visitor import visitor


@pytest.mark.slow
async def test_an_update_is_followed_to_its_end_across_a_kill_of_the_server(
    environment: dict[str, str], tmp_path: Path, sandbox: Sandbox, browser: Browser
) -> None:
    port = str(free_port())
    async with http_forked(environment, tmp_path, "--port", port) as server:
        url = str(server.client.base_url).rstrip("/")
        reader = await visitor(browser, url)
        workflow_id = await running_update(server.client, sandbox)
        await reader.go(f"/page/updates/{workflow_id}")
        page = reader.page
        await page.evaluate("window.isTheSamePage = true")
        current = page.locator(".steps .current")
        await expect(current).to_contain_text("now")
        await server.kill()
    async with http_forked(environment, tmp_path, "--port", port):
        sandbox.finish_sync(SYNCING)
        await expect(page.locator("h2#changes")).to_have_text("What it changed", timeout=60_000)
        await expect(page.locator(".steps .done")).not_to_have_count(0)
        await expect(current).to_have_count(0)
        reloaded = await page.evaluate("window.isTheSamePage !== true")

    assert reloaded
    assert state_of(sandbox, SYNCING)["a"] == 1
    assert not sandbox.connection(SYNCING).paused
