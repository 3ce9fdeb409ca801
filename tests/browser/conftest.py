"""One Chromium for all the tests of a process; each test has a profile of its own in it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from filelock import FileLock
from playwright.async_api import Browser, async_playwright

from tests.support import app_host, npm
from tests.support import browser as chromium


@pytest.fixture(scope="session")
def chromium_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with FileLock(tmp_path_factory.getbasetemp().parent / "chromium.lock"):
        path = chromium.executable()
    with chromium.running(path, tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
async def browser(chromium_address: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.connect_over_cdp(chromium_address)
        yield found
        for context in found.contexts[1:]:  # The first one is the browser's own.
            await context.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that looks for barriers in a page."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "npm.lock"):
        folder = npm.folder_of(npm.AXE)
    return (folder / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def host_script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of a host of MCP Apps."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "npm.lock"):
        return app_host.bundled_script()


@pytest.fixture
def sites(host_script: str) -> Iterator[app_host.Sites]:
    with app_host.sites(host_script) as where:
        yield where
