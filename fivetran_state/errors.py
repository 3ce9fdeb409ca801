"""Every error that a caller of this project can meet, as one tree.

FivetranStateError
├── InvalidRequest            invalid_request
├── MissingCredentials        missing_credentials
├── NotAllowed                not_allowed
├── InsufficientScope         insufficient_scope
├── CannotServe               cannot_serve
├── AuthenticationUnavailable authentication_unavailable
├── EngineNotReady            engine_not_ready
├── DatabaseUnavailable       database_unavailable
├── UnusableKey               unusable_key
├── WorkflowNotFound          workflow_not_found
├── UpdateInProgress          update_in_progress
├── IdempotencyKeyReused      idempotency_key_reused
├── Conflict                  conflict
├── InvalidChange             invalid_change
├── NotConfirmed              not_confirmed
├── Cancelled                 cancelled
├── Undone                    undone
├── TooLateToCancel           too_late_to_cancel
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
and details (JSON values). It crosses a DBOS checkpoint as exactly that, and comes back as the
same class.
"""

import inspect
import sys
from typing import Any, ClassVar

from fivetran_state.text import shown

LONGEST_MESSAGE = 900
"""Characters; a message may quote what came from outside."""


class FivetranStateError(Exception):
    """The root of the tree; never raised itself."""

    code: ClassVar[str] = "error"
    hint: ClassVar[str] = ""

    _by_code: ClassVar[dict[str, type["FivetranStateError"]]] = {}

    def __init__(self, message: str, **details: Any) -> None:
        self.message = shown(message, LONGEST_MESSAGE)
        self.details: dict[str, Any] = {
            name: shown(value, LONGEST_MESSAGE) if isinstance(value, str) else value
            for name, value in details.items()
        }
        super().__init__(self.message)

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
        return cls(stored["message"], **details)


class InvalidRequest(FivetranStateError):
    """An argument is missing, malformed, leads nowhere or contradicts another; nothing was changed."""

    code = "invalid_request"
    hint = "Correct the arguments that the message names, and call again."


class MissingCredentials(FivetranStateError):
    """Neither the server nor the request has a Fivetran API key; nothing was sent."""

    code = "missing_credentials"
    hint = (
        "Set FIVETRAN_API_KEY and FIVETRAN_API_SECRET in the server's environment and restart it, "
        "or start it with --sandbox to try it without an account. A REST request may bring api_key "
        "and api_secret itself."
    )


class NotAllowed(FivetranStateError):
    """The server's operator has not allowed this connection, or any change; nothing was changed."""

    code = "not_allowed"
    hint = (
        "Calling again will not help: ask the operator, who decides by "
        "FIVETRAN_STATE_ALLOWED_CONNECTIONS and FIVETRAN_STATE_READ_ONLY."
    )


class InsufficientScope(FivetranStateError):
    """The caller's token does not allow this call; nothing was done."""

    code = "insufficient_scope"
    hint = "Use a token with that scope; to see what a change would do, read is enough: dry_run."


class CannotServe(FivetranStateError):
    """The HTTP server does not start the way it is set up."""

    code = "cannot_serve"
    hint = "docs/http.md says who may, and how."


class AuthenticationUnavailable(FivetranStateError):
    """Tokens cannot be checked at the moment: the file, or the issuer's keys, cannot be had."""

    code = "authentication_unavailable"
    hint = "Call again in a minute; if it persists, read the server's log on stderr."


class EngineNotReady(FivetranStateError):
    """The workflow engine has not come up; no state was read or changed by this call."""

    code = "engine_not_ready"
    hint = (
        "Call again in a few seconds. If the message stays the same, correct what it names, or "
        "read the server's log on stderr; `fivetran-state doctor` checks the set-up."
    )


class DatabaseUnavailable(FivetranStateError):
    """The database of updates cannot be reached; updates in flight wait for it, none is lost."""

    code = "database_unavailable"
    hint = (
        "Call again, with the same arguments, when the database is back: a repeated request "
        "attaches to the update that it may have started."
    )


