"""Middleware for every request, as plain ASGI, so that streams stay streams.

From the outside in: `RequestLog` (an id, a log line, headers, no bare 500), `HostCheck` (Host and
Origin), the gate (`gate.py`), `WholeBody`.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Collection
from contextlib import AsyncExitStack
from weakref import WeakValueDictionary

import anyio
from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivetran_state import large, logs, state, tracing
from fivetran_state.config import is_loopback
from fivetran_state.errors import InternalError
from fivetran_state.http_server.authority import principal_of
from fivetran_state.http_server.gate import LINKED
from fivetran_state.http_server.metrics import Metrics
from fivetran_state.http_server.negotiation import prefers_html
from fivetran_state.http_server.origins import ELSEWHERE, PORTS, is_same, parsed
from fivetran_state.http_server.problems import problem
from fivetran_state.http_server.sign_in import to_sign_in

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
MAX_BODY_BYTES = DEFAULT_MAX_REQUEST_BODY_SIZE
LARGE_AT_ONCE = 2
"""The most large bodies in memory: one is read while that of another principal is worked on."""
BODY_TIMEOUT = 30.0
MAX_LOGGED_PATH = 200
MAX_METHOD_LENGTH = 20

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""Default headers of every answer."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


class RequestLog:
    """Gives each request its id and its span, and each answer its headers and its log line; counts them."""

    def __init__(self, app: ASGIApp, quiet: Collection[str], metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in self._quiet:
            await self._serve(scope, receive, send)
        else:
            with tracing.request(Headers(scope=scope).get("traceparent")):
                await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        id_ = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        began = time.perf_counter()
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers[REQUEST_ID] = id_
            await send(message)

        token = logs.request_id.set(id_)
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            logger.exception("A request met an unexpected error")
            if status is not None:
                raise  # The answer has begun, so it can only be broken off.
            answer = problem(500, InternalError.code, "Unexpected error.", InternalError.hint)
            await answer(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - began
            self._log(scope, status, seconds)
            self._metrics.on_request(scope, status, seconds)
            tracing.answered(*self._metrics.named(scope), status)
            logs.request_id.reset(token)

    def _log(self, scope: Scope, status: int | None, seconds: float) -> None:
        method, path = scope["method"][:MAX_METHOD_LENGTH], scope["path"][:MAX_LOGGED_PATH]
        logger.log(
            logging.DEBUG if path in self._quiet else logging.INFO,
            "%s %s %s",
            method,
            path,
            status or "was broken off",
            extra={
                "method": method,
                "path": path,
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "principal": principal_of(scope),
            },
        )


class HostCheck:
    """Refuses requests that a page of another site makes a browser send.

    Host must be a name of this machine or one of `names` (with a port, or for any port). A page
    must come from this server, with the same port, or from one of `pages`. Origin says where it
    comes from; if a browser sends no Origin, Sec-Fetch-Site does. An Origin that matches `origins`
    is allowed too. Public paths are open to all pages.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Collection[str],
        pages: Collection[str],
        public: Collection[str],
        origins: re.Pattern[str] | None = None,
    ) -> None:
        self._app = app
        self._origins = origins
        self._names = {known for name in names if (known := parsed(name)) is not None}
        self._pages = {known for name in pages if (known := parsed(name)) is not None}
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            headers = Headers(scope=scope)
            if not self._is_ours(headers.get("host", "")):
                answer = problem(
                    421,
                    "foreign_host",
                    "The Host header does not name this server.",
                    "Use a name of this server. The operator can add names with "
                    "FIVETRAN_STATE_PUBLIC_URL or FIVETRAN_STATE_ALLOWED_HOSTS.",
                )
                await answer(scope, receive, send)
                return
            if not self._may_come_from_there(headers, scope):
                answer = self._foreign(headers, scope)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _foreign(self, headers: Headers, scope: Scope) -> Response:
        if _is_followed(headers, scope) and prefers_html(headers):
            return to_sign_in(scope)  # From there, the user may go on.
        return problem(
            403,
            "foreign_origin",
            "Pages from this origin may not call this server.",
            "The operator can add the value of the Origin header to "
            "FIVETRAN_STATE_ALLOWED_ORIGINS.",
        )

    def _may_come_from_there(self, headers: Headers, scope: Scope) -> bool:
        origin = headers.get("origin")
        if origin is not None and self._is_page_that_may(origin):
            return True
        if headers.get("sec-fetch-site") in ELSEWHERE:
            # Any page may link to the documentation, and to the page to sign in.
            return _is_followed(headers, scope) and scope["path"] in LINKED
        return origin is None or is_same(origin, headers.get("host", ""))

    def _is_page_that_may(self, origin: str) -> bool:
        if self._origins is not None and self._origins.fullmatch(origin):
            return True
        scheme, _, netloc = origin.partition("://")
        page = parsed(netloc)
        if scheme not in PORTS or page is None:
            return False
        name, port = page
        return (name, None) in self._pages or (name, port or PORTS[scheme]) in self._pages

    def _is_ours(self, netloc: str) -> bool:
        server = parsed(netloc)
        if server is None:
            return False
        name, _ = server
        return is_loopback(name) or server in self._names or (name, None) in self._names


