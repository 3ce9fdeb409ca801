"""A host of MCP Apps in Chromium: the bridge and the client of the protocol's own npm packages.

The npm package has the host's side, `AppBridge`, but not the example host: the page around it is
`host.js` here. As in the example, the App runs in a sandbox with an origin of its own, whose policy
allows inline scripts.
"""

import json
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Frame,
    FrameLocator,
    Locator,
    Page,
    Request,
    expect,
)

from tests.support import npm
from tests.support.calls import until
from tests.support.visitor import DESKTOP, REPORTS

HERE = Path(__file__).parent
_SANDBOX_POLICY = (
    "default-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: "
    "data:; img-src 'self' data: blob:; connect-src 'self'; frame-src 'none'; object-src 'none'; "
    "base-uri 'none'"
)
"""The policy of the example host for an App that names no domains."""


def bundled_script() -> str:
    """`host.js` with the packages that it imports."""
    packages = npm.folder_of(npm.EXT_APPS).parents[1]
    bundle = subprocess.run(
        ["esbuild", str(HERE / "host.js"), "--bundle", "--format=iife", "--log-level=error"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PATH": npm.path_with(npm.ESBUILD), "NODE_PATH": str(packages)},
    )
    return bundle.stdout


@contextmanager
def _serving(files: dict[str, tuple[str, str]], **headers: str) -> Iterator[str]:
    """The origin of a site with these files: their types and contents, by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, text = files.get(self.path, ("", ""))
            self.send_response(200 if kind else 404)
            for name, value in {"Content-Type": f"{kind}; charset=utf-8", **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Sites:
    """The origins of the host and of the sandbox."""

    def __init__(self, host: str, sandbox: str) -> None:
        self.host = host
        self.sandbox = sandbox


@contextmanager
def sites(script: str) -> Iterator[Sites]:
    """The host's page and the sandbox, each on a port of its own."""
    page = {
        "/": ("text/html", (HERE / "host.html").read_text()),
        "/host.js": ("text/javascript", script),
        "/favicon.ico": ("image/x-icon", ""),
    }
    sandbox = {"/": ("text/html", (HERE / "sandbox.html").read_text())}
    with _serving(page) as host, _serving(sandbox, Content_Security_Policy=_SANDBOX_POLICY) as own:
        yield Sites(host, own)


class AppHost:
    """A chat with one App. `problems` are what an App must not do, and errors."""

    def __init__(self, page: Page, where: Sites) -> None:
        self.page = page
        self.problems: list[str] = []
        self._sandbox = f"{where.sandbox}/"
        page.context.on("request", self._requested)
        page.context.on("page", lambda other: self.problems.append(f"opened {other.url}"))
        page.on("framenavigated", self._navigated)
        page.on("dialog", self._asked)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("download", lambda found: self.problems.append(f"downloaded {found.url}"))

    async def call(self, tool: str, *, theme: str = "light", **arguments: Any) -> dict[str, Any]:
        """Calls the tool as for a model; returns its result, once a new App shows it."""
        result: dict[str, Any] = await self.page.evaluate(
            "([...given]) => host.call(...given)", [tool, arguments, self._sandbox, theme]
        )
        await expect(self.app.locator("#message")).not_to_have_text("Waiting for a result.")
        return result

    async def show(self, tool: str, result: dict[str, Any]) -> None:
        """Shows this result in a new App, as if the tool had returned it."""
        await self.page.evaluate(
            "([...given]) => host.show(...given)", [tool, result, self._sandbox]
        )
        await expect(self.app.locator("#message")).not_to_have_text("Waiting for a result.")

    @property
    def app(self) -> FrameLocator:
        return self.page.frame_locator("#app").frame_locator("iframe")

    async def evaluate(self, expression: str) -> Any:
        """The value of the expression in the App, which its policy does not concern."""
        root = await self.app.locator(":root").element_handle()
        frame = await root.owner_frame()
        assert frame is not None
        return await frame.evaluate(expression)

    @property
    def heading(self) -> Locator:
        return self.app.get_by_role("heading", level=1)

    def button(self, name: str) -> Locator:
        return self.app.get_by_role("button", name=name, exact=True)

    async def said(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the App's messages with this method, in order."""
        said: list[dict[str, Any]] = await self.page.evaluate("host.said")
        return [each["params"] for each in said if each.get("method") == method]

    async def tool_calls(self) -> list[dict[str, Any]]:
        """The calls that the App has made."""
        return await self.said("tools/call")

    async def fits(self) -> None:
        """Waits until the host's frame is as high as what the App shows."""

        async def has_height() -> bool:
            inside = await self.evaluate(
                "Math.ceil(document.documentElement.getBoundingClientRect().height)"
            )
            outside = await self.page.locator("#app").evaluate("(frame) => frame.clientHeight")
            return bool(inside == outside)

        await until(has_height)

    async def overflow(self) -> int:
        """Pixels by which the App is wider than its frame."""
        found: int = await self.evaluate(
            "Math.max(0, document.documentElement.scrollWidth - innerWidth)"
        )
        return found

    async def barriers(self, axe: str) -> list[str]:
        """What axe-core finds in the App."""
        await self.evaluate(axe)
        found: list[dict[str, Any]] = await self.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        )
        return [f"{each['id']}: {json.dumps(each['nodes'])[:600]}" for each in found]

    def _requested(self, request: Request) -> None:
        if request.frame != self.page.main_frame and request.url != self._sandbox:
            self.problems.append(f"the App requested {request.url}")

    def _navigated(self, frame: Frame) -> None:
        if frame != self.page.main_frame and frame.url not in (self._sandbox, "about:blank"):
            self.problems.append(f"the App went to {frame.url}")

    async def _asked(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        # Chromium warns of the sandbox's attributes, which are those of the example host.
        if message.type == "error":
            self.problems.append(f"console: {message.text}")


@asynccontextmanager
async def app_host(
    browser: Browser, where: Sites, server: str, **options: Any
) -> AsyncIterator[AppHost]:
    """A host whose client is connected to the server; `options` are Playwright's for a context."""
    context = await browser.new_context(**{"viewport": DESKTOP} | options)
    await context.add_init_script(REPORTS)
    host = AppHost(await context.new_page(), where)
    await host.page.goto(where.host)
    await host.page.evaluate("(server) => host.connect(server)", server)
    yield host
    await context.close()
