"""The models that surfaces return, made from the database and from Fivetran's answers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Generic, Literal, TypeVar, cast

from fivetran_state import state
from fivetran_state.errors import Cancelled, FivetranStateError
from fivetran_state.fivetran_answers import Connection
from fivetran_state.models import (
    Change,
    ConnectionSummary,
    Failure,
    OutlineEntry,
    Since,
    StepView,
    Update,
    UpdatesView,
    WorkflowSummary,
    WorkflowView,
)
from fivetran_state.text import shown
from fivetran_state.updates import records
from fivetran_state.updates.records import STARTED, Outcome

MAX_REASON_LENGTH = 500
_SET_UP = ("connected", "unknown")
_RUNNING = "The connection is running."


Answer = TypeVar("Answer", Update, UpdatesView)


@dataclass(frozen=True)
class Task(Generic[Answer]):
    """An update, or a group of them, as a task, for a caller who returns for its answer.

    `answer` is the current answer of the tool, or the error that it would raise. `kept_ms` counts from `created_at`; None while the update runs, or if it is kept forever.
    """

    workflow_id: str
    answer: Answer | FivetranStateError
    message: str
    created_at: str
    updated_at: str
    kept_ms: int | None


def facts(found: Connection, group_names: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `models.ConnectionFacts`."""
    name = group_names.get(found.group_id)
    return {
        "name": found.schema,
        "service": found.service,
        "group_id": found.group_id,
        "group_name": None if name == found.group_id else name,
        "paused": found.paused,
        "sync_state": found.sync_state,
        "setup_state": found.setup_state if found.setup_state not in _SET_UP else None,
        "schedule_type": found.schedule_type if found.never_syncs_by_itself else None,
        "is_historical_sync": found.is_historical_sync or None,
    }


def connection(found: Connection, group_names: Mapping[str, str]) -> ConnectionSummary:
    why = None if found.keeps_state else f"The service {found.service} keeps no state."
    return ConnectionSummary(
        id=found.id,
        keeps_state=found.keeps_state,
        unusable_because=why,
        **facts(found, group_names),
    )


def outline_entry(entry: state.OutlineEntry) -> OutlineEntry:
    return OutlineEntry(
        path=entry.path,
        type=entry.type,
        bytes=entry.bytes,
        items=entry.items,
        preview=entry.preview,
    )


def _fields(update: records.Update, steps: Sequence[records.Step] = ()) -> dict[str, Any]:
    """The fields of `models.Update`."""
    fields: dict[str, Any] = {
        "connection_id": update.request["connection_id"],
        "workflow_id": update.workflow_id,
    }
    if update.outcome is not None:
        return fields | {
            "status": update.outcome["outcome"],
            "message": _ended_well(update),
            "version_before": update.outcome["version_before"],
            "version_after": update.outcome["version_after"],
            "changes": [Change(**change) for change in update.outcome["changes"]],
            "changes_total": update.outcome["changes_total"],
            "was_paused": update.outcome["was_paused"],
            "paused_seconds": paused_seconds(steps),
            "kept_numbers": update.outcome.get("kept_numbers"),
        }
    if update.error is not None:
        return fields | {
            "status": failed(update.error),
            "message": _told(update.error),
            "was_paused": update.error.details.get("was_paused"),
            "paused_by_update": is_left_paused(update.error),
            "paused_seconds": paused_seconds(steps),
        }
    progress = update.progress or STARTED
    return fields | {
        "status": "running",
        "message": progress["message"]
        + " Follow it with workflow_status. It goes on by itself, even if this server stops.",
        "phase": progress["phase"],
        "was_paused": progress["was_paused"],
        "paused_by_update": progress["still_paused"],
    }


def is_left_paused(error: FivetranStateError) -> bool:
    # 0.1 stored it by another name.
    return bool(error.details.get("paused_by_update") or error.details.get("still_paused"))


def paused_seconds(steps: Sequence[records.Step]) -> float | None:
    """Seconds from the pause to the resume, by Fivetran's answers; None without both."""
    done = [step for step in steps if step.error is None and step.completed_at is not None]
    paused = [step.completed_at for step in done if step.name == "pause"]
    resumed = [step.completed_at for step in done if step.name == "resume"]
    if not paused or not resumed:
        return None
    return round(((resumed[-1] or 0) - (paused[0] or 0)) / 1000, 3)