class UnusableKey(FivetranStateError):
    """The key that opens what is stored is missing, malformed or another one; nothing was changed."""

    code = "unusable_key"
    hint = (
        "Set FIVETRAN_STATE_SECRET_KEY to the key that this database was used with and restart the "
        "server; after a change of keys, add the old one behind the new one, after a comma."
    )


class WorkflowNotFound(FivetranStateError):
    """There is no such update of this account, it is too old, or it ended before it had read a state."""

    code = "workflow_not_found"
    hint = "Find the workflow_id, such as speak_inexpensive:1, with list_workflows."


class UpdateInProgress(FivetranStateError):
    """Another update of this connection has not ended, so this one was not started.

    Details: `workflow_id`, of the other.
    """

    code = "update_in_progress"
    hint = (
        "Follow the other update with workflow_status, or end it with cancel_update. When it has "
        "ended, read the state again and decide anew."
    )


class IdempotencyKeyReused(FivetranStateError):
    """The idempotency key belongs to an update that was asked for differently; nothing was started.

    Details: `workflow_id`, of that update.
    """

    code = "idempotency_key_reused"
    hint = "Use a new key for a new change, or leave the key out."


class Conflict(FivetranStateError):
    """The state is not the version that was expected, or somebody changed it while the update ran.

    What is there now was left as it is, and the connection is as paused as it was before.
    Details: `current_version`.
    """

    code = "conflict"
    hint = (
        "Read the state again with get_state, check that the change still makes sense, and send "
        "the new version. If syncs keep moving the state, the user may pause the connection first."
    )


class InvalidChange(FivetranStateError):
    """The change cannot be applied to the state as it is; nothing was written."""

    code = "invalid_change"
    hint = "Read the state again with get_state and correct what the message names in the change."


class NotConfirmed(FivetranStateError):
    """The user who was asked has not agreed; nothing was written."""

    code = "not_confirmed"
    hint = (
        "Ask the user what they want instead before you try again. Where nobody can answer, the "
        "operator sets FIVETRAN_STATE_CONFIRM=never."
    )


class Cancelled(FivetranStateError):
    """Somebody cancelled the update; nothing was written, and the connection is as it was before."""

    code = "cancelled"
    hint = "Start a new update if it is wanted after all."


class Undone(FivetranStateError):
    """Another connection that was to be changed together with this one could not be: the state from
    before was put back and checked, the connection is as it was."""

    code = "undone"
    hint = "See what kept the other connection from being updated, and send the request again."


class TooLateToCancel(FivetranStateError):
    """The update has ended, so there is nothing to cancel any more.

    Details: `workflow_id`.
    """

    code = "too_late_to_cancel"
    hint = (
        "If it has ended as updated, undo it: update_state with this workflow_id as restore_from. "
        "Otherwise nothing is left to do; workflow_status tells how it ended."
    )


class SyncStillRunning(FivetranStateError):
    """The running sync did not finish in time; nothing was written, the connection is as it was."""

    code = "sync_still_running"
    hint = (
        "Try again when get_state no longer shows the connection as syncing, or have the operator "
        "raise FIVETRAN_STATE_SYNC_WAIT."
    )


class VerificationFailed(FivetranStateError):
    """Fivetran did not keep what was written; the state from before was put back and checked."""

    code = "verification_failed"
    hint = (
        "Nothing is broken: the state is as before. Look in the change for what Fivetran may not "
        "keep as it is, such as very large or unusual values, and try a smaller change."
    )


class RollbackFailed(FivetranStateError):
    """Fivetran did not keep what was written, and the state from before could not be put back.

    The state may be the old one, the new one or neither. The connection is as paused as it was
    before, so that a running one may sync with it.
    """

    code = "rollback_failed"
    hint = (
        "Act before the next sync: pause the connection in Fivetran, read the state with get_state, "
        "and put it right, for example with this workflow_id as restore_from, which is the state "
        "from before."
    )


class LeftPaused(FivetranStateError):
    """Fivetran refused for a day to resume the connection: the connection is still paused.

    Details: `still_paused`, and `so_far`, which tells what was or was not written before that.
    """

    code = "left_paused"
    hint = (
        "Resume the connection in Fivetran: until then its data stands still. Correct what the "
        "message names first, such as the API key or its role."
    )


