"""The models that show proposals."""

from collections import Counter
from datetime import datetime, timezone
from typing import Any

from fivetran_state.errors import FivetranStateError
from fivetran_state.models import (
    Failure,
    GroupPlanView,
    ProposalState,
    ProposalView,
    Update,
    UpdatesView,
    WorkflowView,
)
from fivetran_state.service import views
from fivetran_state.service.group_status import not_started
from fivetran_state.text import shown
from fivetran_state.updates.proposal import is_group
from fivetran_state.updates.proposals import Proposal

SHOWN_CONNECTIONS = 20


def proposal(
    found: Proposal,
    plan: Update | GroupPlanView | None = None,
    problem: FivetranStateError | None = None,
) -> ProposalView:
    """`problem`: why there is no plan on the present states."""
    ids = found.connection_ids
    decided = found.decided
    return ProposalView(
        workflow_id=found.workflow_id,
        status=_status(found),
        message=_message(found),
        connection_ids=ids[:SHOWN_CONNECTIONS],
        total=len(ids),
        change=found.requests[0]["source"] or found.requests[0]["change_kind"],
        reason=_bounded(found.asked["reason"]),
        asked_by=found.asked["asked_by"],
        asked_at=_time(found.asked["asked_at"]),
        expires_at=_time(found.asked["expires_at"]),
        decided_by=None if decided is None else decided["by"],
        note=None if decided is None else _bounded(decided["note"]),
        update=None if decided is None else decided["workflow_id"],
        last_problem=_last_problem(found) if problem is None else views.failure(problem),
        plan=plan,
    )


def as_update(found: Proposal) -> Update:
    """A proposal of one change, as the answer of `update_state`."""
    return Update(**_fields(found))


def as_workflow(found: Proposal) -> WorkflowView:
    """A proposal of one change that has started no update."""
    return WorkflowView(
        **_fields(found),
        steps=[],
        reason=_bounded(found.asked["reason"]),
        started_at=_time(found.asked["asked_at"]),
        asked_by=found.asked["asked_by"],
        error=_last_problem(found),
    )


def as_group(found: Proposal) -> UpdatesView:
    """A proposal of a change of several connections that has started no group."""
    change = found.asked["change"]
    assert is_group(change), "there are several"
    status = _status(found)
    counts = Counter(end["how"] for end in found.left_out)
    counts[status] = len(found.requests)
    return UpdatesView(
        workflow_id=found.workflow_id,
        status=status,
        message=_message(found),
        mode=change["mode"],
        total=len(found.connection_ids),
        counts=dict(sorted(counts.items())),
        updates=[],
        not_started=not_started(found.left_out),
        error=_last_problem(found),
    )


def _fields(found: Proposal) -> dict[str, Any]:
    (request,) = found.requests
    return {
        "connection_id": request["connection_id"],
        "status": _status(found),
        "message": _message(found),
        "workflow_id": found.workflow_id,
        "version_before": request["expected_version"],
    }


def _status(found: Proposal) -> ProposalState:
    return "proposed" if found.decided is None else found.decided["how"]


def _message(found: Proposal) -> str:
    decided = found.decided
    if decided is None:
        page = "" if found.page is None else f" or {found.page}"
        return (
            "Nothing is written yet. A person with the scope approve has until "
            f"{_time(found.asked['expires_at'])} to agree: fivetran-state approve {found.workflow_id}"
            f"{page}. Follow it with workflow_status; withdraw it with cancel_update."
        )
    by = "" if decided["by"] is None else f" by {decided['by']}"
    note = "" if decided["note"] is None else f" {_bounded(decided['note'])}"
    match decided["how"]:
        case "approved":
            return f"It was approved{by}; {decided['workflow_id']} makes the change."
        case "expired":
            return "Nobody approved it in time. Nothing was written."
        case how:
            return f"It was {how}{by}. Nothing was written.{note}"


def _last_problem(found: Proposal) -> Failure | None:
    """Why the last approval started nothing."""
    if found.refusal is None:
        return None
    return views.failure(FivetranStateError.from_json(dict(found.refusal)))


def _bounded(text: str | None) -> str | None:
    return None if text is None else shown(text, views.MAX_REASON_LENGTH)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), timezone.utc).isoformat().replace("+00:00", "Z")
