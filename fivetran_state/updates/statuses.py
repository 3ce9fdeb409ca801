"""Makes records from the rows that DBOS returns."""

from contextlib import suppress
from typing import Any, Literal, cast

from dbos import StepInfo, WorkflowStatus, WorkflowStatusString

from fivetran_state.errors import FivetranStateError, InternalError, Tampered, UnusableKey
from fivetran_state.ids import UpdateId
from fivetran_state.updates import binding, records
from fivetran_state.updates.records import Outcome, Progress, Snapshot, Update, UpdateRequest


def is_running(status: WorkflowStatus) -> bool:
    return status.status in records.UNFINISHED


def succeeded(status: WorkflowStatus) -> bool:
    return status.status == WorkflowStatusString.SUCCESS.value


def number(workflow_id: str) -> int:
    return UpdateId.parse(workflow_id).number


def created_at(status: WorkflowStatus) -> int:
    # From Python 3.12 on, SQLite computes the default of this column with floats.
    return round(status.created_at or 0)


def request(status: WorkflowStatus) -> UpdateRequest:
    return cast(UpdateRequest, input_of(status))


def readable_request(status: WorkflowStatus) -> UpdateRequest | None:
    """The request, or None if the row was forged: a forged row must not block the connection."""
    with suppress(Tampered, UnusableKey):
        return request(status)
    return None


def input_of(status: WorkflowStatus) -> Any:
    found = status.input["args"][0] if isinstance(status.input, dict) else status.input
    return binding.opened(found, binding.input_of(status.workflow_id, status.name))


def is_cancelled(status: WorkflowStatus) -> bool | str:
    """True if a caller has cancelled it; `OUTSIDE` if it was ended in the database."""
    asked: bool | str = (status.attributes or {}).get(records.CANCEL, False)
    return asked


def outcome(status: WorkflowStatus) -> Outcome | None:
    if not succeeded(status):
        return None
    found: Outcome = binding.opened(status.output, binding.output_of(status.workflow_id))
    return found


def error(status: WorkflowStatus) -> FivetranStateError | None:
    if succeeded(status):
        return None
    if isinstance(status.error, FivetranStateError):
        binding.check(status.error, binding.output_of(status.workflow_id))
        return status.error
    return InternalError(f"Something else than this program ended the workflow ({status.status}).")


def ended(status: WorkflowStatus) -> Literal["succeeded", "failed"]:
    return "succeeded" if succeeded(status) else "failed"


def update(
    status: WorkflowStatus,
    progress: Progress | None,
    request: UpdateRequest,
    *,
    is_latest: bool = True,
) -> Update:
    """`is_latest` matters for an update that was ended in the database: only the latest is resumed."""
    goes_on = is_running(status)
    if status.status in records.ENDED_FROM_OUTSIDE:
        goes_on = is_latest
        progress = Progress(
            phase="wait",
            message="Somebody ended the workflow in the database: it is taken up again, to leave the "
            "connection as it was.",
            was_paused=progress["was_paused"] if progress else None,
            still_paused=progress["still_paused"] if progress else False,
        )
    return Update(
        workflow_id=status.workflow_id,
        request=request,
        status="running" if goes_on else ended(status),
        outcome=outcome(status),
        error=None if goes_on else error(status),
        progress=progress if goes_on else None,
        was_ended_from_outside=(status.attributes or {}).get(records.CANCEL) == records.OUTSIDE,
        created_at=created_at(status),
        completed_at=status.completed_at,
    )


def step_error(workflow_id: str, step: StepInfo) -> FivetranStateError | None:
    error = step["error"]
    if not isinstance(error, FivetranStateError):
        return None
    binding.check(error, _place(workflow_id, step))
    return error


def snapshot_in(workflow_id: str, step: StepInfo) -> Snapshot | None:
    if step["function_name"] not in ("snapshot", "inspect") or step["output"] is None:
        return None
    found = binding.opened(step["output"], _place(workflow_id, step))
    if step["function_name"] == "inspect":
        found = found.get("snapshot")  # 0.1 recorded no version there.
    return cast("Snapshot | None", found)


def may_have_written(workflow_id: str, step: StepInfo) -> bool:
    error = step_error(workflow_id, step)
    is_certain = isinstance(error, FivetranStateError) and not error.details.get("maybe_applied")
    return step["function_name"] == "write" and not is_certain


def _place(workflow_id: str, step: StepInfo) -> str:
    return binding.step_of(workflow_id, step["function_id"], step["function_name"])


def without_change(request: UpdateRequest) -> UpdateRequest:
    kept = {name: value for name, value in request.items() if name != "credentials"}
    return cast(UpdateRequest, kept | {"change": ""})