def update(found: records.Update, steps: Sequence[records.Step] = ()) -> Update:
    """The update's progress or end."""
    return Update(**_fields(found, steps))


def answer(update: records.Update, steps: Sequence[records.Step] = ()) -> Update:
    """The answer of `update_state`; raises the update's own error."""
    if update.error is not None:
        update.error.details.setdefault("workflow_id", update.workflow_id)
        seconds = paused_seconds(steps)
        if seconds is not None:
            update.error.details.setdefault("paused_seconds", seconds)
        raise update.error
    return Update(**_fields(update, steps))


def workflow(
    update: records.Update, steps: Sequence[records.Step], since: Since | None = None
) -> WorkflowView:
    """Everything about the update."""
    # The database's own times may have a resolution of a second; the steps' are finer.
    started = next((step.started_at for step in steps), None) or update.created_at
    ended = None if update.status == "running" else update.completed_at
    if ended is not None:
        ended = max(step.completed_at or 0 for step in steps) if steps else ended
    return WorkflowView(
        **_fields(update, steps),
        part_of=update.request.get("part_of"),
        steps=[_step(step) for step in steps],
        reason=reason_of(update),
        asked_by=update.request.get("asked_by"),
        agreed_by=update.request.get("agreed_by"),
        started_at=time_text(started),
        ended_at=None if ended is None else time_text(ended),
        error=None if update.error is None else failure(update.error),
        since=since,
    )


def since(outcome: Outcome, now: Connection, document: state.Document | None) -> Since | None:
    """What has happened to the connection since the update ended; None for an update of 0.1."""
    then = outcome.get("connection")
    if then is None:
        return None
    sync: Literal["none", "running", "succeeded", "failed"] = "none"
    if now.sync_state == "syncing":
        sync = "running"
    elif now.succeeded_at != then["succeeded_at"] and not _is_later(
        now.failed_at, now.succeeded_at
    ):
        sync = "succeeded"
    elif now.failed_at != then["failed_at"]:
        sync = "failed"
    version = None if document is None else state.version(document)
    return Since(
        sync=sync,
        version=version,
        state_moved=None if version is None else version != outcome["version_after"],
    )


def _is_later(one: str | None, other: str | None) -> bool:
    """Compare two of Fivetran's times, which are ISO 8601 in UTC."""
    return one is not None and (other is None or one > other)


def task(
    update: records.Update, steps: Sequence[records.Step], retention_days: float
) -> Task[Update]:
    """The update as a task. It is kept for `retention_days` after its end; 0 means forever."""
    answered: Update | FivetranStateError
    try:
        answered = answer(update, steps)
    except FivetranStateError as error:
        answered = error
    # The database's own times may have a resolution of a second; the steps' are finer.
    times = [update.created_at, *(step.completed_at or 0 for step in steps)]
    kept_ms = None
    if update.status == "running":
        message = (update.progress or STARTED)["message"]
    else:
        message = answered.message
        ended_at = update.completed_at or times[-1]
        times.append(ended_at)
        kept_ms = _kept_ms(update.created_at, ended_at, retention_days)
    return Task(
        workflow_id=update.workflow_id,
        answer=answered,
        message=message,
        created_at=time_text(update.created_at),
        updated_at=time_text(max(times)),
        kept_ms=kept_ms,
    )


def group_task(
    workflow_id: str,
    answer: UpdatesView | FivetranStateError,
    *,
    created_at: int,
    completed_at: int | None,
    retention_days: float,
) -> Task[UpdatesView]:
    """The group as a task; `completed_at` is None while it runs."""
    return Task(
        workflow_id=workflow_id,
        answer=answer,
        message=answer.message,
        created_at=time_text(created_at),
        updated_at=time_text(completed_at or created_at),
        kept_ms=None
        if completed_at is None
        else _kept_ms(created_at, completed_at, retention_days),
    )


def _kept_ms(created_at: int, ended_at: int, retention_days: float) -> int | None:
    if not retention_days:
        return None
    return ended_at - created_at + timedelta(days=retention_days) // timedelta(milliseconds=1)


def summary(update: records.Update) -> WorkflowSummary:
    view = _fields(update)
    return WorkflowSummary(
        workflow_id=update.workflow_id,
        part_of=update.request.get("part_of"),
        status=view["status"],
        change=update.request["source"] or update.request["change_kind"],
        reason=reason_of(update),
        asked_by=update.request.get("asked_by"),
        agreed_by=update.request.get("agreed_by"),
        version_before=view.get("version_before"),
        version_after=view.get("version_after"),
        changes_total=view.get("changes_total"),
        error=None if update.error is None else update.error.code,
        started_at=time_text(update.created_at),
    )


