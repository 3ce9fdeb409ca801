"""Every error that a caller of this project can meet, as one tree.

FivetranStateError
├── InvalidRequest            invalid_request
├── MissingCredentials        missing_credentials
├── NotAllowed                not_allowed
├── InsufficientScope         insufficient_scope
├── CannotServe               cannot_serve
├── ForeignForm               foreign_form
├── SignInFailed              sign_in_failed
├── AuthenticationUnavailable authentication_unavailable
├── EngineNotReady            engine_not_ready
├── DatabaseUnavailable       database_unavailable
├── UnusableKey               unusable_key
├── Tampered                  tampered
├── UnusableSettings          unusable_settings
├── WorkflowNotFound          workflow_not_found
├── UpdateInProgress          update_in_progress
├── IdempotencyKeyReused      idempotency_key_reused
├── VersionRequired           version_required
├── Conflict                  conflict
├── InvalidChange             invalid_change
├── NothingToUndo             nothing_to_undo
├── NotRemembered             not_remembered
├── ResyncPending             resync_pending
├── TooLargeToConfirm         too_large_to_confirm
├── NotConfirmed              not_confirmed
├── Cancelled                 cancelled
├── Undone                    undone
├── TooLateToCancel           too_late_to_cancel
├── AlreadyDecided            already_decided
├── SyncStillRunning          sync_still_running
├── VerificationFailed        verification_failed
├── RollbackFailed            rollback_failed
├── LeftPaused                left_paused
├── InternalError             internal_error
└── FivetranError             fivetran_error
    ├── Unauthorized          unauthorized
    ├── Forbidden             forbidden
    ├── ConnectionNotFound    connection_not_found
    ├── StateNotKept          state_not_kept
    ├── NoStateYet            no_state_yet
    ├── SyncRunning           sync_running
    ├── InvalidStateDocument  invalid_state_document
    ├── RateLimited           rate_limited
    └── FivetranUnavailable   fivetran_unavailable

An error is a code (stable, for programs), a message (what happened), a hint (what to do next)
and details (`Facts`, JSON values). A DBOS checkpoint stores exactly these, and restores the same
class.

Callers get the message, which may quote a state. Logs get `str(error)`, which quotes none.
"""

import inspect
import sys
from typing import Any, ClassVar, Literal, cast

from typing_extensions import TypedDict, Unpack

from fivetran_state.text import shown

MAX_MESSAGE_LENGTH = 900
"""Characters; a message may quote what came from outside."""


class Facts(TypedDict, total=False):
    """The facts about an error besides its message, as JSON values. None means unknown."""

    workflow_id: str | None
    failures: list[dict[str, Any]]
    """Every connection of a group that could not be changed, when there are several."""
    updates: list[dict[str, Any]]
    """The updates of connections that were changed as a group, as tools return them."""
    current_version: str | None
    differences: str | None
    """The difference between the expected and the actual state, in words."""
    by_others: Literal["paused", "resumed"] | None
    """The change that a person made to the paused flag during the update."""
    was_paused: bool | None
    """The connection was paused before the update."""
    was_resumed: bool | None
    paused_by_update: bool | None
    still_paused: bool | None
    """The name that 0.1 stored for `paused_by_update`."""
    paused_seconds: float
    maybe_applied: bool | None
    """The call may have taken effect although it failed."""
    maybe_written: bool
    so_far: dict[str, Any]
    """The end that the update had reached before its connection could not be resumed."""
    retry_after: float
    """Seconds."""
    status: int
    """Fivetran's HTTP status."""
    fivetran_code: str | None
    fivetran_message: str | None
    required_scope: str


