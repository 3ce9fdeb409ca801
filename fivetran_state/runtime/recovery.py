"""Takes over the updates of dead processes, and repairs updates that were ended in the database."""

import asyncio
import logging
import threading
from collections.abc import Container
from functools import partial

from fivetran_state import dbos_internals
from fivetran_state.events import Event, Name
from fivetran_state.fivetran import Fivetran
from fivetran_state.runtime.lease import Lease, Refusals, is_guests, is_update
from fivetran_state.runtime.locks import Locks
from fivetran_state.runtime.migration import Migration
from fivetran_state.updates import records
from fivetran_state.updates.notices import is_notice
from fivetran_state.updates.proposal import NAME as PROPOSAL
from fivetran_state.updates.records import Unfinished
from fivetran_state.updates.updates import Updates
from fivetran_state.watch.look import is_look

logger = logging.getLogger(__name__)

INTERVAL = 2.0
WORKFLOW_VERSION = 2
"""Raise it when an older program cannot go on with the records of this one. This program goes on with
all older records, so it may run beside older programs while they are replaced."""


def versions(application: str) -> list[str]:
    """The application versions whose updates this program can go on with, its own first."""
    return [f"{application}-{number}" for number in range(WORKFLOW_VERSION, 0, -1)]


class Recovery:
    """Looks for updates to take up. Its methods block: call them in threads."""

    def __init__(
        self,
        updates: Updates,
        lease: Lease,
        locks: Locks,
        refusals: Refusals,
        fivetran: Fivetran | None,
        migration: Migration | None,
        loop: asyncio.AbstractEventLoop,
        background: Container[str],
    ) -> None:
        """`migration`: while values of 0.1 are accepted.

        `background`: the looks and notices that run in this process.
        """
        self._updates = updates
        self._unfinished = updates.unfinished
        self._running = updates.runtime.running
        self._versions = versions(updates.runtime.application)
        self._lease = lease
        self._locks = locks
        self._refusals = refusals
        self._fivetran = fivetran
        self.migration = migration
        self._loop = loop
        self._background = background
        self._is_over = False
        self.is_taking_up = False
        self._one_at_a_time = threading.Lock()
        self._stopped_before: set[str] = set()
        self._missing_before: set[str] = set()
        self._superseded: set[str] = set()

    def end(self) -> None:
        """Take nothing up any more."""
        self._is_over = True

    def once(self) -> None:
        """Keep our own lock; take up the updates of dead executors, and our own that have stopped."""
        with self._one_at_a_time:
            if not self._locks.is_held():
                self._lease.take_lock_again()
            by_executor: dict[str | None, list[Unfinished]] = {}
            rows = self.erase_credentials()
            self._break_off_deleted({row.workflow_id for row in rows})
            rows = [
                row
                for row in rows
                if self._may_take_up(row) and self._lease.may_change(row.workflow_id)
            ]
            if not self._may_use_key_for(rows):
                rows = [
                    row for row in rows if is_guests(row.workflow_id) or is_notice(row.workflow_id)
                ]
            for row in rows:
                by_executor.setdefault(row.executor_id, []).append(row)
            mine = by_executor.pop(self._lease.executor_id, [])
            for executor_id, rows in by_executor.items():
                with self._locks.take(executor_id or "unknown") as is_dead:
                    if is_dead:
                        ids = [row.workflow_id for row in rows]
                        logger.warning("Executor %s died: recovering %s", executor_id, ids)
                        for row in rows:
                            self._take_up(row)
            self._take_up_stopped(mine)
            self._settle()

    def left_to_others(self) -> list[str]:
        """The updates of dead processes that this one may not change."""
        found = []
        for row in self._unfinished.rows():
            if self._lease.may_change(row.workflow_id) or not self._may_take_up(row):
                continue
            if _is_background(row.workflow_id) or row.name == PROPOSAL:
                continue  # The next look reads what this one has not, and the others hold nothing.
            if row.executor_id == self._lease.executor_id:
                continue
            with self._locks.take(row.executor_id or "unknown") as is_dead:
                if is_dead:
                    found.append(row.workflow_id)
        return found

    def erase_credentials(self) -> list[Unfinished]:
        """Erase guests' credentials from ended updates; return the unfinished ones."""
        to_erase = self._running.with_credentials
        known = set(to_erase)  # Before the look: one that is added later may be running.
        rows = self._unfinished.rows()
        unfinished = {row.workflow_id for row in rows} - self._superseded
        for workflow_id in known - unfinished:
            group = self._updates.retention.erase_credentials(workflow_id)
            if group is not None:
                to_erase.add(group)
            to_erase.discard(workflow_id)
        return rows

    def find_credentials(self) -> None:
        """Note guests' credentials whose process died before it came to erase them."""
        older = self._versions[1:]
        self._running.with_credentials |= set(self._updates.retention.with_credentials(older))

    def _may_take_up(self, row: Unfinished) -> bool:
        if row.status == records.ENQUEUED:
            # DBOS runs updates of this version itself. Older programs may be gone for good.
            return row.version in self._versions[1:]
        if row.was_ended_from_outside and _is_background(row.workflow_id):
            return False
        if row.was_ended_from_outside:
            return not self._is_superseded(row)
        if row.status != records.PENDING:
            return False
        return row.version in self._versions and self._refusals.may_try(row.workflow_id)

    def _may_use_key_for(self, rows: list[Unfinished]) -> bool:
        """True if Fivetran accepts the key. It is asked only after a refusal, here or elsewhere.

        A process with a refused key must not take updates from processes with a better one.
        """
        was_refused = self._refusals.is_own_key_refused or any(row.is_released for row in rows)
        if not rows or not was_refused or self._fivetran is None:
            return True
        if not self._refusals.may_ask():
            return False
        asking = asyncio.run_coroutine_threadsafe(self._fivetran.accepts_key(), self._loop)
        if asking.result():
            self._refusals.end()
            return True
        self._refusals.note()
        return False

    def _is_superseded(self, row: Unfinished) -> bool:
        if row.workflow_id not in self._superseded and self._unfinished.is_superseded(row):
            self._superseded.add(row.workflow_id)
            if row.name == records.NAME:
                self._running.with_credentials.add(row.workflow_id)
        return row.workflow_id in self._superseded

    def _take_up(self, row: Unfinished) -> None:
        # In this order, `Engine.leave` sees one of the two: an update being taken up, or its row.
        self.is_taking_up = not _is_background(row.workflow_id)
        try:
            if self._is_over:
                return
            if self.migration is not None:
                self.migration.take(row.workflow_id)
            if row.was_ended_from_outside:
                logger.error("%s was ended from outside (%s)", row.workflow_id, row.status)
                self._unfinished.note_outside_end(row.workflow_id)
            self._running.taken_up.add(row.workflow_id)
            is_ours = dbos_internals.claim(
                row.workflow_id,
                executor_id=row.executor_id,
                status=row.status,
                versions=self._versions,
                before_it_runs=partial(self._tell, row.workflow_id),
            )
            if not is_ours:
                self._running.taken_up.discard(row.workflow_id)
        finally:
            self.is_taking_up = False

    def _tell(self, workflow_id: str) -> None:
        if not _is_background(workflow_id) and not workflow_id.startswith(f"{PROPOSAL}:"):
            events = self._updates.runtime.events
            events.record(Event(Name.TAKEN_OVER, workflow_id=workflow_id))

    def _take_up_stopped(self, mine: list[Unfinished]) -> None:
        """Go on with updates that stopped because the database was away, or was changed by hand."""
        for row in mine:
            if row.was_ended_from_outside and row.workflow_id not in self._running.changing:
                self._break_off(row.workflow_id)
        running = dbos_internals.running_here()
        stopped = {
            row.workflow_id: row
            for row in mine
            if is_update(row.workflow_id)
            and row.workflow_id not in self._running.progress
            and row.workflow_id not in self._background
            and row.workflow_id not in running
        }
        # Look twice: an update that was just started is not running yet.
        for workflow_id in stopped.keys() & self._stopped_before:
            logger.warning("Going on with %s", workflow_id)
            self._take_up(stopped.pop(workflow_id))
        self._stopped_before = set(stopped)

    def _break_off_deleted(self, unfinished: set[str]) -> None:
        """End runs whose rows were deleted. Look twice: a run may just be ending."""
        missing = set(self._running.progress) - unfinished
        for workflow_id in missing & self._missing_before:
            if workflow_id not in self._running.changing and not self._unfinished.exists(
                workflow_id
            ):
                self._break_off(workflow_id)
        self._missing_before = missing

    def _break_off(self, workflow_id: str) -> None:
        """Cancel a run that must not go on. It may be asleep for minutes."""
        task = self._running.tasks.get(workflow_id)
        if task is not None:
            self._loop.call_soon_threadsafe(task.cancel)

    def _settle(self) -> None:
        """Resume the connection of a run whose row is gone, or was ended in the database."""
        for workflow_id, request in list(self._running.unsettled.items()):
            is_settled = self._unfinished.is_settled(workflow_id)
            del self._running.unsettled[workflow_id]
            if not is_settled:
                logger.error("%s was ended in the database: resuming its connection", workflow_id)
                mending = self._updates.workflow.mend(workflow_id, request)
                asyncio.run_coroutine_threadsafe(mending, self._loop)


def _is_background(workflow_id: str) -> bool:
    """True if nothing depends on the end of the workflow."""
    return is_look(workflow_id) or is_notice(workflow_id)