def _is_followed(headers: Headers, scope: Scope) -> bool:
    """True if the user follows a link on a page elsewhere."""
    is_document = headers.get("sec-fetch-dest") == "document" and scope["method"] == "GET"
    return is_document and "origin" not in headers


class _Refused(Exception):
    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer


class WholeBody:
    """Reads the whole body before anything else happens, within limits of size and time.

    Only a few large bodies are in memory at the same time, one of each principal. The others wait,
    unread, until a turn ends (`large.turn`). If the client disconnects, the partial body is dropped.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)
        self._turns_of: WeakValueDictionary[str | None, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with AsyncExitStack() as stack:
            try:
                body = await self._read(scope, receive, stack)
            except _Refused as refused:
                await refused.answer(scope, receive, send)
                return
            if body is None:
                return
            messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
            del body  # The app has the body; do not keep a second reference.

            async def replay() -> Message:
                return messages.pop() if messages else await receive()

            await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive, stack: AsyncExitStack) -> bytes | None:
        """The body; None if the client has disconnected."""
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            raise _Refused(_too_large())
        chunks: list[bytes] = []
        size, has_turn = 0, False
        deadline = anyio.current_time() + BODY_TIMEOUT
        while True:
            message: Message | None = None
            with anyio.move_on_at(deadline):
                message = await receive()
            if message is None:
                raise _Refused(_too_slow())
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            chunks.append(chunk)
            if size > MAX_BODY_BYTES:
                raise _Refused(_too_large())
            if size > large.LARGE_TEXT and not has_turn:
                own = self._turns_of.setdefault(principal_of(scope), asyncio.Semaphore(1))
                await stack.enter_async_context(large.turn(own, self._turns))
                has_turn = True
                deadline = anyio.current_time() + BODY_TIMEOUT
            if not message.get("more_body"):
                break
        body = b"".join(chunks)
        if has_turn and await large.run(state.has_too_many_values, body):
            raise _Refused(_too_many_values())
        return body


def _too_large() -> Response:
    return problem(
        413,
        "body_too_large",
        f"The request's body has more than {MAX_BODY_BYTES} bytes.",
        "Send a patch instead of a whole state.",
    )


def _too_many_values() -> Response:
    return problem(
        413,
        "body_too_large",
        f"The request's body has more than {state.MAX_VALUES:,} values.",
        "Send a patch instead of a whole state.",
    )


def _too_slow() -> Response:
    return problem(
        408,
        "body_too_slow",
        f"The request's body did not arrive within {BODY_TIMEOUT:g} s.",
        "Send it again.",
        {"Connection": "close"},
    )