def reason_of(update: records.Update) -> str | None:
    reason = update.request["reason"]
    return None if reason is None else shown(reason, MAX_REASON_LENGTH)


def _ended_well(update: records.Update) -> str:
    outcome = cast(Outcome, update.outcome)
    if "resumes" in update.request:
        done = (
            "The connection was resumed; its state stays as it was."
            if outcome["was_paused"]
            else "The connection was not paused; nothing was changed."
        )
    elif outcome["outcome"] == "unchanged":
        done = "The change leaves the state as it is; nothing was written."
    else:
        done = "The new state was written and read back from Fivetran."
    then_sync = update.request.get("then_sync", False)
    sentences = [done, *_how_it_stands(outcome), *_sync(outcome, then_sync), *_kept(outcome)]
    if update.was_ended_from_outside:
        sentences.append("Somebody ended the update in the database; the server continued it.")
    return " ".join(sentences)


def _how_it_stands(outcome: Outcome) -> Iterator[str]:
    if outcome["deleted"]:
        yield "The connection has been deleted since."
        return
    stored = outcome.get("connection")
    if stored is None:  # An update of 0.1.
        paused = outcome["was_paused"]
        yield "The connection is paused, as it was before." if paused else _RUNNING
        return
    found = Connection(**stored)
    by_others = outcome.get("by_others")
    if found.paused:
        yield (
            "The connection is paused: somebody else paused it during the update."
            if by_others == "paused"
            else "The connection is paused, as it was before."
        )
    elif found.setup_state not in _SET_UP:
        yield (
            f"The connection is not paused, but its set-up is {found.setup_state}: it does not sync "
            "until that is repaired in Fivetran."
        )
    elif found.never_syncs_by_itself:
        postponed = " and its last sync was postponed" if found.sync_state == "rescheduled" else ""
        yield (
            f"The connection is not paused. Its schedule is manual{postponed}: no sync starts by "
            "itself."
        )
    elif by_others == "resumed":
        yield "The connection is running: somebody else resumed it during the update."
    else:
        yield _RUNNING
    if found.is_historical_sync:
        yield (
            "Careful: a historical re-sync is pending or running. It begins with an "
            "empty state and overwrites this change."
        )


def _sync(outcome: Outcome, then_sync: bool) -> Iterator[str]:
    sync = outcome.get("sync")
    if sync is not None:
        problem = sync["problem"]
        yield "A sync was started." if sync["started"] else f"No sync was started: {problem}"
    elif then_sync and outcome["outcome"] == "unchanged":
        yield "No sync was started."


def _kept(outcome: Outcome) -> Iterator[str]:
    paths = outcome.get("kept_numbers")
    if paths:
        total = outcome.get("kept_numbers_total", len(paths))
        more = f" and {total - 5:,} more" if total > 5 else ""
        yield (
            f"The numbers stayed exactly as they were at {', '.join(paths[:5])}{more}, "
            "because the given ones look rounded. To change them, give the change as "
            "JSON text."
        )


def _told(error: FivetranStateError) -> str:
    """The message, with the facts that explain it."""
    sentences = [error.message, error.details.get("differences")]
    if error.details.get("maybe_written"):
        sentences.append("It is unclear if the new state was written: read the state again.")
    by_others = error.details.get("by_others")
    if by_others is not None:
        ends = "stays paused" if by_others == "paused" else "keeps running"
        sentences.append(f"Somebody else {by_others} the connection meanwhile, so it {ends}.")
    return " ".join(filter(None, sentences))


def _step(step: records.Step) -> StepView:
    seconds = None
    if step.started_at is not None and step.completed_at is not None:
        seconds = round((step.completed_at - step.started_at) / 1000, 3)
    return StepView(
        name=step.name,
        started_at=None if step.started_at is None else time_text(step.started_at),
        seconds=seconds,
        error=None if step.error is None else step.error.code,
    )


def failed(error: FivetranStateError) -> str:
    """The status of an update that ended with this error."""
    return "cancelled" if isinstance(error, Cancelled) else "failed"


def failure(error: FivetranStateError) -> Failure:
    return Failure(code=error.code, message=error.message, hint=error.hint)


def time_text(milliseconds: int) -> str:
    """ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
