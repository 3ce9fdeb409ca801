"""Finds what people elsewhere have to know, in every process that has an address for notices.

Each process looks for itself, whoever proposed the change or ran the update: that process may have no
address, or may have died. The notices decide among themselves which process starts one.
"""

import asyncio
import logging
import time

from fivetran_state.config import Settings
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    MissingCredentials,
    Tampered,
    UnusableKey,
    WorkflowNotFound,
)
from fivetran_state.ids import UpdateId
from fivetran_state.runtime.accounts import Accounts
from fivetran_state.updates.records import Update
from fivetran_state.updates.updates import Updates

logger = logging.getLogger(__name__)

INTERVAL = 2.0
PAUSES_INTERVAL = 60.0
"""Seconds, at most, between two looks for paused connections: these read much."""
_STILL_TRIES = (
    "The update has not ended, and resumes the connection when it does. Read with workflow_status what "
    "it waits for; cancel_update ends it if it has not written yet."
)
_HAS_GIVEN_UP = (
    "The update has ended without resuming the connection. Read with workflow_status what kept it from "
    "that, correct it, and resume the connection with fivetran-state resume, or in Fivetran: it does not "
    "sync before that."
)


class Announcer:
    """One per process."""

    def __init__(self, settings: Settings, accounts: Accounts, updates: Updates) -> None:
        self._settings = settings
        self._accounts = accounts
        self._updates = updates
        self._told: set[str] = set()
        """The waiting proposals that this process need not look at again."""
        self._settled: set[str] = set()
        """The same of updates."""
        self._limit = settings.alert_minutes * 60

    async def watch(self) -> None:
        """Look again and again. Returns at once if the process has no address for notices."""
        look_for_pauses_at = 0.0
        while self._updates.notices.is_wanted:
            try:
                await self.look_for_proposals()
                if self._limit and time.monotonic() >= look_for_pauses_at:
                    await self.look_for_pauses()
                    look_for_pauses_at = time.monotonic() + min(self._limit / 4, PAUSES_INTERVAL)
            except FivetranStateError as error:
                logger.warning("Looking for what to tell: %s", error)
            except Exception:
                logger.exception("Looking for what to tell failed; trying again")
            await asyncio.sleep(INTERVAL)

    async def look_for_proposals(self) -> None:
        """Tell of each proposal that waits, and that nobody was told of."""
        proposals = self._updates.proposals
        waiting = set(await proposals.waiting_ids())
        if not waiting <= self._told:
            for each in await proposals.waiting():
                may_see = all(map(self._settings.allows, each.connection_ids))
                if each.workflow_id not in self._told and may_see:
                    await self._updates.notices.tell_of_proposal(each.workflow_id, each.asked)
        self._told = waiting

    async def look_for_pauses(self) -> None:
        """Tell of each connection that an update has held paused for too long."""
        paused = (await self._updates.unfinished.left_paused()).values()
        self._settled &= set(paused)
        for workflow_id in paused:
            is_allowed = self._settings.allows(UpdateId.parse(workflow_id).connection_id)
            if is_allowed and workflow_id not in self._settled:
                try:
                    await self._look_at(workflow_id)
                except (Tampered, UnusableKey, WorkflowNotFound) as error:
                    logger.warning("Passing %s over: %s", workflow_id, error)
                    self._settled.add(workflow_id)

    async def _look_at(self, workflow_id: str) -> None:
        """Tell of the update if it has held its connection paused for too long."""
        update = await self._updates.store.get(workflow_id)
        since = await self._updates.store.paused_since(update)
        if time.time() - since < self._limit:
            return
        if await self._is_paused(update):
            hint = _STILL_TRIES if update.status == "running" else _HAS_GIVEN_UP
            await self._updates.notices.tell_of_pause(workflow_id, since, hint)
        elif update.status == "running":
            return  # It may pause the connection again.
        self._settled.add(workflow_id)

    async def _is_paused(self, update: Update) -> bool:
        """True unless Fivetran says that somebody has resumed or deleted the connection."""
        try:
            async with self._accounts.client_for(update.request, update.workflow_id) as fivetran:
                return (await fivetran.get_connection(update.request["connection_id"])).paused
        except ConnectionNotFound:
            return False
        except (FivetranError, MissingCredentials):
            return True
