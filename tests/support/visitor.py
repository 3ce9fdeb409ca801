"""A visitor of the page with a real browser, who notes whatever must not happen."""

import json
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
REPORTS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""
"""What a window says when its policy has stopped something."""


class Visitor:
    """One window. `problems` are requests to elsewhere, dialogs, errors and reports of the policy."""

    def __init__(self, context: BrowserContext, page: Page, url: str) -> None:
        self.context = context
        self.page = page
        self.problems: list[str] = []
        self._url = url
        self._site = urlsplit(url).netloc
        context.on("request", self._requested)
        context.on("page", lambda other: self.problems.append(f"opened {other.url}"))
        page.on("dialog", self._asked)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("download", lambda found: self.problems.append(f"downloaded {found.url}"))

    async def go(self, path: str) -> int:
        """The status of the page at this address."""
        answer = await self.page.goto(f"{self._url}{path}")
        assert answer is not None
        return answer.status

    @property
    def path(self) -> str:
        """Where the window is now."""
        return self.page.url.removeprefix(self._url)

    async def barriers(self, axe: str) -> list[str]:
        """What axe-core finds. The debugger runs it, so the page's policy stays in force."""
        await self.page.evaluate(axe)
        found: list[dict[str, Any]] = await self.page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        )
        return [
            f"{each['id']} ({each['help']}): {json.dumps([node['html'] for node in each['nodes']])[:600]}"
            for each in found
        ]

    async def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        found: int = await self.page.evaluate(
            "Math.max(0, document.documentElement.scrollWidth - innerWidth)"
        )
        return found

    def _requested(self, request: Request) -> None:
        if urlsplit(request.url).netloc != self._site:
            self.problems.append(f"requested {request.url}")

    async def _asked(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")


async def visitor(browser: Browser, url: str, **options: Any) -> Visitor:
    """A visitor without cookies; `options` are Playwright's for a context."""
    context = await browser.new_context(**{"viewport": DESKTOP} | options)
    await context.add_init_script(REPORTS)
    return Visitor(context, await context.new_page(), url)
