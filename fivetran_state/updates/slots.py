"""How many members of groups are at work at the same time in this process.

Updates of a single connection do not wait for a slot, and groups leave the last tenth of the account's
calls to them.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fivetran_state.fivetran import Fivetran, RateLimit

CALLS = 7
"""Calls that an update takes, mostly."""
_HOUR = 3600.0
_FIRST_PAUSE = 1.0
_LONGER = 1.25
"""By this factor, each pause is longer than the one before: so calls are noticed late only by a fraction
of the time that they were waited for, however long that was."""
_SHARE = 0.01
"""The share of the account's calls an hour that looks at the limit may take."""


class Slots:
    """One per process."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._beginning: deque[asyncio.Future[None]] = deque()
        self._coming_back: deque[asyncio.Future[None]] = deque()
        """They may hold their connection paused, so they go first."""
        self._at_work = 0
        self._at_the_limit = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Members that wait for a slot."""
        return len(self._beginning) + len(self._coming_back)

    @asynccontextmanager
    async def slot(self, fivetran: Fivetran, *, has_begun: bool) -> AsyncIterator["Slot"]:
        """Wait for a slot. A member that has not begun waits until there are calls enough for it, too."""
        slot = Slot(self)
        await slot.take(has_begun=has_begun)
        try:
            if not has_begun:
                async with self._at_the_limit:
                    await self._wait_for_calls(fivetran)
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

    async def _wait_for_calls(self, fivetran: Fivetran) -> None:
        """Wait while beginning would take the last tenth of the account's calls.

        Every answer tells how many calls are left. If there is none for a while, ask: that is a call too.
        """
        pause = _FIRST_PAUSE
        while (limit := fivetran.limit) is not None and not self._is_enough(limit):
            await fivetran.hear_of_limit(max(pause, limit.renewed_in))
            if fivetran.limit is not limit or self._is_enough(limit):
                continue
            if not await fivetran.accepts_key():
                return  # The member's own call says so.
            longest = _HOUR / max(limit.limit * _SHARE, 1)
            pause = min(pause * _LONGER, max(longest, _FIRST_PAUSE))

    def _is_enough(self, limit: RateLimit) -> bool:
        return (limit.remaining - self._at_work * CALLS) * 10 >= limit.limit


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
