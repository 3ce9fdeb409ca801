"""What every request passes, whatever it asks for, as plain ASGI, so that streams stay streams.

From the outside in: `Traced` (an id, a line in the log, headers, no bare 500), `Addressed` (Host
and Origin), the gate (`gate.py`), `BodyLimit`.
"""

import logging
import re
import time
import uuid
from collections.abc import Collection
from urllib.parse import urlsplit

from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE, RequestBodyLimitMiddleware
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivetran_state import logs
from fivetran_state.config import is_loopback
from fivetran_state.errors import InternalError
from fivetran_state.http_server.gate import principal_of
from fivetran_state.http_server.problems import problem

logger = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
LARGEST_BODY = DEFAULT_MAX_REQUEST_BODY_SIZE
LONGEST_LOGGED_PATH = 200
LONGEST_METHOD = 20

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""On every answer that does not say otherwise itself."""

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Traced:
    """Gives each request its id, and each answer its headers and its line in the log."""

    def __init__(self, app: ASGIApp, quiet: Collection[str]) -> None:
        self._app = app
        self._quiet = quiet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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
                raise  # The answer has begun: all that is left is to break it off.
            answer = problem(500, InternalError.code, "Unexpected error.", InternalError.hint)
            await answer(scope, receive, send_with_headers)
        finally:
            self._log(scope, status, time.perf_counter() - began)
            logs.request_id.reset(token)

    def _log(self, scope: Scope, status: int | None, seconds: float) -> None:
        method, path = scope["method"][:LONGEST_METHOD], scope["path"][:LONGEST_LOGGED_PATH]
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


class Addressed:
    """Refuses what a page of another site makes a browser send here.

    Host has to be a name of this server: of this machine, or one of `names` (with a port, or for
    any). Origin, if there is one, has to be of such a host, or match `origins`. Public paths are for
    anybody.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Collection[str],
        public: Collection[str],
        origins: re.Pattern[str] | None = None,
    ) -> None:
        self._app = app
        self._origins = origins
        self._names = {parsed for name in names if (parsed := _parsed(name)) is not None}
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            headers = Headers(scope=scope)
            if not self._is_ours(headers.get("host", "")):
                answer = problem(
                    421,
                    "foreign_host",
                    "The Host header is no name of this server.",
                    "Use its own name; the operator adds names by FIVETRAN_STATE_PUBLIC_URL or "
                    "FIVETRAN_STATE_ALLOWED_HOSTS.",
                )
                await answer(scope, receive, send)
                return
            origin = headers.get("origin")
            if origin is not None and not self._is_page_of_ours(origin):
                answer = problem(
                    403,
                    "foreign_origin",
                    "Pages of that origin may not call this server.",
                    "The operator adds it to FIVETRAN_STATE_ALLOWED_ORIGINS, as the Origin header has it.",
                )
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_page_of_ours(self, origin: str) -> bool:
        if self._origins is not None and self._origins.fullmatch(origin):
            return True
        scheme, _, netloc = origin.partition("://")
        return scheme in ("http", "https") and self._is_ours(netloc)

    def _is_ours(self, netloc: str) -> bool:
        parsed = _parsed(netloc)
        if parsed is None:
            return False
        name, _ = parsed
        return is_loopback(name) or parsed in self._names or (name, None) in self._names


class BodyLimit:
    """The SDK's limit for every route, with an answer like our others.

    Half a body, of a client that has gone, gets no further.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_passed = has_gone = False

        async def receive_watching() -> Message:
            nonlocal has_gone
            message = await receive()
            has_gone = message["type"] == "http.disconnect"
            return message

        async def enter(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal has_passed
            has_passed = True
            if not has_gone:
                await self._app(scope, receive, send)

        async def send_unless_refused(message: Message) -> None:
            if has_passed:
                await send(message)

        limited = RequestBodyLimitMiddleware(enter, LARGEST_BODY)
        await limited(scope, receive_watching, send_unless_refused)
        if not has_passed:
            answer = problem(
                413,
                "body_too_large",
                f"The request's body has more than {LARGEST_BODY} bytes.",
                "Send a patch instead of a whole state.",
            )
            await answer(scope, receive, send)


def _parsed(netloc: str) -> tuple[str, int | None] | None:
    """Host and port, if it is nothing but these."""
    try:
        parts = urlsplit(f"//{netloc}")
        port = parts.port
    except ValueError:
        return None
    if parts.netloc != netloc or "@" in netloc or not parts.hostname:
        return None
    return parts.hostname, port