class FivetranStateError(Exception):
    """The root of the tree; it is never raised itself."""

    code: ClassVar[str] = "error"
    hint: ClassVar[str] = ""
    place: str | None = None
    """The place in the database where the error is stored (see `binding`)."""
    may_be_logged: ClassVar[bool] = False
    """True if the message quotes neither a state nor an answer, so that `str(error)` may include
    it."""

    _by_code: ClassVar[dict[str, type["FivetranStateError"]]] = {}

    def __init__(self, message: str, **details: Unpack[Facts]) -> None:
        self.message = shown(message, MAX_MESSAGE_LENGTH)
        bounded = {
            name: shown(value, MAX_MESSAGE_LENGTH) if isinstance(value, str) else value
            for name, value in details.items()
        }
        self.details = cast(Facts, bounded)
        super().__init__()  # `repr` shows the arguments, and other libraries log it: pass none.

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.may_be_logged else self.code

    def __init_subclass__(cls) -> None:
        FivetranStateError._by_code[cls.code] = cls

    def to_json(self) -> dict[str, Any]:
        """`{"code", "message", "hint"}` and the details that have a value."""
        known = {name: value for name, value in self.details.items() if value is not None}
        return {"code": self.code, "message": self.message, "hint": self.hint, **known}

    @staticmethod
    def from_json(stored: dict[str, Any]) -> "FivetranStateError":
        """The error that `to_json` stored; an unknown code comes back as `InternalError`."""
        details = {k: v for k, v in stored.items() if k not in ("code", "message", "hint")}
        cls = FivetranStateError._by_code.get(stored["code"], InternalError)
        return cls(stored["message"], **cast(Facts, details))


class InvalidRequest(FivetranStateError):
    """An argument is missing, malformed, leads nowhere or contradicts another; nothing was changed."""

    code = "invalid_request"
    hint = "Correct the arguments that the message names, and call again."


class MissingCredentials(FivetranStateError):
    """Neither the server nor the request has a Fivetran API key; nothing was sent."""

    code = "missing_credentials"
    may_be_logged = True
    hint = (
        "Set FIVETRAN_API_KEY and FIVETRAN_API_SECRET in the server's environment and "
        "restart it, or start it with --sandbox to try it without an account. A REST "
        "request may have its own api_key and api_secret."
    )


class NotAllowed(FivetranStateError):
    """The server's settings do not allow this connection, or this change; nothing was changed."""

    code = "not_allowed"
    hint = (
        "Do not call again, unless the message names a time for it. Ask the operator, who can change "
        "FIVETRAN_STATE_ALLOWED_CONNECTIONS, FIVETRAN_STATE_READ_ONLY and the file FIVETRAN_STATE_POLICY."
    )


class InsufficientScope(FivetranStateError):
    """The caller's token does not allow this call; nothing was done."""

    code = "insufficient_scope"
    hint = (
        "Use a token with that scope. To see what a change would do, use dry_run, which "
        "needs only read."
    )


class CannotServe(FivetranStateError):
    """The HTTP server cannot start with these settings."""

    code = "cannot_serve"
    may_be_logged = True
    hint = "Correct the setting that the message names; docs/reference/http.md explains them."


class ForeignForm(FivetranStateError):
    """A form does not come from a page that this server showed to this caller; nothing was changed."""

    code = "foreign_form"
    may_be_logged = True
    hint = "Open the page again on this server, and send the form from there."


class SignInFailed(FivetranStateError):
    """The issuer signed nobody in, or its answer is not for this browser; there is no session."""

    code = "sign_in_failed"
    may_be_logged = True
    hint = "Sign in again. If it persists, ask the operator of this server."


class AuthenticationUnavailable(FivetranStateError):
    """Tokens cannot be checked at the moment: the file, or the issuer's keys, cannot be read."""

    code = "authentication_unavailable"
    may_be_logged = True
    hint = "Call again in a minute; if it persists, read the server's log on stderr."


class EngineNotReady(FivetranStateError):
    """The workflow engine has not come up; no state was read or changed by this call."""

    code = "engine_not_ready"
    may_be_logged = True
    hint = (
        "Call again in a few seconds. If the message stays the same, correct what it names, or "
        "read the server's log on stderr; `fivetran-state doctor` checks the set-up."
    )


class DatabaseUnavailable(FivetranStateError):
    """The database of updates cannot be reached. Updates in flight wait for it, and none is lost."""

    code = "database_unavailable"
    may_be_logged = True
    hint = (
        "If the message names a variable, correct that first. When the database is "
        "back, call again with the same arguments: a repeated request returns the "
        "update that it may have started."
    )


