"""This process's right to change something for an update, proved before each changing call."""

import asyncio
import logging
import time
import uuid
from contextlib import suppress
from typing import Literal

from dbos import error as dbos_error

from fivetran_state import dbos_internals
from fivetran_state.config import Settings
from fivetran_state.errors import DatabaseUnavailable, InvalidRequest, Tampered, UnusableKey
from fivetran_state.events import Event, Events, Name
from fivetran_state.ids import UpdateId
from fivetran_state.runtime.locks import AdvisoryLocks, Locks
from fivetran_state.updates.notices import Notices, is_notice
from fivetran_state.updates.records import RELEASED
from fivetran_state.updates.store import Store
from fivetran_state.watch.look import is_look

logger = logging.getLogger(__name__)

RETRY = 2.0
MAX_ASKING_PAUSE = 30.0
"""Seconds, at most, until a process asks again whether its own key is accepted."""
MAX_GIVEN_UP_PAUSE = 300.0
"""Seconds, at most, until a process tries an update again that it has given up. Every try is recorded, and
reads what was recorded before."""


class Refusals:
    """How often Fivetran has refused this process's keys, and when it may be asked again."""

    def __init__(self) -> None:
        self._of_own_key = 0
        """In a row."""
        self._ask_again_at = 0.0
        self._given_up: dict[str, tuple[int, float]] = {}
        """How often this process gave an update up, and when it may try again."""

    @property
    def is_own_key_refused(self) -> bool:
        return self._of_own_key > 0

    def may_ask(self) -> bool:
        return time.monotonic() >= self._ask_again_at

    def note(self) -> None:
        self._of_own_key += 1
        self._ask_again_at = time.monotonic() + _pause(self._of_own_key, MAX_ASKING_PAUSE)

    def end(self) -> None:
        """Fivetran accepts the key of this process's own account again."""
        self._of_own_key = 0

    def give_up(self, workflow_id: str) -> None:
        times, _ = self._given_up.get(workflow_id, (0, 0.0))
        not_before = time.monotonic() + _pause(times, MAX_GIVEN_UP_PAUSE)
        self._given_up[workflow_id] = times + 1, not_before

    def has_given_up(self, workflow_id: str) -> bool:
        return workflow_id in self._given_up

    def may_try(self, workflow_id: str) -> bool:
        _, not_before = self._given_up.get(workflow_id, (0, 0.0))
        return time.monotonic() >= not_before


class Lease:
    """The updates that this executor may run: `updates.runtime.Lease`."""

    def __init__(
        self,
        executor_id: str,
        settings: Settings,
        locks: Locks,
        store: Store,
        notices: Notices,
        refusals: Refusals,
        looks: str,
        events: Events,
    ) -> None:
        """`looks`: the series of the watcher's looks that see what this process may see."""
        self.executor_id = executor_id
        self._settings = settings
        self._locks = locks
        self._store = store
        self._notices = notices
        self._refusals = refusals
        self._looks = looks
        self._events = events
        self._is_over = False

    def end(self) -> None:
        """Change nothing any more: another process takes the updates over."""
        self._is_over = True

    def may_change(self, workflow_id: str) -> bool:
        """True if the settings let this process go on with the update, or with the whole group or
        proposal."""
        settings = self._settings
        if is_look(workflow_id):
            return workflow_id.startswith(f"{self._looks}:")
        if is_notice(workflow_id):
            return self._notices.is_wanted and self._may_see_notice(workflow_id)
        if not is_update(workflow_id):
            return True
        if settings.read_only:
            return False
        if settings.allowed_connections == "*":
            return True
        try:
            return settings.allows(UpdateId.parse(workflow_id).connection_id)
        except InvalidRequest:  # This is the id of a group or a proposal.
            return all(map(settings.allows, self._store.connections_of(workflow_id)))

    def _may_see_notice(self, workflow_id: str) -> bool:
        if self._settings.allowed_connections == "*":
            return True
        with suppress(Tampered, UnusableKey):
            return all(map(self._settings.allows, self._notices.connections_of(workflow_id)))
        return False

    async def prove(self, workflow_id: str) -> None:
        """Prove before each change that this process still owns the workflow.

        While the lock was lost another process may have recovered the workflow. Raises DBOS's own
        exception for that, upon which DBOS waits for the other's outcome.
        """
        if self._is_over:
            raise asyncio.CancelledError
        while True:
            with suppress(DatabaseUnavailable):
                standing = await asyncio.to_thread(self._standing, workflow_id)
                break
            await asyncio.sleep(RETRY)
        match standing:
            case "not allowed":
                # DBOS has started it here, because somebody put it into DBOS's queue.
                logger.warning("Leaving %s to others: this server may not change it", workflow_id)
                await _leave_to_others(workflow_id)
                raise asyncio.CancelledError
            case "another's":
                logger.error("Another process has taken over %s: this one stops", workflow_id)
                raise dbos_error.DBOSWorkflowConflictIDError(workflow_id)

    def _standing(self, workflow_id: str) -> Literal["ours", "another's", "not allowed"]:
        """Whether this process may change something for the workflow. A lost lock is taken again first.

        It blocks. Raises `DatabaseUnavailable`.
        """
        if not self.may_change(workflow_id):
            return "not allowed"
        if not self._locks.is_held():
            self.take_lock_again()
        if isinstance(self._locks, AdvisoryLocks) and not self._store.is_run_by(
            self.executor_id, workflow_id
        ):
            return "another's"
        return "ours"

    def take_lock_again(self) -> None:
        logger.error("The lock of executor %s was lost: taking it again", self.executor_id)
        self._locks.hold(self.executor_id)

    async def release(self, workflow_id: str) -> None:
        """Release the update to any process with an accepted key; later also to this one."""
        self._refusals.give_up(workflow_id)
        self._events.record(Event(Name.GIVEN_UP, workflow_id=workflow_id))
        logger.warning("Giving %s up: Fivetran refuses the API key", workflow_id)
        if not is_guests(workflow_id):
            self._refusals.note()
        await _leave_to_others(workflow_id)


def is_guests(workflow_id: str) -> bool:
    """True if the update belongs to a guest's account and brings its own credentials."""
    return "/" in workflow_id


def is_update(workflow_id: str) -> bool:
    return not workflow_id.startswith("key:")


def _pause(times: int, longest: float) -> float:
    return min(2.0 ** min(times, 10), longest)


async def _leave_to_others(workflow_id: str) -> None:
    """Give the row to an executor that does not exist, so that any process may take it over."""
    to = f"{RELEASED}-{uuid.uuid4().hex}"
    await asyncio.to_thread(dbos_internals.release, workflow_id, to)
