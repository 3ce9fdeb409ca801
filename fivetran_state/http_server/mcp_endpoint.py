"""The SDK's endpoint, corrected where a client would not get a whole answer (mcp 2.3)."""

from collections import OrderedDict, defaultdict

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import principal_components
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivetran_state.mcp_server.messages import answer_in

MAX_SESSIONS = 200
"""Maximum number of sessions per principal, in the older protocols; one more ends the least
recently used. Some clients never end theirs."""


class WholeAnswers:
    """Makes sure that every answer that has begun ends, and ends once.

    A legacy client may delete its session while another of its requests is being handed over. The
    SDK then breaks off that request's stream, or answers a notification twice. The SDK would not
    answer a request to resume a stream, so a new stream is opened instead: nothing is stored, and
    no event has an id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = has_ended = False

        async def send_once(message: Message) -> None:
            nonlocal has_begun, has_ended
            if has_ended:
                return
            has_begun = True
            has_ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        headers = [each for each in scope["headers"] if each[0] != b"last-event-id"]
        if scope["method"] == "POST":
            receive = await _with_usable_answer(receive)
        try:
            await self._app({**scope, "headers": headers}, receive, send_once)
        except anyio.ClosedResourceError:
            if not has_ended:
                raise
        if has_begun and not has_ended:
            await send({"type": "http.response.body"})


class FewSessions:
    """Keeps only the latest sessions of each principal."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._sessions: defaultdict[object, OrderedDict[str, None]] = defaultdict(OrderedDict)

    def count(self) -> int:
        """The number of open sessions."""
        return sum(map(len, list(self._sessions.values())))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = scope.get("user")
        principal = (
            principal_components(user.access_token) if isinstance(user, AuthenticatedUser) else None
        )
        given = Headers(scope=scope).get(MCP_SESSION_ID_HEADER)
        if given is not None and given in self._sessions[principal]:
            self._sessions[principal].move_to_end(given)
            if scope["method"] == "DELETE":
                del self._sessions[principal][given]

        async def send_noting(message: Message) -> None:
            if given is None and message["type"] == "http.response.start":
                opened = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                if opened is not None and message["status"] < 400:
                    self._sessions[principal][opened] = None
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            while len(self._sessions[principal]) > MAX_SESSIONS:
                oldest, _ = self._sessions[principal].popitem(last=False)
                await self._end(oldest, scope)
            if not self._sessions[principal]:
                del self._sessions[principal]

    async def _end(self, session: str, scope: Scope) -> None:
        """End the session as its client would."""
        header = (MCP_SESSION_ID_HEADER.encode(), session.encode())

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            pass

        await self._app({**scope, "method": "DELETE", "headers": [header]}, receive, send)


async def _with_usable_answer(receive: Receive) -> Receive:
    """The same body, or an error in place of an answer that the SDK would ignore."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    answer = answer_in(b"".join(message.get("body", b"") for message in messages))
    if answer is not None:
        messages = [{"type": "http.request", "body": answer.model_dump_json().encode()}]

    async def replay() -> Message:
        return messages.pop(0) if messages else await receive()

    return replay