class UnusableKey(FivetranStateError):
    """The key that decrypts stored values is missing, malformed or a different one; nothing was
    changed."""

    code = "unusable_key"
    may_be_logged = True
    hint = (
        "Set FIVETRAN_STATE_SECRET_KEY to the key that encrypted this database, and "
        "restart the server. If the key was changed, set both: the new key, a comma, "
        "the old key."
    )


class Tampered(FivetranStateError):
    """Somebody else has changed a stored value in the database; the value was not used."""

    code = "tampered"
    may_be_logged = True
    hint = (
        "Find out who can write to this server's database. In Fivetran, check the connection's "
        "state, and that it is paused only if it should be."
    )


class UnusableSettings(FivetranStateError):
    """An environment variable of the server, or a path that it names, cannot be used; nothing was
    changed by this call."""

    code = "unusable_settings"
    may_be_logged = True
    hint = (
        "Ask the operator to correct what the message names. Do not call again before "
        "that. After changing a variable, restart the server. `fivetran-state doctor` "
        "checks the set-up."
    )


class WorkflowNotFound(FivetranStateError):
    """The account has no such update, the update is too old, or it ended before it had read a
    state."""

    code = "workflow_not_found"
    hint = "Find the workflow_id, such as speak_inexpensive:1, with state_history."


class UpdateInProgress(FivetranStateError):
    """Another update of this connection has not ended, so this one was not started.

    Details: `workflow_id` of the other update.
    """

    code = "update_in_progress"
    hint = (
        "Follow the other update with workflow_status, or end it with cancel_update. "
        "When it has ended, read the state again before you decide what to change."
    )


class IdempotencyKeyReused(FivetranStateError):
    """The idempotency key belongs to an update with a different request; nothing was started.

    Details: `workflow_id` of that update.
    """

    code = "idempotency_key_reused"
    hint = "Use a new key for a new change, or leave the key out."


class VersionRequired(FivetranStateError):
    """A change by REST does not say for which version it is; nothing was changed."""

    code = "version_required"
    may_be_logged = True
    hint = (
        "Read the state and decide, then send its version as expected_version. For several "
        "connections, send the version of a plan (dry_run). Send * to change whatever is there."
    )


class Conflict(FivetranStateError):
    """The state is not the expected version, or somebody changed it while the update ran.

    The current state was left as it is. The connection is resumed if the update had paused it.
    Details: `current_version`.
    """

    code = "conflict"
    hint = (
        "Repeat the call without expected_version for a new plan. Show the plan to the user, then "
        "apply it. Do not pause the connection by other means."
    )


class InvalidChange(FivetranStateError):
    """The change cannot be applied to the current state; nothing was written."""

    code = "invalid_change"
    hint = (
        "Read the state again with get_state, and correct the part of the change that the "
        "message names."
    )


class NothingToUndo(FivetranStateError):
    """restore_from names an update that wrote nothing; nothing was changed by this call."""

    code = "nothing_to_undo"
    hint = "Use state_history to find an update with the status updated, and undo that one."


class NotRemembered(FivetranStateError):
    """The state of that time, or that version, was never seen; nothing was changed."""

    code = "not_remembered"
    hint = "Call state_history to see which states are remembered, and from when to when."


class ResyncPending(FivetranStateError):
    """A historical re-sync is pending or running. It starts from an empty state and would overwrite
    the change. Nothing was written, and the connection was not paused."""

    code = "resync_pending"
    hint = (
        "Tell the user. Wait until the re-sync has ended. If the user wants the "
        "change anyway, repeat the call with allow_resync set to true."
    )


class TooLargeToConfirm(FivetranStateError):
    """The question to the user cannot show every change in full, so it was not asked; nothing was
    written."""

    code = "too_large_to_confirm"
    hint = (
        "Make the change in smaller steps, or undo only a part with `only`. Without "
        "confirmation (FIVETRAN_STATE_CONFIRM=never, or REST), you can apply a plan's "
        "version directly."
    )


