"""How many members of groups are at work at the same time in this process.

Updates of a single connection do not wait for a slot, and groups leave the last tenth of the account's
calls to them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fivetran_state.fivetran import Fivetran
from fivetran_state.updates import calls

CALLS = 7
"""Calls that an update takes, mostly."""


class Slots:
    """One per process."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._beginning: deque[asyncio.Future[None]] = deque()
        self._coming_back: deque[asyncio.Future[None]] = deque()
        """They may hold their connection paused, so they go first."""
        self._at_work = 0
        self._at_the_limit = asyncio.Lock()

    @asynccontextmanager
    async def slot(self, fivetran: Fivetran, *, has_begun: bool) -> AsyncIterator["Slot"]:
        """Wait for a slot. A member that has not begun waits until there are calls enough for it, too."""
        slot = Slot(self)
        await slot.take(has_begun=has_begun)
        try:
            if not has_begun:
                async with self._at_the_limit:
                    await calls.are_enough(fivetran, lambda: self._at_work * CALLS)
            yield slot
        finally:
            slot.give_back()

    async def take(self, *, has_begun: bool) -> None:
        if self._free:
            self._free -= 1
        else:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            (self._coming_back if has_begun else self._beginning).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        self._at_work += 1

    def give_back(self) -> None:
        self._at_work -= 1
        self._pass_on()

    def _pass_on(self) -> None:
        for queue in (self._coming_back, self._beginning):
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1


class Slot:
    """A member's right to be at work."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._is_taken = False

    async def take(self, *, has_begun: bool) -> None:
        await self._slots.take(has_begun=has_begun)
        self._is_taken = True

    def give_back(self) -> None:
        if self._is_taken:
            self._is_taken = False
            self._slots.give_back()

    @asynccontextmanager
    async def given_back(self) -> AsyncIterator[None]:
        """Let others work while this member waits."""
        self.give_back()
        try:
            yield
        finally:
            await self.take(has_begun=True)
