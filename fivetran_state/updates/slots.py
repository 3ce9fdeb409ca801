"""How many members of groups are at work at the same time in this process.

Updates of a single connection do not wait for a slot, and groups leave the last tenth of the account's
calls to them. While such an update is at work, groups also give way: the event loop runs ready tasks one
after the other, so each step of the update would wait for steps of all members.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)

import anyio

from fivetran_state.fivetran import Fivetran
from fivetran_state.updates import calls

CALLS = 7
"""Calls that an update takes, mostly."""
BESIDE_SINGLE = 2
"""Steps of members, and looks for the plan of a group, at a time while a single update is at work."""
AFTERWARDS = 0.5
"""Seconds for which this goes on: the caller is answered, and may ask for the next update. So long, at
most, it begins before an update starts, too."""


class Slots:
    """One per process."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._beginning: deque[asyncio.Future[None]] = deque()
        self._coming_back: deque[asyncio.Future[None]] = deque()
        """They may hold their connection paused, so they go first."""
        self._at_work = 0
        self._at_the_limit = asyncio.Lock()
        self._singles = 0
        self.steps = anyio.CapacityLimiter(math.inf)
        """To be held during a step of a member, or a look for a group's plan."""

    @contextmanager
    def single(self) -> Iterator["Single"]:
        """Within the `with` block, a single update is at work: groups make few steps at a time."""
        self.begin_single()
        try:
            yield Single(self)
        finally:
            self.end_single()

    def expect_single(self) -> None:
        """Give way to a single update that is about to start."""
        self.begin_single()
        self.end_single()

    def begin_single(self) -> None:
        self._singles += 1
        self.steps.total_tokens = BESIDE_SINGLE

    def end_single(self) -> None:
        asyncio.get_running_loop().call_later(AFTERWARDS, self._forget_single)

    def _forget_single(self) -> None:
        self._singles -= 1
        if not self._singles:
            self.steps.total_tokens = math.inf

    @property
    def waiting(self) -> int:
        """Members that wait for a slot."""
        return len(self._beginning) + len(self._coming_back)

    @asynccontextmanager
    async def slot(
        self, fivetran: Fivetran, is_called_off: asyncio.Event, *, has_begun: bool
    ) -> AsyncIterator["Slot"]:
        """Wait for a slot. A member that has not begun waits until there are calls enough for it, too.

        It goes on without either if its group is called off: then it ends without a call.
        """
        slot = Slot(self)
        try:
            if has_begun:
                await slot.take(has_begun=True)
            else:
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(_end_upon, is_called_off, waiting.cancel_scope)
                    await self._begin(slot, fivetran)
                    waiting.cancel_scope.cancel()
            yield slot
        finally:
            slot.give_back()

    async def _begin(self, slot: "Slot", fivetran: Fivetran) -> None:
        await slot.take(has_begun=False)
        self._at_work -= 1  # While it waits, it makes no calls.
        try:
            async with self._at_the_limit:
                await calls.are_enough(fivetran, lambda: (self._at_work + 1) * CALLS)
        finally:
            self._at_work += 1

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

    def step(self) -> AbstractAsyncContextManager[None]:
        """To be held during each step."""
        return self._slots.steps

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


class Single:
    """What an update of a single connection has in place of a slot."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def step(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def given_back(self) -> AsyncIterator[None]:
        """Let groups make all their steps while this update waits."""
        self._slots.end_single()
        try:
            yield
        finally:
            self._slots.begin_single()


async def _end_upon(event: asyncio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
