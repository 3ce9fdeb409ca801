"""Refusals that several capabilities share."""

from fivetran_state.errors import InvalidRequest, TooLateToCancel
from fivetran_state.text import shown


def not_a_cursor(cursor: str) -> InvalidRequest:
    return InvalidRequest(f"cursor '{shown(cursor)}' is not the next_cursor of an earlier answer.")


def too_late(workflow_id: str, status: str) -> TooLateToCancel:
    return TooLateToCancel(
        f"Update {workflow_id} has ended as {status!r}.", workflow_id=workflow_id
    )
