"""Problems as pages, for callers that prefer HTML: those of the gate and of every check too."""

import json
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivetran_state.http_server.negotiation import prefers_html
from fivetran_state.http_server.page.rendering import HEADERS, Pages
from fivetran_state.http_server.problems import MEDIA_TYPE


class ProblemPages:
    """Renders the problem that a page's address answers. Status and other headers stay."""

    def __init__(self, app: ASGIApp, pages: Pages) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_for_a_page(scope):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def send_page(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                content_type = Headers(raw=message["headers"]).get("content-type", "")
                if content_type.startswith(MEDIA_TYPE):
                    start = message
                    return
            if start is None:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body"):
                await self._send(start, json.loads(body), send)

        await self._app(scope, receive, send_page)

    async def _send(self, start: Message, problem: dict[str, Any], send: Send) -> None:
        content = self._pages.render("problem.html", problem=problem).encode()
        headers = MutableHeaders(scope=start)
        headers.update(HEADERS)
        headers["Content-Type"] = "text/html; charset=utf-8"
        headers["Content-Length"] = str(len(content))
        await send(start)
        await send({"type": "http.response.body", "body": content})


def _is_for_a_page(scope: Scope) -> bool:
    if scope["type"] != "http":
        return False
    path: str = scope["path"]
    is_page = path == "/" or path == "/page" or path.startswith("/page/")
    return is_page and prefers_html(Headers(scope=scope))
