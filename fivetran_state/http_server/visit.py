"""One open request, for as long as its token is valid."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Send

BETWEEN_LOOKS = 5.0
"""Seconds between two checks of an open request's token."""
GOODBYE_TIMEOUT = 1.0
"""Seconds for the app to notice the disconnect after the token has ended."""


class Visit:
    """One request, from when its token was found valid until the request or the token ends."""

    def __init__(self, receive: Receive, send: Send, look: Callable[[], Awaitable[bool]]) -> None:
        self._receive = receive
        self._send = send
        self._look = look
        self._receiving: set[anyio.CancelScope] = set()
        self._is_stream = False
        self.on_stream: Callable[[], None] = lambda: None
        self.is_welcome = True
        self.has_begun = False

    async def watch(self, serving: anyio.CancelScope) -> None:
        """End the request soon after its token ends."""
        while True:
            await asyncio.sleep(BETWEEN_LOOKS)
            if not await self._is_still_welcome():
                break
        await asyncio.sleep(GOODBYE_TIMEOUT)
        serving.cancel()

    async def receive(self) -> Message:
        if self.is_welcome:
            with anyio.CancelScope() as receiving:
                self._receiving.add(receiving)
                try:
                    return await self._receive()
                finally:
                    self._receiving.discard(receiving)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not await self._is_still_welcome():
                return
            self.has_begun = True
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            self._is_stream = content_type.startswith("text/event-stream")
            if self._is_stream:
                self.on_stream()
        elif not self.has_begun:
            return
        elif self._is_stream and not await self._is_still_welcome():
            message = {**message, "body": b""}
        await self._send(message)

    async def _is_still_welcome(self) -> bool:
        self.is_welcome = self.is_welcome and await self._look()
        if not self.is_welcome:
            for receiving in self._receiving:
                receiving.cancel()
        return self.is_welcome
