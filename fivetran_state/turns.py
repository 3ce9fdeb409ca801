"""Turns: the server works on only a few requests of one caller at a time, so that others have theirs.

The event loop runs ready tasks one after the other. With three hundred requests of one caller, each
step of another caller's request would wait for three hundred steps.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

AT_ONCE = 4
LONGEST = 2.0
"""Seconds. A request that takes longer is waiting for something, and leaves its place."""


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
        """End the turn for good, even if tasks of the request still run."""
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
    """Leave the place while the request only waits; afterwards wait for a place again."""
    mine = _mine.get()
    if mine is None:
        yield
        return
    mine.leave()
    yield
    await mine.take()
