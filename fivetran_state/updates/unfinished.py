"""Workflows that have not ended, or that somebody ended in the database.

Most methods block: call them in a thread.
"""

import asyncio
from collections.abc import Mapping, Sequence

from dbos import DBOS, WorkflowStatus, WorkflowStatusString

from fivetran_state.errors import FivetranStateError, LeftPaused
from fivetran_state.ids import UpdateId
from fivetran_state.updates import binding, records, statuses
from fivetran_state.updates.reader import ID_BATCH, READ_BATCH, Reader
from fivetran_state.updates.records import GROUP, PENDING, Unfinished
from fivetran_state.updates.store import Store
from fivetran_state.vault import Bound


class UnfinishedUpdates:
    """The unfinished updates of one account."""

    def __init__(self, reader: Reader, store: Store) -> None:
        self._reader = reader
        self._store = store

    def rows(self) -> list[Unfinished]:
        """This account's workflows that are running, waiting, or were ended in the database."""
        return [Unfinished(*row) for row in self._reader.with_status(records.UNFINISHED)]

    async def ids(self, executor_id: str | None = None) -> list[str]:
        """The ids of running updates: all, or those of one executor and those that wait for any."""
        rows = await asyncio.to_thread(self.rows)
        return [
            row.workflow_id
            for row in rows
            if row.name in (records.NAME, GROUP)
            and (executor_id in (None, row.executor_id) or _waits_for_anybody(row))
            and not (
                row.was_ended_from_outside and await asyncio.to_thread(self.is_superseded, row)
            )
        ]

    def is_superseded(self, row: Unfinished) -> bool:
        """True if the connection has a later update: then this one needs no repair."""
        if row.name != records.NAME:
            return row.name != GROUP
        update = UpdateId.parse(row.workflow_id)
        following = str(UpdateId(update.owner, update.number + 1))
        return bool(self._reader.find_now(workflow_ids=[following]))

    def exists(self, workflow_id: str) -> bool:
        """True if the database has the workflow's row."""
        return bool(self._reader.find_now(workflow_ids=[workflow_id]))

    def is_settled(self, workflow_id: str) -> bool:
        """True if the update is running or ended by itself.

        False if its row is gone or was ended in the database.
        """
        rows = self._reader.find_now(workflow_ids=[workflow_id], load_output=True)
        if not rows:
            return False
        (row,) = rows
        return (
            statuses.is_running(row)
            or isinstance(row.output, Bound)
            or isinstance(row.error, FivetranStateError)
        )

    def note_outside_end(self, workflow_id: str) -> None:
        """Let the update know that its workflow was ended in the database, before it is taken up again."""
        DBOS.update_workflow_attributes(workflow_id, {records.CANCEL: records.OUTSIDE}, merge=True)
        place = binding.message_to(workflow_id, records.CANCEL)
        DBOS.send(workflow_id, Bound(place, records.OUTSIDE), topic=records.CANCEL)
        for part in self._reader.find_now(name=records.NAME, parent_workflow_id=workflow_id):
            if statuses.is_running(part):
                self.note_outside_end(part.workflow_id)

    def paused_since(self, workflow_ids: Sequence[str]) -> dict[str, int]:
        """Those of these running updates that have paused their connection, or may have, and since when.

        Milliseconds since the epoch.
        """
        found: dict[str, int] = {}
        for at in range(0, len(workflow_ids), ID_BATCH):
            for workflow_id, name, ended_at, has_succeeded in self._reader.steps_completed(
                ("pause", "resume"), workflow_ids[at : at + ID_BATCH]
            ):
                if name == "pause":
                    found.setdefault(workflow_id, ended_at)
                elif has_succeeded:
                    found.pop(workflow_id, None)
        return found

    async def left_paused(self, *, is_ended: bool = False) -> dict[str, str]:
        """Owner → workflow id of each latest update that still holds its connection paused.

        It is still trying, unless `is_ended`, has given up (`left_paused`), or was ended by something else.
        """
        running = [] if is_ended else records.UNFINISHED
        wanted = [*running, WorkflowStatusString.ERROR.value]
        rows = await asyncio.to_thread(self._reader.with_status, wanted)
        last: dict[str, int] = {}
        for workflow_id, name, *_ in rows:
            if name == records.NAME:
                update = UpdateId.parse(workflow_id)
                last[update.owner] = max(update.number, last.get(update.owner, 0))
        found: dict[str, str] = {}
        for row in await self._without_following(last):
            owner = UpdateId.parse(row.workflow_id).owner
            if not await self._may_be_paused(row):
                continue
            latest = await self._store.latest(owner, load_input=False)
            if latest is not None and latest.workflow_id == row.workflow_id:
                found[owner] = row.workflow_id
        return found

    async def _without_following(self, numbers: Mapping[str, int]) -> list[WorkflowStatus]:
        """Each owner's update with this number, where no other follows it, with its output."""
        last = [UpdateId(*each) for each in numbers.items()]
        found: list[WorkflowStatus] = []
        for at in range(0, len(last), ID_BATCH):
            some = {
                str(UpdateId(each.owner, each.number + 1)): each for each in last[at:][:ID_BATCH]
            }
            following = await asyncio.to_thread(self._reader.created_at, list(some))
            ids = [str(each) for next_id, each in some.items() if next_id not in following]
            for start in range(0, len(ids), READ_BATCH):
                found += await self._reader.find(
                    workflow_ids=ids[start:][:READ_BATCH], load_output=True
                )
        return found

    async def _may_be_paused(self, row: WorkflowStatus) -> bool:
        """True if the update has recorded a pause of its connection and no resume."""
        if isinstance(row.error, LeftPaused):
            return True
        if isinstance(row.error, FivetranStateError) and "was_paused" in row.error.details:
            return False  # An update that ended by itself has resumed its connection.
        progress = await self._store.progress(row.workflow_id)
        if progress is None or not progress["still_paused"]:
            return False
        recorded = await self._store.steps(row.workflow_id)
        return not any(step.name == "resume" and step.error is None for step in recorded)


def _waits_for_anybody(row: Unfinished) -> bool:
    if row.was_ended_from_outside:
        return False  # Each living process takes its own updates up.
    return row.status != PENDING or row.is_released
