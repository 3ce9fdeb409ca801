"""Figures of what runs, waits and is paused now, for `/metrics`."""

import asyncio
import time
from dataclasses import dataclass

from fivetran_state.errors import MissingCredentials
from fivetran_state.fivetran_answers import RateLimit
from fivetran_state.runtime.engine import Engine
from fivetran_state.runtime.launch import Launched
from fivetran_state.service.unfinished import left_paused
from fivetran_state.updates.proposal import NAME as PROPOSAL
from fivetran_state.updates.records import GROUP, NAME

ASK_AGAIN = 60.0
"""Seconds, at least, between two looks for connections that ended updates have left paused: each asks
Fivetran."""


@dataclass(frozen=True)
class Now:
    """Figures of the whole account, except for `members_waiting`."""

    updates_running: int
    groups_running: int
    proposals_waiting: int
    members_waiting: int
    """Members of groups that wait for a slot in this process."""
    paused: int
    """Connections that running updates hold paused, or may do so."""
    paused_seconds: float
    """How long the first of them has been paused; 0 if there is none."""
    left_paused: int
    """Connections that ended updates have left paused; also where Fivetran does not answer."""
    watcher_lag: float | None
    """Seconds since the last complete look began; None if this process does not watch."""
    limit: RateLimit | None
    """Fivetran's, as its last answer to this process said."""


class Gauges:
    """One per process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._left_paused = 0
        self._look_again_at = 0.0

    async def now(self) -> Now:
        """Read the database, and at most once a minute ask Fivetran for what was left paused."""
        launched = await self._engine.up()
        unfinished = launched.updates.unfinished
        rows = await asyncio.to_thread(unfinished.rows)
        names = [row.name for row in rows]
        updates = [row.workflow_id for row in rows if row.name == NAME]
        since = (await asyncio.to_thread(unfinished.paused_since, updates)).values()
        if time.monotonic() >= self._look_again_at:
            self._look_again_at = time.monotonic() + ASK_AGAIN
            self._left_paused = len(await left_paused(launched, is_ended=True))
        return Now(
            updates_running=len(updates),
            groups_running=names.count(GROUP),
            proposals_waiting=names.count(PROPOSAL),
            members_waiting=launched.updates.runtime.slots.waiting,
            paused=len(since),
            paused_seconds=max((time.time() - each / 1000 for each in since), default=0.0),
            left_paused=self._left_paused,
            watcher_lag=await self._engine.watcher_lag(),
            limit=_limit(launched),
        )


def _limit(launched: Launched) -> RateLimit | None:
    try:
        return launched.accounts.own().fivetran.limit
    except MissingCredentials:
        return None
