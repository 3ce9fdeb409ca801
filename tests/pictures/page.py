"""Screenshots of the page, from updates on the sandbox, in Chromium."""

import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support import browser as chromium
from tests.support.calls import SYNCING
from tests.support.http_server import http_running
from tests.support.views import furnished
from tests.support.visitor import DESKTOP, PHONE, visitor

VIEWS = ("now", "connection", "plan")
SIZES = {"desktop": DESKTOP, "phone": PHONE}
SCHEMES = ("light", "dark")
NAMES = [f"{view}-{size}-{scheme}.png" for view in VIEWS for size in SIZES for scheme in SCHEMES]


async def draw(folder: Path, pictures: Path) -> None:
    """Writes each screenshot; `folder` is an empty directory."""
    with _sandbox() as (sandbox, fivetran_url):
        async with AsyncExitStack() as stack:
            environment = {
                "PATH": os.environ["PATH"],
                "FIVETRAN_API_KEY": "sandbox",
                "FIVETRAN_API_SECRET": "sandbox",
                "FIVETRAN_API_URL": fivetran_url,
                "FIVETRAN_STATE_DATA_DIR": str(folder / "data"),
                "FIVETRAN_STATE_LOG_LEVEL": "INFO",
            }
            server = await stack.enter_async_context(http_running(environment, folder))
            profile = folder / "chromium"
            profile.mkdir()
            address = stack.enter_context(chromium.running(chromium.executable(), profile))
            playwright = await stack.enter_async_context(async_playwright())
            browser = await playwright.chromium.connect_over_cdp(address)
            views = await furnished(server.client, sandbox)
            for name in NAMES:
                view, size, scheme = name.removesuffix(".png").split("-")
                options: dict[str, Any] = {
                    "viewport": SIZES[size],
                    "color_scheme": scheme,
                    "is_mobile": size == "phone",
                }
                reader = await visitor(browser, str(server.client.base_url).rstrip("/"), **options)
                await reader.go(views[view])
                await reader.page.screenshot(path=pictures / name, animations="disabled")
                await reader.context.close()
            sandbox.finish_sync(SYNCING)


@contextmanager
def _sandbox() -> Iterator[tuple[Sandbox, str]]:
    sandbox = Sandbox()
    with SandboxServer(sandbox) as server:
        yield sandbox, server.url
    sandbox.close()