class InternalError(FivetranStateError):
    """A fault of this program. An update that was begun goes on, or ends with the connection resumed."""

    code = "internal_error"
    hint = (
        "Look with list_workflows whether an update is running or how it ended; read the server's "
        "log on stderr, and report it."
    )


class FivetranError(FivetranStateError):
    """Fivetran refused a call in a way that has no code of its own; an update then wrote nothing.

    Details: `status` (HTTP), `fivetran_code`, `fivetran_message`; they come with each error that
    follows here, if Fivetran gave them.
    """

    code = "fivetran_error"
    hint = (
        "Correct what fivetran_message names. If it is a 5xx or makes no sense, call again later."
    )


class Unauthorized(FivetranError):
    """Fivetran does not accept the API key (401); nothing was changed by this call."""

    code = "unauthorized"
    hint = (
        "Make FIVETRAN_API_KEY and FIVETRAN_API_SECRET in the server's environment a key that is "
        "valid in Fivetran, and restart the server; or the api_key and api_secret that the REST "
        "request brought."
    )


class Forbidden(FivetranError):
    """The role of the API key does not allow the call (403); nothing was changed by this call."""

    code = "forbidden"
    hint = (
        "Have an administrator of the Fivetran account give the key's user a role that may read "
        "and edit this connection."
    )


class ConnectionNotFound(FivetranError):
    """There is no such connection in the account, or somebody has deleted it (404)."""

    code = "connection_not_found"
    hint = "Find the connection's id with list_connections."


class StateNotKept(FivetranError):
    """The connection's service keeps no state: only Functions and Connector SDK do."""

    code = "state_not_kept"
    hint = "Choose a connection for which list_connections says keeps_state."


class NoStateYet(FivetranError):
    """Nothing has been written to the connection's state yet (400).

    It counts as an empty state, so that no tool answers with it.
    """

    code = "no_state_yet"
    hint = "Go on as with an empty state, {}."


class SyncRunning(FivetranError):
    """A sync is in the way of the change (409); met only within an update's steps.

    The update waits for the sync to end, and then tries again.
    """

    code = "sync_running"
    hint = "Wait: the update goes on by itself. Follow it with workflow_status."


class InvalidStateDocument(FivetranError):
    """Fivetran's state cannot be handled safely: no object, a key twice, too deep or too large."""

    code = "invalid_state_document"
    hint = (
        "Correct the state by other means first (Fivetran's API, or the connector's own code): "
        "this server refuses to change what it cannot read exactly."
    )


class RateLimited(FivetranError):
    """The account's request limit is used up (429). An update waits for it by itself.

    Details: `retry_after`, in seconds.
    """

    code = "rate_limited"
    hint = "Call again after retry_after seconds, not before: every call counts."


class FivetranUnavailable(FivetranError):
    """Fivetran did not answer, or answered what cannot be used.

    An update that has paused a connection does not end with this while it lasts, but keeps trying
    for a day. Details: `maybe_applied`, if a change may have taken effect all the same.
    """

    code = "fivetran_unavailable"
    hint = (
        "Call again in a minute. If it persists, look at Fivetran's status page, and check "
        "FIVETRAN_API_URL and the network."
    )


def reference() -> str:
    """The page `docs/errors.md`."""
    sections = [
        f"## {cls.code}\n\n{inspect.getdoc(cls)}\n\n**Next:** {cls.hint}\n"
        for cls in FivetranStateError._by_code.values()
    ]
    return "\n".join([_PREFACE, *sections])


_PREFACE = """\
# Errors

<!-- Made by `python -m fivetran_state.errors > docs/errors.md`; do not edit. -->

Every tool answers an error as `{"code", "message", "hint"}`, and details where there are any.
`code` is stable, for programs. `message` says what happened this time; it may quote what came from
outside, so it is data, bounded, with every character visible. `hint` says what to do next.
The `error` of an update in `workflow_status` is the same. REST answers it as a problem, with
`detail` in place of `message`; docs/http.md has the statuses.
"""


if __name__ == "__main__":
    sys.stdout.write(reference())
