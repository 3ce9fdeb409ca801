"""Connections of callers: how many there may be, and how long one may say nothing.

The process has only so many descriptors, and an update in flight needs some of them: callers get
half. When these are used up, whoever has been silent for longest makes room.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if sys.platform != "win32":
    import resource

logger = logging.getLogger(__name__)

LONGEST_HEAD_SECONDS = 10.0
"""Until the head of a request has come, from the connection or from its first byte on."""
MAX_CONNECTIONS = 5_000
BETWEEN_WARNINGS = 60.0
"""Seconds after which the same trouble is logged again."""


class Warnings:
    """One line for many times the same."""

    def __init__(self) -> None:
        self._not_before = 0.0

    def warn(self, message: str, *values: object) -> None:
        now = time.monotonic()
        if now >= self._not_before:
            self._not_before = now + BETWEEN_WARNINGS
            logger.warning(message, *values)


def most_connections() -> int:
    """Half of the files that the process may open."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(soft // 2, MAX_CONNECTIONS)


class BoundedProtocol(H11Protocol):
    """uvicorn's, with a limit to silence and to numbers."""

    _warnings = Warnings()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_is_due: asyncio.TimerHandle | None = None
        self.silent_since = self.loop.time()

    @property
    def is_silent(self) -> bool:
        """Whether no request is being served."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._make_room()
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_no_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_silent:
            self._expect_head()
        super().data_received(data)
        if not self.is_silent:
            self._expect_no_head()

    def on_response_complete(self) -> None:
        self.silent_since = self.loop.time()
        super().on_response_complete()

    def _expect_head(self) -> None:
        if self._head_is_due is None:
            self._head_is_due = self.loop.call_later(LONGEST_HEAD_SECONDS, self.transport.close)

    def _expect_no_head(self) -> None:
        if self._head_is_due is not None:
            self._head_is_due.cancel()
            self._head_is_due = None

    def _make_room(self) -> None:
        """Close the connection that has been silent for longest: this one, if all others are busy."""
        silent = [
            each
            for each in self.connections
            if isinstance(each, BoundedProtocol) and each.is_silent and each is not self
        ]
        closed = min(silent, key=lambda each: each.silent_since, default=self)
        self._warnings.warn(
            "More than %d connections are open: the most silent ones are closed",
            most_connections(),
        )
        self.connections.discard(closed)
        closed.transport.abort()


@contextmanager
def few_words_about_accepting() -> Iterator[None]:
    """While it lasts, asyncio logs accepts that fail for want of descriptors once, and not each."""
    loop = asyncio.get_running_loop()
    before, warnings = loop.get_exception_handler(), Warnings()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "socket.accept()" in str(context.get("message")):
            warnings.warn("Connections cannot be accepted: %s", context.get("exception"))
        elif before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)
