"""The SDK's endpoint, mended where it leaves a client without a whole answer (mcp 2.3)."""

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class WholeAnswers:
    """Every answer that begins ends, and only one is given.

    A legacy client may delete its session while another of its requests is being handed over: the
    SDK then breaks that one's stream off, or answers a notification once more. A stream that is to
    be resumed it would not answer at all, so it is begun anew: nothing is stored, no event has an
    id.
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
        try:
            await self._app({**scope, "headers": headers}, receive, send_once)
        except anyio.ClosedResourceError:
            if not has_ended:
                raise
        if has_begun and not has_ended:
            await send({"type": "http.response.body"})
