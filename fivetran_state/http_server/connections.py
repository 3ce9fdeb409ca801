"""Limits on callers' connections: their number, and their idle time.

The process has a limited number of file descriptors, and an update in flight needs some of them, so
callers get half. When these are used up, the connection that has been silent for longest is closed.
"""

import asyncio
import errno
import logging
import socket
import sys
import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if sys.platform != "win32":
    import resource

logger = logging.getLogger(__name__)

HEAD_TIMEOUT = 10.0
"""Seconds for the head of a request, from the start of the connection or from its first byte."""
MAX_CONNECTIONS = 5_000
BETWEEN_WARNINGS = 60.0
"""Seconds before the same problem is logged again."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Warnings:
    """Logs many equal warnings as one line."""

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
    """uvicorn's protocol with limits on idle time and on the number of connections."""

    _warnings = Warnings()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_is_due: asyncio.TimerHandle | None = None
        self.silent_since = self.loop.time()

    @property
    def is_silent(self) -> bool:
        """True while no request is served."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._warnings.warn(
                "More than %d connections are open: closing those that have been "
                "silent for longest",
                most_connections(),
            )
            _make_room(self.connections, newest=self)
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
            self._head_is_due = self.loop.call_later(HEAD_TIMEOUT, self.transport.close)

    def _expect_no_head(self) -> None:
        if self._head_is_due is not None:
            self._head_is_due.cancel()
            self._head_is_due = None


def _make_room(connections: set[Any], newest: BoundedProtocol | None = None) -> None:
    """Close the connection that has been silent for longest; the newest, if all others are busy."""
    silent = [
        each
        for each in connections
        if isinstance(each, BoundedProtocol) and each.is_silent and each is not newest
    ]
    closed = min(silent, key=lambda each: each.silent_since, default=newest)
    if closed is not None:
        connections.discard(closed)
        closed.transport.abort()


class Listener(socket.socket):
    """A listening socket that accepts waiting connections in small portions.

    asyncio would accept all of them before `BoundedProtocol` can close any. If that takes the last
    descriptor, asyncio tries again thousands of times.
    """

    def __init__(self, bound: socket.socket, connections: set[Any]) -> None:
        """Replaces `bound`; `connections` are uvicorn's open connections."""
        super().__init__(fileno=bound.detach())
        self._connections = connections
        self._warnings = Warnings()
        self._taken = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises `BlockingIOError`, as if no connection were waiting, until the event loop's next
        turn."""
        if self._taken >= max(1, most_connections() // 16):
            raise BlockingIOError
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._warnings.warn("Connections cannot be accepted: %s", error)
            _make_room(self._connections)
            raise BlockingIOError from error
        if not self._taken:
            asyncio.get_running_loop().call_soon(self._begin_anew)
        self._taken += 1
        return accepted

    def _begin_anew(self) -> None:
        self._taken = 0
