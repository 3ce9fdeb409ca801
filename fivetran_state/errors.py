"""Every error that a caller of this project can meet, as one tree.

FivetranStateError
├── InvalidRequest            invalid_request
├── MissingCredentials        missing_credentials
├── NotAllowed                not_allowed
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

from typing import Any, ClassVar


class FivetranStateError(Exception):
    """The root of the tree; never raised itself."""

    code: ClassVar[str] = "error"
    hint: ClassVar[str] = ""

    _by_code: ClassVar[dict[str, type["FivetranStateError"]]] = {}

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

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
    """An argument is missing, malformed or contradicts another one; nothing was sent."""

    code = "invalid_request"
    hint = "Correct the arguments and call again."


class MissingCredentials(FivetranStateError):
    """The server was started without a Fivetran API key."""

    code = "missing_credentials"
    hint = (
        "Set FIVETRAN_API_KEY and FIVETRAN_API_SECRET in the server's environment and restart it, "
        "or start it with --sandbox to try it without an account."
    )


class NotAllowed(FivetranStateError):
    """The operator of this server has not allowed this connection or this kind of call."""

    code = "not_allowed"
    hint = "Ask the operator: FIVETRAN_STATE_ALLOWED_CONNECTIONS or FIVETRAN_STATE_READ_ONLY."


class EngineNotReady(FivetranStateError):
    """The workflow engine has not come up; nothing was sent to Fivetran."""

    code = "engine_not_ready"
    hint = "Call again in a few seconds; if it persists, read the server's log on stderr."


class DatabaseUnavailable(FivetranStateError):
    """The database cannot be reached; updates in flight wait for it."""

    code = "database_unavailable"
    hint = "Call again when the database is back; nothing was lost."


class UnusableKey(FivetranStateError):
    """The key that opens what is stored is missing, malformed, or another one."""

    code = "unusable_key"
    hint = (
        "Set FIVETRAN_STATE_SECRET_KEY to the key that this database was used with; after a change "
        "of keys, add the old one behind the new one, separated by a comma."
    )


class WorkflowNotFound(FivetranStateError):
    """No update of this account has this workflow id."""

    code = "workflow_not_found"
    hint = "Use the workflow_id that update_state returned, of the form <connection_id>:<number>."


class UpdateInProgress(FivetranStateError):
    """Another update of this connection has not ended; `workflow_id` names it."""

    code = "update_in_progress"
    hint = (
        "Follow it with workflow_status; when it has ended, read the state again and decide anew."
    )


class IdempotencyKeyReused(FivetranStateError):
    """The idempotency key belongs to a different request; `workflow_id` names its update."""

    code = "idempotency_key_reused"
    hint = "Use a new key for a new change, or leave the key out."


class Conflict(FivetranStateError):
    """The state is not the version that was expected; nothing was written."""

    code = "conflict"
    hint = (
        "Read the state again, check that the change still makes sense, and send the new version."
    )


class InvalidChange(FivetranStateError):
    """The change cannot be applied to the state as it is; nothing was written."""

    code = "invalid_change"
    hint = "Read the state again and correct the change."


class NotConfirmed(FivetranStateError):
    """The user who was asked has not agreed; nothing was written."""

    code = "not_confirmed"
    hint = (
        "Ask the user what they want instead before you try again. Where nobody can answer, the "
        "operator sets FIVETRAN_STATE_CONFIRM=never."
    )


class Cancelled(FivetranStateError):
    """Somebody cancelled the update; nothing was written, the connection is as it was."""

    code = "cancelled"
    hint = "Start a new update if it is wanted after all."


class TooLateToCancel(FivetranStateError):
    """The update has written its state, or has ended; it cannot be cancelled any more."""

    code = "too_late_to_cancel"
    hint = "Undo it instead: update_state with restore_from and this workflow_id."


class SyncStillRunning(FivetranStateError):
    """The running sync did not finish in time; nothing was written, the connection was resumed."""

    code = "sync_still_running"
    hint = "Try again when the sync has finished, or raise FIVETRAN_STATE_SYNC_WAIT."


class VerificationFailed(FivetranStateError):
    """Fivetran did not keep what was written; the state from before was put back and checked."""

    code = "verification_failed"
    hint = "Read the state; the change may hold something that Fivetran does not accept."


class RollbackFailed(FivetranStateError):
    """Fivetran did not keep what was written, nor the state from before."""

    code = "rollback_failed"
    hint = "Read the state now and correct it before the next sync; it is neither old nor new."


class LeftPaused(FivetranStateError):
    """Fivetran could not be made to resume the connection: the connection is still paused."""

    code = "left_paused"
    hint = "The connection is still paused: resume it in Fivetran."


class InternalError(FivetranStateError):
    """A fault of this program."""

    code = "internal_error"
    hint = "Read the server's log on stderr and report it."


class FivetranError(FivetranStateError):
    """Fivetran refused a call in a way that has no class of its own.

    Details: `status` (HTTP), `fivetran_code`, `fivetran_message`.
    """

    code = "fivetran_error"
    hint = "Fivetran's own code and message say why."


class Unauthorized(FivetranError):
    """Fivetran does not accept the API key (401)."""

    code = "unauthorized"
    hint = "Check FIVETRAN_API_KEY and FIVETRAN_API_SECRET."


class Forbidden(FivetranError):
    """The API key's role does not allow the call (403)."""

    code = "forbidden"
    hint = "Give the key's user a role that may edit this connection."


class ConnectionNotFound(FivetranError):
    """There is no such connection in the account (404)."""

    code = "connection_not_found"
    hint = "List the connections to find the id."


class StateNotKept(FivetranError):
    """The connection's service keeps no state: only Functions and Connector SDK do."""

    code = "state_not_kept"
    hint = "List the connections; keeps_state tells which ones can be edited."


class NoStateYet(FivetranError):
    """Nothing has been written to the connection's state yet (400)."""

    code = "no_state_yet"
    hint = "It counts as an empty state."


class SyncRunning(FivetranError):
    """A sync is in the way of the change (409)."""

    code = "sync_running"
    hint = "Wait for the sync to finish."


class InvalidStateDocument(FivetranError):
    """Fivetran's state document cannot be handled safely (duplicate keys, too deep, too large)."""

    code = "invalid_state_document"
    hint = "Correct the document in Fivetran first."


class RateLimited(FivetranError):
    """The account's request limit is used up (429); `retry_after` is in seconds."""

    code = "rate_limited"
    hint = "Call again after retry_after seconds."


class FivetranUnavailable(FivetranError):
    """Fivetran did not answer, or not in a way that can be understood.

    Detail `maybe_applied`: a change may have taken effect all the same.
    """

    code = "fivetran_unavailable"
    hint = "Call again in a minute; Fivetran's status page tells of outages."