class NotConfirmed(FivetranStateError):
    """The user was asked and has not agreed; nothing was written."""

    code = "not_confirmed"
    hint = (
        "Ask the user what they want before you try again. If nobody can answer, the "
        "operator can set FIVETRAN_STATE_CONFIRM=never."
    )


class Cancelled(FivetranStateError):
    """Somebody cancelled the update. Nothing was written, and the connection is as it was before."""

    code = "cancelled"
    hint = "Start a new update if the user still wants the change."


class Undone(FivetranStateError):
    """Another connection of the group could not be changed, or somebody cancelled the group. The
    earlier state of this connection was put back and checked, and the connection is as it was
    before."""

    code = "undone"
    hint = (
        "See in the group's status whether another connection could not be updated. If so, correct "
        "that. Send the request again if the change is still wanted."
    )


class AlreadyDecided(FivetranStateError):
    """The proposal was approved, rejected or withdrawn before, or has expired.

    Details: `workflow_id`, of the update that it has started, or of the proposal.
    """

    code = "already_decided"
    hint = "workflow_status says what became of it. To have the change made after all, propose it again."


class TooLateToCancel(FivetranStateError):
    """The update has already ended, so it cannot be cancelled.

    Details: `workflow_id`.
    """

    code = "too_late_to_cancel"
    hint = (
        "If its status is updated, undo it: call update_state with this workflow_id "
        "as restore_from. Otherwise there is nothing to do. workflow_status says how "
        "it ended."
    )


class SyncStillRunning(FivetranStateError):
    """Fivetran did not stop the running sync in time. Nothing was written, and the connection is
    resumed."""

    code = "sync_still_running"
    hint = (
        "Try again when get_state no longer shows the connection as syncing, or ask the operator to "
        "raise FIVETRAN_STATE_SYNC_WAIT."
    )


class VerificationFailed(FivetranStateError):
    """The state that was read back is not the state that was written.

    If Fivetran said that it kept a different state, the earlier state was put back and checked. If
    somebody else may have written, the current state was left as it is. The message says which, and
    describes the difference. Details: `current_version`, `differences`.
    """

    code = "verification_failed"
    hint = (
        "Read the state with get_state. If the earlier state is back, look in the "
        "change for values that Fivetran may not keep as they are. If somebody else "
        "has written, talk to them, then make a new plan."
    )


class RollbackFailed(FivetranStateError):
    """The written state could not be read back, or Fivetran did not keep it and the earlier state
    could not be put back.

    The state may be the earlier one, the new one or neither. The connection is paused only if it
    was paused before the update, so a running connection may sync with this state.
    """

    code = "rollback_failed"
    hint = (
        "Tell the user, and act before the next sync. Read the state with get_state, "
        "and correct it with update_state. To put back the earlier state, use this "
        "workflow_id as restore_from."
    )


class LeftPaused(FivetranStateError):
    """Fivetran did not resume the connection for a day: the connection is still paused.

    Details: `paused_by_update`, and `so_far`: how the update had ended before that.
    """

    code = "left_paused"
    hint = (
        "Correct what the message names first, such as the API key or its role. Then "
        "resume the connection with fivetran-state resume, or in Fivetran: it does not sync before "
        "that."
    )


class InternalError(FivetranStateError):
    """A fault of this program. An update that had started goes on, or ends with the connection
    resumed."""

    code = "internal_error"
    hint = (
        "Check with state_history whether an update is running, or how it ended. Read the server's "
        "log on stderr, and report the fault."
    )


