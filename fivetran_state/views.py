"""What the surfaces return, made of what the database and Fivetran know."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from fivetran_state import state, updates
from fivetran_state.errors import Cancelled, FivetranStateError
from fivetran_state.fivetran import Connection
from fivetran_state.models import (
    Change,
    ConnectionSummary,
    Failure,
    OutlineEntry,
    StepView,
    Update,
    WorkflowSummary,
    WorkflowView,
)
from fivetran_state.text import shown
from fivetran_state.workflow import STARTED, Outcome

LONGEST_REASON = 500


@dataclass(frozen=True)
class Task:
    """An update, for somebody who comes back for its answer.

    `answer` is what `update_state` would answer now: an error where it would raise one.
    `kept_ms` counts from `created_at`; None while the update runs, or if it is kept for ever.
    """

    workflow_id: str
    answer: Update | FivetranStateError
    message: str
    created_at: str
    updated_at: str
    kept_ms: int | None


def connection(found: Connection) -> ConnectionSummary:
    return ConnectionSummary(
        id=found.id,
        name=found.schema,
        service=found.service,
        keeps_state=found.keeps_state,
        paused=found.paused,
        sync_state=found.sync_state,
    )


def outline(value: state.JsonValue, path: str, max_bytes: int) -> list[OutlineEntry]:
    return [
        OutlineEntry(
            path=entry.path,
            type=entry.type,
            bytes=entry.bytes,
            items=entry.items,
            preview=entry.preview,
        )
        for entry in state.outline(value, path, max_bytes)
    ]


def _fields(update: updates.Update) -> dict[str, Any]:
    """The fields of `models.Update`."""
    fields: dict[str, Any] = {
        "connection_id": update.request["connection_id"],
        "workflow_id": update.workflow_id,
    }
    if update.outcome is not None:
        return fields | {
            "status": update.outcome["outcome"],
            "message": _ended_well(update.outcome),
            "version_before": update.outcome["version_before"],
            "version_after": update.outcome["version_after"],
            "changes": [Change(**change) for change in update.outcome["changes"]],
            "changes_total": update.outcome["changes_total"],
            "was_paused": update.outcome["was_paused"],
        }
    if update.error is not None:
        return fields | {
            "status": failed(update.error),
            "message": update.error.message,
            "was_paused": update.error.details.get("was_paused"),
            "still_paused": bool(update.error.details.get("still_paused")),
        }
    progress = update.progress or STARTED
    return fields | {
        "status": "running",
        "message": progress["message"]
        + " Follow it with workflow_status; it goes on by itself, even if this server stops.",
        "phase": progress["phase"],
        "was_paused": progress["was_paused"] if update.progress else None,
        "still_paused": progress["still_paused"],
    }


def update(found: updates.Update) -> Update:
    """How far it is, or how it ended."""
    return Update(**_fields(found))


def answer(update: updates.Update) -> Update | FivetranStateError:
    """What `update_state` answers, or raises."""
    if update.error is not None:
        update.error.details.setdefault("workflow_id", update.workflow_id)
        return update.error
    return Update(**_fields(update))


def workflow(update: updates.Update, steps: Sequence[updates.Step]) -> WorkflowView:
    """All that is known about it."""
    # The database's own times may have a resolution of a second; the steps' are finer.
    started = next((step.started_at for step in steps), None) or update.created_at
    ended = None if update.status == "running" else update.completed_at
    if ended is not None:
        ended = max(step.completed_at or 0 for step in steps) if steps else ended
    return WorkflowView(
        **_fields(update),
        steps=[_step(step) for step in steps],
        reason=_reason(update),
        started_at=_time(started),
        ended_at=None if ended is None else _time(ended),
        error=None if update.error is None else failure(update.error),
    )


def task(update: updates.Update, steps: Sequence[updates.Step], retention_days: float) -> Task:
    """For somebody who comes back for its answer; kept that long after its end, 0: for ever."""
    answered = answer(update)
    # The database's own times may have a resolution of a second; the steps' are finer.
    times = [update.created_at, *(step.completed_at or 0 for step in steps)]
    kept_ms = None
    if update.status == "running":
        message = (update.progress or STARTED)["message"]
    else:
        message = answered.message
        ended_at = update.completed_at or times[-1]
        times.append(ended_at)
        if retention_days:
            kept = timedelta(days=retention_days) // timedelta(milliseconds=1)
            kept_ms = ended_at - update.created_at + kept
    return Task(
        workflow_id=update.workflow_id,
        answer=answered,
        message=message,
        created_at=_time(update.created_at),
        updated_at=_time(max(times)),
        kept_ms=kept_ms,
    )


def summary(update: updates.Update) -> WorkflowSummary:
    view = _fields(update)
    return WorkflowSummary(
        workflow_id=update.workflow_id,
        status=view["status"],
        change=update.request["source"] or update.request["change_kind"],
        reason=_reason(update),
        version_before=view.get("version_before"),
        version_after=view.get("version_after"),
        changes_total=view.get("changes_total"),
        error=None if update.error is None else update.error.code,
        started_at=_time(update.created_at),
    )


def _reason(update: updates.Update) -> str | None:
    reason = update.request["reason"]
    return None if reason is None else shown(reason, LONGEST_REASON)


def _ended_well(outcome: Outcome) -> str:
    if outcome["deleted"]:
        now = "The connection has been deleted since."
    elif outcome["was_paused"]:
        now = "The connection is paused, as it was before."
    else:
        now = "The connection is running."
    if outcome["outcome"] == "unchanged":
        return f"The state was already as wanted; nothing was written. {now}"
    return f"The new state was written and read back from Fivetran. {now}"


def _step(step: updates.Step) -> StepView:
    seconds = None
    if step.started_at is not None and step.completed_at is not None:
        seconds = round((step.completed_at - step.started_at) / 1000, 3)
    return StepView(
        name=step.name,
        started_at=None if step.started_at is None else _time(step.started_at),
        seconds=seconds,
        error=None if step.error is None else step.error.code,
    )


def failed(error: FivetranStateError) -> str:
    """The status of what has ended by this error."""
    return "cancelled" if isinstance(error, Cancelled) else "failed"


def failure(error: FivetranStateError) -> Failure:
    return Failure(code=error.code, message=error.message, hint=error.hint)


def _time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
