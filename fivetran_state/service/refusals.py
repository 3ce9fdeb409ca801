"""Refusals that several capabilities share."""

from fivetran_state.errors import InvalidRequest, NotAllowed, TooLateToCancel
from fivetran_state.text import shown


def not_a_cursor(cursor: str) -> InvalidRequest:
    return InvalidRequest(f"cursor '{shown(cursor)}' is not the next_cursor of an earlier answer.")


def by_policy(sentence: str, *, can_wait: bool = False) -> NotAllowed:
    """`can_wait`: the change may be made at another time."""
    proposing = (
        " Make it then; or propose it now (propose), and let it be approved then."
        if can_wait
        else ""
    )
    return NotAllowed(f"{sentence} Nothing was written.{proposing}")


def too_late(workflow_id: str, status: str) -> TooLateToCancel:
    return TooLateToCancel(
        f"Update {workflow_id} has ended as {status!r}.", workflow_id=workflow_id
    )
