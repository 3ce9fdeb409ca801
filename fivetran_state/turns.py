"""Turns: of one caller's requests only a few are worked on at a time, so that other callers' are too.

The event loop runs whatever is ready in a row: three hundred requests that come together would be
three hundred steps of others between any two steps of one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

AT_ONCE = 4
LONGEST = 2.0
"""Seconds: a request that takes longer waits for something, and lets others go on."""


class Turn:
    """A request's place among those of its caller that are worked on."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    async def take(self) -> None:
        """Wait for a place, unless the request is over."""
        if not self._is_over and self._timer is None:
            await self._places.acquire()
            self._timer = asyncio.get_running_loop().call_later(LONGEST, self.leave)

    def leave(self) -> None:
        """Let another request have the place."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._places.release()

    def end(self) -> None:
        """The request is over: it takes no place any more, whatever still runs in its name."""
        self._is_over = True
        self.leave()


_mine: ContextVar[Turn | None] = ContextVar("turn", default=None)


@asynccontextmanager
async def turn(places: asyncio.Semaphore) -> AsyncIterator[Turn]:
    """Wait for one of the places and hold it, but for `waiting`."""
    mine = Turn(places)
    token = _mine.set(mine)
    try:
        await mine.take()
        yield mine
    finally:
        _mine.reset(token)
        mine.end()


@asynccontextmanager
async def waiting() -> AsyncIterator[None]:
    """Around what only waits: others are worked on, and afterwards the request waits its turn."""
    mine = _mine.get()
    if mine is None:
        yield
        return
    mine.leave()
    yield
    await mine.take()
