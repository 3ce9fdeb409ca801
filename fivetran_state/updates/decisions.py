"""What groups have decided, for their members in this process."""

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from dbos import WorkflowStatus

from fivetran_state.errors import DatabaseUnavailable, Undone
from fivetran_state.updates import binding, statuses
from fivetran_state.updates.records import CANCEL, ENDED_FROM_OUTSIDE, GROUP, OUTSIDE
from fivetran_state.updates.refusals import called_off
from fivetran_state.updates.running import Running
from fivetran_state.updates.signals import Signal
from fivetran_state.updates.store import Store

_POLL_SECONDS = 0.25


class Decisions:
    """One per process. A group has up to a thousand members here: one task polls for all of them."""

    def __init__(self, store: Store, running: Running) -> None:
        self._store = store
        self._running = running
        self._members: defaultdict[str, set[str]] = defaultdict(set)
        self._looking: dict[str, asyncio.Task[Signal]] = {}
        self._called_off: dict[str, str] = {}
        """Group → why."""
        self._is_called_off: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @contextmanager
    def member(self, group: str, workflow_id: str) -> Iterator[asyncio.Event]:
        """Look at the group while one of its members runs here; the event tells that it is called off."""
        self._members[group].add(workflow_id)
        if group not in self._looking:
            # Not in the context of this workflow, which would record what the look sends.
            start = partial(asyncio.ensure_future, self._look(group))
            self._looking[group] = contextvars.Context().run(start)
        try:
            yield self._is_called_off[group]
        finally:
            self._members[group].remove(workflow_id)
            if not self._members[group]:
                del self._members[group], self._is_called_off[group]
                self._looking.pop(group).cancel()
                self._called_off.pop(group, None)

    async def of(self, group: str) -> Signal:
        """Wait for the group's decision. A group that has ended without one is undone."""
        return await asyncio.shield(self._looking[group])

    def check(self, group: str | None) -> None:
        """Raise `Cancelled` or `Undone` if the group is known to be called off. None: there is no group."""
        if group in self._called_off:
            raise called_off(self._called_off[group])

    async def _look(self, group: str) -> Signal:
        while True:
            try:
                row = await self._store.bare_status(group)
                # After the row: it decides before it ends.
                decision = await self._store.decision(group)
            except DatabaseUnavailable:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if decision is None and (row is None or not statuses.is_running(row)):
                decision = Signal.UNDO
            why = _called_off_because(row, decision)
            if group not in self._called_off and why is not None:
                self._called_off[group] = why
                self._is_called_off[group].set()
                for workflow_id in self._members[group] & self._running.asleep:
                    await binding.send(workflow_id, why, CANCEL)
            if decision is not None:
                return decision
            await asyncio.sleep(_POLL_SECONDS)


def _called_off_because(row: WorkflowStatus | None, decision: Signal | None) -> str | None:
    """Why this group goes no further, as `refusals.called_off` takes it; None: it may go on."""
    if row is not None:
        cancel = statuses.is_cancelled(row)
        if cancel == OUTSIDE or row.status in ENDED_FROM_OUTSIDE:
            return OUTSIDE
        if cancel:
            return GROUP
    return Undone.code if decision == Signal.UNDO else None
