"""Starts one look after the other, of which one runs in all processes that share the database.

The workflow id is `watch:{scope}:{n}`. Every process that watches starts the next number when it is due,
and the database's primary key decides which one runs it. If that process dies, recovery in any other
one goes on with the look.
"""

import asyncio
import logging
import math
import time

from dbos import DBOS, SetWorkflowID, WorkflowHandleAsync, WorkflowStatus
from dbos import error as dbos_error

from fivetran_state import database
from fivetran_state.config import Settings
from fivetran_state.errors import FivetranStateError, InternalError
from fivetran_state.fivetran import Fivetran
from fivetran_state.updates import binding, statuses
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.series import Series, number
from fivetran_state.vault import Bound
from fivetran_state.watch.look import NAME, PAGE, Looked, LookWorkflow

logger = logging.getLogger(__name__)

PASSED_OVER_AFTER = 7200.0
"""Seconds after which the next look does not wait for one that runs: its process may be suspended."""
SECONDS_AN_HOUR = 3600.0
_POLL_SECONDS = 0.2


class Watcher:
    """One per process."""

    def __init__(
        self,
        series: Series,
        reader: Reader,
        fivetran: Fivetran | None,
        settings: Settings,
        workflow: LookWorkflow,
        series_name: str,
    ) -> None:
        self._series = series
        self._reader = reader
        self._settings = settings
        self._fivetran = fivetran
        self._workflow = workflow
        self._series_name = series_name

    async def watch(self, interval: float) -> None:
        """Look every `interval` seconds, in turn with the other processes; never returns.

        Without an API key of its own, the process has no connections to look at.
        """
        if self._fivetran is None:
            return
        await self._log_cost(self._fivetran, interval)
        while True:
            wait = interval
            try:
                wait = await self._look_if_due(interval)
            except FivetranStateError as error:
                logger.warning("Watching: %s", error)
            except Exception:
                logger.exception("Watching failed; trying again")
            await asyncio.sleep(min(max(wait, 1.0), interval))

    async def looked_at(self) -> float | None:
        """When the last look that succeeded began, in seconds since the epoch."""
        begun = [statuses.created_at(row) for row in await self._rows() if statuses.succeeded(row)]
        return max(begun) / 1000 if begun else None

    async def look(self) -> Looked:
        """Look once, or wait for the look that runs."""
        rows = await self._rows()
        latest = self._latest(rows)
        if latest is not None and _runs(latest):
            workflow_id = latest.workflow_id
        else:
            workflow_id = await self._start_after(rows)
        handle: WorkflowHandleAsync[Bound] = await DBOS.retrieve_workflow_async(workflow_id)
        try:
            found = await handle.get_result(polling_interval_sec=_POLL_SECONDS)
        except dbos_error.DBOSException as error:
            raise InternalError(f"{workflow_id} ended by {type(error).__name__}.") from error
        looked: Looked = binding.opened(found, binding.output_of(workflow_id))
        return looked

    async def _look_if_due(self, interval: float) -> float:
        """Start the next look if it is time; seconds until the one after that."""
        rows = await self._rows()
        latest = self._latest(rows)
        if latest is not None:
            left = statuses.created_at(latest) / 1000 + interval - time.time()
            if left > 0 or _runs(latest):
                return left if left > 0 else interval
        if self._workflow.is_key_refused and not await self._accepts_key():
            return interval  # Leave the looks to processes whose key Fivetran accepts.
        await self._start_after(rows)
        return interval

    async def _accepts_key(self) -> bool:
        return self._fivetran is not None and await self._fivetran.accepts_key()

    async def _start_after(self, rows: list[WorkflowStatus]) -> str:
        """Start the look after these, or let another process be first; its workflow id.

        The number has to come from the same rows that said that no look runs: otherwise a second look
        could start beside one that another process has started meanwhile.
        """
        await self._delete_old(rows)
        latest = self._latest(rows)
        following = 1 if latest is None else number(latest.workflow_id) + 1
        workflow_id = f"{self._series_name}:{following}"
        await self._series.mark({self._series_name: following})
        try:
            with (
                database.answering(),
                SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"),
            ):
                place = binding.input_of(workflow_id, NAME)
                await DBOS.start_workflow_async(self._workflow.registered, Bound(place, {}))
        except dbos_error.DBOSWorkflowIDInUseError:
            pass
        return workflow_id

    async def _delete_old(self, rows: list[WorkflowStatus]) -> None:
        """Delete the looks that have ended before the last one that succeeded."""
        succeeded = [number(row.workflow_id) for row in rows if statuses.succeeded(row)]
        last = max(succeeded, default=0)
        old = [
            row.workflow_id
            for row in rows
            if number(row.workflow_id) < last and not _is_unfinished(row)
        ]
        if old:
            await self._reader.delete(old)

    async def _rows(self) -> list[WorkflowStatus]:
        rows = await self._series.newest(self._series_name)
        return [row for row in rows if row.name == NAME]

    @staticmethod
    def _latest(rows: list[WorkflowStatus]) -> WorkflowStatus | None:
        return max(rows, key=lambda row: number(row.workflow_id), default=None)

    async def _log_cost(self, fivetran: Fivetran, interval: float) -> None:
        """Log how many of the account's calls an hour the looks take, at least and at most."""
        listed = keeping = 0
        cursor: str | None = None
        try:
            while True:
                page, cursor = await fivetran.list_connections(cursor=cursor, limit=PAGE)
                listed += len(page)
                keeping += sum(each.keeps_state and self._settings.allows(each.id) for each in page)
                if cursor is None:
                    break
        except FivetranStateError as error:
            logger.warning("Watching every %g s, at an unknown cost: %s", interval, error)
            return
        looks = SECONDS_AN_HOUR / interval
        lists = looks * max(1, math.ceil(listed / PAGE))
        limit = fivetran.limit
        logger.info(
            "Watching %d connections that keep a state, every %g s. It costs %.0f calls an hour, "
            "and one for each connection that has synced since the look before: at most %.0f%s",
            keeping,
            interval,
            lists,
            lists + looks * keeping,
            "" if limit is None else f" of the account's {limit.limit}",
        )


def _is_unfinished(row: WorkflowStatus) -> bool:
    return row.status in ("PENDING", "ENQUEUED", "DELAYED")


def _runs(row: WorkflowStatus) -> bool:
    """True if the look has not ended, and may still do so."""
    age = time.time() - statuses.created_at(row) / 1000
    return _is_unfinished(row) and age < PASSED_OVER_AFTER