class FivetranError(FivetranStateError):
    """Fivetran refused a call in a way that has no code of its own. The update wrote nothing.

    Details: `status` (HTTP), `fivetran_code`, `fivetran_message`. All errors below have them too,
    if Fivetran sent them.
    """

    is_live = False
    """True for an error that Fivetran's answer raised; false for its copy from a checkpoint."""

    code = "fivetran_error"
    hint = (
        "Correct what fivetran_message names. If it names nothing that you can correct, "
        "call again later."
    )

    def __str__(self) -> str:
        """The code, with Fivetran's status or the kind of network fault."""
        status, cause = self.details.get("status"), type(self.__cause__).__name__
        reason = "" if self.__cause__ is None else f" ({cause})"
        return f"{self.code} (HTTP {status})" if isinstance(status, int) else f"{self.code}{reason}"


class Unauthorized(FivetranError):
    """Fivetran does not accept the API key (401); nothing was changed by this call."""

    code = "unauthorized"
    hint = (
        "Set FIVETRAN_API_KEY and FIVETRAN_API_SECRET in the server's environment to "
        "a key that is valid in Fivetran, and restart the server. If the REST request "
        "has its own api_key and api_secret, correct those."
    )


class Forbidden(FivetranError):
    """The role of the API key does not allow the call (403); nothing was changed by this call."""

    code = "forbidden"
    hint = (
        "Ask an administrator of the Fivetran account to give the key's user a role "
        "that may read and edit this connection."
    )


class ConnectionNotFound(FivetranError):
    """The account has no such connection, or somebody has deleted it (404)."""

    code = "connection_not_found"
    hint = "Find the connection's id with list_connections."


class StateNotKept(FivetranError):
    """The connection's service keeps no state. Only Functions and Connector SDK connections keep
    one."""

    code = "state_not_kept"
    hint = "Choose a connection whose keeps_state is true in list_connections."


class NoStateYet(FivetranError):
    """The connector has not written a state yet (400). Only the connector can write the first one.

    Nothing was written, and the connection was not paused.
    """

    code = "no_state_yet"
    hint = "Let the connector run once: its first sync creates the state. Then read it again."


class SyncRunning(FivetranError):
    """A running sync blocks the change (409). Only the steps of an update meet this error.

    The update waits until the sync has ended, and then tries again.
    """

    code = "sync_running"
    hint = "Wait: the update goes on by itself. Follow it with workflow_status."


class InvalidStateDocument(FivetranError):
    """Fivetran's answer is far larger than any state can be; it was not read."""

    code = "invalid_state_document"
    hint = "Make the state smaller first, with Fivetran's API or in the connector's code."


class RateLimited(FivetranError):
    """The account's request limit is used up (429). An update waits by itself.

    Details: `retry_after`, in seconds.
    """

    code = "rate_limited"
    hint = "Call again after retry_after seconds, not before: every call counts."


class FivetranUnavailable(FivetranError):
    """Fivetran did not answer, or its answer cannot be used.

    An update that has paused a connection does not end with this error at once; it keeps trying for
    a day. Details: `maybe_applied`, if the change may have taken effect although the call failed.
    """

    code = "fivetran_unavailable"
    hint = (
        "Call again in a minute. If it persists, look at Fivetran's status page, and check "
        "FIVETRAN_API_URL and the network."
    )


def codes() -> list[str]:
    """The code of every error."""
    return list(FivetranStateError._by_code)


def classes() -> list[type[FivetranStateError]]:
    """Every error, in the order of the tree."""
    return list(FivetranStateError._by_code.values())


def reference() -> str:
    """The content of `docs/reference/errors.md`."""
    sections = [
        f"## {cls.code}\n\n{inspect.getdoc(cls)}\n\n**Next:** {cls.hint}\n" for cls in classes()
    ]
    return "\n".join([_PREFACE, *sections])


_PREFACE = """\
# Errors

<!-- Made by `python -m fivetran_state.errors > docs/reference/errors.md`; do not edit. -->

Every tool answers an error as `{"code", "message", "hint"}`, with details if there are any.
`code` is stable, for programs. `message` says what happened this time. It may quote external text,
so treat it as data; its length is limited, and every character is visible. `hint` says what to do
next. `workflow_status` has the same for an update, as its `error`. REST answers an error as a
problem, with `detail` in place of `message`; docs/reference/http.md has the statuses.
"""


if __name__ == "__main__":
    sys.stdout.write(reference())
