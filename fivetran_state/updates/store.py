"""Reads: one update, a connection's, a group's."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dbos import StepInfo, WorkflowStatus

from fivetran_state import phases
from fivetran_state.errors import (
    FivetranStateError,
    InternalError,
    Tampered,
    UnusableKey,
    UpdateInProgress,
    WorkflowNotFound,
)
from fivetran_state.ids import UpdateId
from fivetran_state.text import shown
from fivetran_state.updates import binding, records, statuses
from fivetran_state.updates.ends import End, failed
from fivetran_state.updates.reader import READ_BATCH, Reader
from fivetran_state.updates.records import (
    GROUP,
    OUTSIDE,
    PENDING,
    PROPOSAL,
    GroupRequest,
    Progress,
    Snapshot,
    Step,
    Update,
    UpdateRequest,
)
from fivetran_state.updates.series import RECENT, Series
from fivetran_state.updates.signals import VERDICT, Signal

_AT_ONCE = 500
"""Ids in one look-up."""


class Store:
    """Reads the updates of one account."""

    def __init__(self, reader: Reader, series: Series, application: str) -> None:
        self._reader = reader
        self.series = series
        self._application = application

    async def status(self, workflow_id: str) -> WorkflowStatus | None:
        rows = await self._reader.find(
            workflow_ids=[workflow_id], load_input=True, load_output=True
        )
        return rows[0] if rows else None

    async def bare_status(self, workflow_id: str) -> WorkflowStatus | None:
        """The workflow's status without its input and output."""
        rows = await self._reader.find(workflow_ids=[workflow_id])
        return rows[0] if rows else None

    async def latest(self, owner: str, *, load_input: bool = True) -> WorkflowStatus | None:
        recent = await self.recent(owner)
        if not recent or not load_input:
            return recent[0] if recent else None
        return await self.status(recent[0].workflow_id)

    async def recent(self, owner: str) -> list[WorkflowStatus]:
        """The owner's last updates, newest first, without input and output."""
        rows = await self.series.newest(owner)
        # A row without an application belongs to every one.
        ours = [
            row
            for row in rows
            if row.name == records.NAME and row.application_name in (self._application, None)
        ]
        return ours[:RECENT]

    async def get(self, workflow_id: str) -> Update:
        """One update of this account; raises `WorkflowNotFound`."""
        status = await self.status(workflow_id)
        if status is None or status.name != records.NAME or not self.is_ours(status):
            raise WorkflowNotFound(f"There is no update {workflow_id!r}.")
        request = statuses.request(
            status
        )  # Raises if an older version still runs it: its input cannot be opened.
        if status.status in records.ENDED_FROM_OUTSIDE:
            latest = await self.latest(UpdateId.parse(workflow_id).owner, load_input=False)
            is_latest = latest is not None and latest.workflow_id == workflow_id
        else:
            is_latest = True
        progress = await self.progress(workflow_id) if statuses.is_running(status) else None
        return statuses.update(status, progress, request, is_latest=is_latest)

    async def group_request(self, workflow_id: str) -> list[UpdateRequest] | GroupRequest:
        """What was asked of a group; 0.1 stored its members alone. Raises `WorkflowNotFound`."""
        status = await self.status(workflow_id)
        if status is None or status.name != GROUP or not self.is_ours(status):
            raise WorkflowNotFound(f"There is no update '{shown(workflow_id)}'.")
        asked: list[UpdateRequest] | GroupRequest = statuses.input_of(status)
        return asked

    def connections_of(self, workflow_id: str) -> list[str]:
        """The connections of a group or a proposal; empty if its row was deleted. It blocks."""
        rows = self._reader.find_now(workflow_ids=[workflow_id], load_input=True)
        with suppress(Tampered, UnusableKey):
            return [request["connection_id"] for row in rows for request in _requests_in(row)]
        return []

    async def is_running(self, workflow_id: str) -> bool:
        """True if the workflow exists and has not ended."""
        row = await self.bare_status(workflow_id)
        return row is not None and statuses.is_running(row)

    async def running(self, owner: str) -> str | None:
        """The id of the connection's update that has not ended."""
        latest = await self.latest(owner, load_input=False)
        return latest.workflow_id if latest is not None and statuses.is_running(latest) else None

    async def steps(self, workflow_id: str) -> list[Step]:
        """The update's checkpoints so far, in order; its own sleeps and events are left out."""
        found = await self._reader.steps(workflow_id)
        return [
            Step(
                name=step["function_name"],
                started_at=step["started_at_epoch_ms"],
                completed_at=step["completed_at_epoch_ms"],
                error=statuses.step_error(workflow_id, step),
            )
            for step in found
            if step["function_name"] in phases.STEPS
        ]

    async def paused_since(self, update: Update) -> float:
        """The end of the update's first pause, in seconds since the epoch.

        If that is not recorded, its outcome is unclear: then the start of the update.
        """
        steps = await self.steps(update.workflow_id)
        ends = [step.completed_at for step in steps if step.name == "pause" and step.completed_at]
        return min(ends, default=update.created_at) / 1000

    def is_run_by(self, executor_id: str, workflow_id: str) -> bool:
        """True if the row names this executor. It blocks.

        DBOS's own look-up would be recorded as a step.
        """
        rows = self._reader.find_now(workflow_ids=[workflow_id])
        return any(row.executor_id == executor_id and row.status == PENDING for row in rows)

    async def is_cancelled(self, *workflow_ids: str) -> list[bool | str]:
        """Of each, true if a caller has cancelled it; `OUTSIDE` if it was ended or deleted in the
        database."""
        rows = await self._reader.find(workflow_ids=list(workflow_ids))
        found = {row.workflow_id: statuses.is_cancelled(row) for row in rows}
        return [found.get(each, OUTSIDE) for each in workflow_ids]

    async def parts_of(self, workflow_id: str, owners: Mapping[str, str]) -> dict[str, str]:
        """Connection → the id of its update in the group, for those that have started."""
        ids = await asyncio.to_thread(self._reader.children, workflow_id)
        by_owner = {UpdateId.parse(id_).owner: id_ for id_ in ids}
        return {id_: by_owner[owner] for id_, owner in owners.items() if owner in by_owner}

    async def unfinished(self, workflow_ids: Sequence[str]) -> list[str]:
        """Those that exist and have not ended, in their order."""
        found: set[str] = set()
        for at in range(0, len(workflow_ids), _AT_ONCE):
            rows = await self._reader.find(
                workflow_ids=list(workflow_ids[at : at + _AT_ONCE]), status=records.UNFINISHED
            )
            found |= {row.workflow_id for row in rows}
        return [each for each in workflow_ids if each in found]

    async def ends_of(self, workflow_ids: Sequence[str]) -> list[End]:
        """How these updates of a group have ended, in their order."""
        found: dict[str, WorkflowStatus] = {}
        for at in range(0, len(workflow_ids), READ_BATCH):
            rows = await self._reader.find(
                workflow_ids=list(workflow_ids[at : at + READ_BATCH]), load_output=True
            )
            found |= {row.workflow_id: row for row in rows}
        return [_end_of(workflow_id, found.get(workflow_id)) for workflow_id in workflow_ids]

    async def error_of(self, workflow_id: str) -> FivetranStateError | None:
        """The error of an update that failed."""
        rows = await self._reader.find(workflow_ids=[workflow_id], load_output=True)
        return statuses.error(rows[0]) if rows else None

    async def decision(self, workflow_id: str) -> Signal | None:
        """What the group has decided about its members' changes, if it has."""
        found = await self._reader.event(workflow_id, VERDICT)
        if found is not None:
            return Signal(binding.opened(found, binding.event_of(workflow_id, VERDICT)))
        return None

    async def running_group(self, prefix: str) -> str | None:
        """The id of the running group whose id begins so."""
        rows = await asyncio.to_thread(self._reader.with_status, records.UNFINISHED)
        ids = [id_ for id_, name, *_ in rows if name == GROUP and id_.startswith(prefix)]
        return max(ids, default=None)

    async def which_exist(self, workflow_ids: Sequence[str]) -> set[str]:
        """Those of the ids that a workflow has, of whatever account."""
        return {row.workflow_id for row in await self._reader.find(workflow_ids=list(workflow_ids))}

    async def state_before(self, update: Update) -> str:
        """The state that the update found, as exact JSON text; raises `WorkflowNotFound`."""
        workflow_id, outcome = update.workflow_id, update.outcome
        before: Snapshot | None = None
        for step in await self._reader.steps(workflow_id):
            before = statuses.snapshot_in(workflow_id, step) or before
            if before is not None and (
                statuses.may_have_written(workflow_id, step)
                if outcome is None
                else before["version"] == outcome["version_before"]
            ):
                break  # A later look may see this write itself.
        if before is None:
            raise WorkflowNotFound(f"{workflow_id} ended before it had read the state.")
        return before["state"]

    async def may_have_written(self, workflow_id: str) -> bool:
        """True if the update wrote the state, or may have."""
        found = await self._reader.steps(workflow_id, load_output=False)
        return any(statuses.may_have_written(workflow_id, step) for step in found)

    async def progress(self, workflow_id: str) -> Progress | None:
        """The update's progress: its last event, or the step that was recorded after that."""
        event = await self._reader.event(workflow_id, records.PROGRESS)
        steps = await self._reader.steps(workflow_id, load_output=False)
        place = binding.event_of(workflow_id, records.PROGRESS)
        told: Progress | None = None if event is None else binding.opened(event, place)
        # The start of a sync is told by nothing; the resume before it is the last progress.
        named = (s for s in reversed(steps) if s["function_name"] != "sync")
        last = next((s for s in named if s["function_name"] in phases.STEPS), None)
        if (
            last is None
            or last["error"] is not None
            or last["function_name"] not in phases.AFTER
            or _told_after(told, steps, last)
        ):
            return told
        phase, message = phases.AFTER[last["function_name"]]
        return Progress(
            phase=phase,
            message=message,
            # The pause of a running connection is told before it.
            was_paused=told["was_paused"] if told else True,
            still_paused=bool(told and told["still_paused"] and last["function_name"] != "resume"),
        )

    async def latest_number(self, owner: str) -> int:
        """The number of the latest update; raises `UpdateInProgress` if it has not ended."""
        latest = await self.latest(owner, load_input=False)
        if latest is None:
            return 0
        if statuses.is_running(latest):
            raise in_progress(latest)
        return statuses.number(latest.workflow_id)

    def is_ours(self, status: WorkflowStatus) -> bool:
        return status.application_name == self._application


