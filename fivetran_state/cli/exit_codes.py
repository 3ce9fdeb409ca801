"""The exit codes of every command. They are stable: docs/reference/shell.md lists them."""

from collections.abc import Iterable
from enum import IntEnum

from fivetran_state import startup
from fivetran_state.errors import (
    AlreadyDecided,
    Conflict,
    FivetranStateError,
    IdempotencyKeyReused,
    InsufficientScope,
    InternalError,
    InvalidRequest,
    LeftPaused,
    NotAllowed,
    NotConfirmed,
    NothingToUndo,
    ResyncPending,
    RollbackFailed,
    TooLargeToConfirm,
    TooLateToCancel,
    UnusableSettings,
    UpdateInProgress,
    VerificationFailed,
)


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    """Nothing was changed."""
    DIFFERS = 2
    """Two states differ, or the state is not the version that was expected."""
    STILL_PAUSED = 3
    """An update has paused a connection and has not resumed it."""
    REFUSED = 4
    """The person, the operator or this program refused; nothing was changed."""
    MAYBE_CHANGED = 5
    """It failed, and a state has changed or may have."""
    PROPOSED = 6
    """Nothing is changed yet: the change waits for a person to approve it."""
    USAGE = startup.USAGE
    """A wrong argument, option, file or environment variable."""
    INTERRUPTED = 130
    """A signal ended the command. Updates that run go on."""


_OF_ERRORS: dict[type[FivetranStateError], ExitCode] = {
    InvalidRequest: ExitCode.USAGE,
    UnusableSettings: ExitCode.USAGE,
    Conflict: ExitCode.DIFFERS,
    LeftPaused: ExitCode.STILL_PAUSED,
    RollbackFailed: ExitCode.MAYBE_CHANGED,
    VerificationFailed: ExitCode.MAYBE_CHANGED,
    InternalError: ExitCode.MAYBE_CHANGED,
    **dict.fromkeys(
        (
            AlreadyDecided,
            IdempotencyKeyReused,
            InsufficientScope,
            NotAllowed,
            NotConfirmed,
            NothingToUndo,
            ResyncPending,
            TooLargeToConfirm,
            TooLateToCancel,
            UpdateInProgress,
        ),
        ExitCode.REFUSED,
    ),
}


def of_error(error: FivetranStateError) -> ExitCode:
    """The exit code of a command that ends with this error."""
    if error.details.get("paused_by_update"):
        return ExitCode.STILL_PAUSED
    if error.details.get("maybe_written"):
        return ExitCode.MAYBE_CHANGED
    return _OF_ERRORS.get(type(error), ExitCode.FAILED)


def of_several(codes: Iterable[ExitCode], *, has_changed: bool) -> ExitCode:
    """The exit code of a command that did several things, each of which has one."""
    others = {*codes} - {ExitCode.DONE}
    if not others:
        return ExitCode.DONE
    if ExitCode.STILL_PAUSED in others:
        return ExitCode.STILL_PAUSED
    if others == {ExitCode.PROPOSED}:
        return ExitCode.PROPOSED
    if has_changed or ExitCode.MAYBE_CHANGED in others:
        return ExitCode.MAYBE_CHANGED
    return others.pop() if len(others) == 1 else ExitCode.FAILED
