"""The errors of an update that are raised in more than one place."""

from fivetran_state import state
from fivetran_state.errors import (
    Cancelled,
    Conflict,
    InvalidRequest,
    ResyncPending,
    StateNotKept,
    Undone,
    VerificationFailed,
)
from fivetran_state.fivetran_answers import Connection
from fivetran_state.models import changes_between
from fivetran_state.text import shown
from fivetran_state.updates.records import GROUP, OUTSIDE


def state_not_kept(connection: Connection) -> StateNotKept:
    return StateNotKept(f"{connection.id} keeps no state: its service is {connection.service}.")


def refuse_pending_resync(connection: Connection) -> None:
    """Raise `ResyncPending` if what is written would be overwritten."""
    if connection.is_historical_sync:
        raise ResyncPending(
            f"A historical re-sync of {connection.id} is pending or running: it begins with an "
            "empty state and would overwrite the change. Nothing was written."
        )


def refuse_impossible_sync(connection: Connection) -> None:
    """Raise `InvalidRequest` if no sync can be started after an update."""
    if connection.paused:
        raise InvalidRequest(
            f"{connection.id} is paused and stays paused, so no sync can be started. Leave out "
            "then_sync, or resume the connection first. Nothing was written."
        )


def conflict(expected: str, version: str) -> Conflict:
    """The error for a state that a sync or somebody else has changed."""
    if version.startswith(expected):
        return Conflict(
            f"{shown(expected)} is a version as 0.1 wrote it, too short to be sure of; the state is "
            f"version {version}. Nothing was written.",
            current_version=version,
        )
    return Conflict(
        f"The state is version {version}, not {shown(expected)}: a sync or somebody else has "
        "changed it. Nothing was written.",
        current_version=version,
    )


def called_off(why: object) -> Cancelled | Undone:
    """The error for an update that is called off before it has written.

    `why` is the message that says so: `True` from a caller, `OUTSIDE` from who finds the workflow ended,
    and for a member of a group `GROUP` if the group was cancelled, `undone` if another member failed.
    """
    if why == Undone.code:
        return Undone("Another of the connections could not be updated; nothing was written here.")
    if why == GROUP:
        return Cancelled("The group was cancelled; nothing was written here.")
    if why == OUTSIDE:
        return Cancelled("Somebody ended the workflow in the database. Nothing was written.")
    return Cancelled("The update was cancelled; nothing was written.")


def left_as_it_is(target: state.State, now: state.Document | None) -> VerificationFailed:
    """The error for a state that somebody else may have written."""
    version = None if now is None else state.version(now)
    is_now = "is gone" if now is None else f"is version {version}"
    return VerificationFailed(
        f"After the write the state {is_now}, which is neither what was written nor what was there "
        "before: somebody else may have written it, so it was left as it is.",
        current_version=version,
        differences=described_differences(target, now),
    )


def described_differences(target: state.State, now: state.Document | None) -> str | None:
    """The differences between the written state and the present one, in a sentence.

    It is a detail of errors, not in their message: a message is logged, and a state is not.
    """
    if now is None:
        return None
    changes, total = changes_between(target, now)
    first = "; ".join(
        f"{change.path or 'the whole'}: written {change.before or 'nothing'}, "
        f"found {change.after or 'nothing'}"
        for change in changes[:3]
    )
    more = f"; and {total - 3} more" if total > 3 else ""
    return f"It differs at {first}{more}."