def _requests_in(row: WorkflowStatus) -> list[UpdateRequest]:
    """What a group or a proposal was asked to change."""
    asked = statuses.input_of(row)
    if row.name != PROPOSAL:
        return records.members_of(asked)
    change = asked["change"]
    return records.members_of(change) if "members" in change else [change]


def _end_of(workflow_id: str, row: WorkflowStatus | None) -> End:
    connection_id = UpdateId.parse(workflow_id).connection_id
    try:
        outcome = None if row is None else statuses.outcome(row)
        error = None if row is None else statuses.error(row)
    except FivetranStateError as unreadable:
        return failed(connection_id, workflow_id, unreadable)
    if outcome is None:
        gone = InternalError("Somebody has ended or deleted it in the database.")
        return failed(connection_id, workflow_id, error or gone)
    return End(
        connection_id=connection_id, workflow_id=workflow_id, how=outcome["outcome"], message=None
    )


def in_progress(latest: WorkflowStatus) -> UpdateInProgress:
    return UpdateInProgress(
        f"Update {latest.workflow_id} of this connection has not ended.",
        workflow_id=latest.workflow_id,
    )


def _told_after(told: Progress | None, steps: list[StepInfo], last: StepInfo) -> bool:
    """True if the progress event is newer than the step. DBOS records the event as a step too."""
    return told is not None and any(
        step["function_name"] == "DBOS.setEvent" and step["function_id"] > last["function_id"]
        for step in steps
    )
