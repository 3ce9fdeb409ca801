"""What an update's workflow takes, records and returns, and the names that are stored with it."""

from dataclasses import dataclass
from typing import Any, Literal

from dbos import WorkflowStatusString
from typing_extensions import NotRequired, TypedDict

from fivetran_state.errors import FivetranStateError
from fivetran_state.models import Mode
from fivetran_state.phases import Phase
from fivetran_state.updates.ends import End

NAME = "update_state"
GROUP = "together"
"""The name of the workflow that changes a group, and the prefix of its ids."""
REMEMBER_KEY = "remember_key"
PROPOSAL = "proposal"
"""The name of the workflow that waits for a decision, and the prefix of its ids."""
NOTICE = "notice"
"""The name of the workflow that sends a notice, and the prefix of its ids."""
PROGRESS = "progress"
CANCEL = "cancel"
"""The topic of a message, and the attribute of a workflow, that asks it to end without writing."""
GUEST = "guest"
"""The attribute of a workflow whose input holds a guest's credentials; it goes when they do."""
PENDING = WorkflowStatusString.PENDING.value
ENQUEUED = WorkflowStatusString.ENQUEUED.value
RELEASED = "released"
"""The prefix of the executor id of an update that its process gave up."""
ENDED_FROM_OUTSIDE = [
    WorkflowStatusString.CANCELLED.value,
    WorkflowStatusString.MAX_RECOVERY_ATTEMPTS_EXCEEDED.value,
]
"""Statuses that only somebody in the database sets. The engine takes such an update up again, so that
its connection is resumed."""
UNFINISHED = [
    PENDING,
    ENQUEUED,
    WorkflowStatusString.DELAYED.value,
    *ENDED_FROM_OUTSIDE,
]
ABOUT = "about"
"""The attribute with the sealed request, without its change, which may have megabytes."""
OUTSIDE = "outside"
"""The value of a cancel when the workflow was ended in the database."""


class UpdateRequest(TypedDict):
    """The workflow's input. It holds no credentials in the clear; mostly, none at all."""

    connection_id: str
    change_kind: Literal["new_state", "merge_patch", "json_patch", "part"]
    change: str
    """The change's value as exact JSON text."""
    change_is_exact: bool
    source: str | None
    """Where the change came from, if not from the caller: `restore_from X` or `copy_from X`."""
    expected_version: str | None
    reason: str | None
    idempotency_key: str
    key_was_given: bool
    sync_wait: float
    account: NotRequired[str]
    """The account of the connection, if it is not this process's own."""
    credentials: NotRequired[str]
    """Those of that account, sealed; erased when the update has ended."""
    part_of: NotRequired[str]
    """The workflow that changes this connection and others together."""
    mode: NotRequired[Mode]
    """The group's. 0.1 did not record it: it changed all or nothing, one after the other."""
    number: NotRequired[int]
    """The number that the update of a group's member will have, if nobody is first. Left out if the
    connection has a running update, which has to end first."""
    then_sync: NotRequired[bool]
    """Start a sync when the state is written and the connection resumed."""
    allow_resync: NotRequired[bool]
    """Write although a historical re-sync may overwrite it."""
    seen_paused: NotRequired[bool]
    """The connection was paused when this process last saw it: a hint in which order to read."""
    asked_at: NotRequired[float]
    """When, in seconds since the epoch. 0.1 did not record it."""
    asked_by: NotRequired[str]
    """Who asked for it, the name of an `access.Principal`. 0.1 did not record it."""
    agreed_by: NotRequired[str]
    """Who approved it, if it was proposed."""
    trace: NotRequired[str]
    """The span that has started it, as a W3C `traceparent`."""
    resumes: NotRequired[str | None]
    """Only resume the connection: the update that has left it paused, or None if none has."""


class GroupRequest(TypedDict):
    """The input of a group's workflow. That of 0.1 was the list of its members alone."""

    members: list[UpdateRequest]
    mode: Mode
    expected_version: str | None
    """Of the group, as the caller gave it; that of each member is in its request."""
    waits: bool
    """Wait for a connection's running update. Otherwise that is a failure of the connection."""
    left_out: list[End]
    """Connections that were asked for and are no members: `independent` neither starts what cannot
    be changed nor what is as it should be."""
    fingerprint: str
    """Of all that was asked for, by `groups.fingerprint`: the same for an equal request."""
    asked_at: NotRequired[float]
    """When, in seconds since the epoch."""
    trace: NotRequired[str]
    """The span that has started it, as a W3C `traceparent`."""


def members_of(asked: list[UpdateRequest] | GroupRequest) -> list[UpdateRequest]:
    """The requests of a group, one for each connection."""
    return asked if isinstance(asked, list) else asked["members"]


class Sync(TypedDict):
    """The result of `then_sync`."""

    started: bool
    problem: str | None


class Outcome(TypedDict):
    """The result of a workflow that succeeded. 0.1 recorded it without the last fields."""

    outcome: Literal["updated", "unchanged"]
    version_before: str
    version_after: str
    changes: list[dict[str, Any]]
    """`models.Change`, as JSON."""
    changes_total: int
    was_paused: bool
    deleted: bool
    """Somebody deleted the connection before it could be resumed."""
    connection: NotRequired[dict[str, Any]]
    """`fivetran.Connection` as it was last seen."""
    by_others: NotRequired[Literal["paused", "resumed"] | None]
    """What somebody else did to the connection while the update ran."""
    sync: NotRequired[Sync]
    kept_numbers: NotRequired[list[str]]
    """Paths of numbers that were taken for roundings of the exact ones, which were kept."""
    kept_numbers_total: NotRequired[int]


class Progress(TypedDict):
    """The event `progress`: where the workflow is, in a word and in a sentence.

    Set only for what the recorded steps cannot tell: an event costs as much as a step.
    """

    phase: Phase
    message: str
    was_paused: bool | None
    """Before the update; None if that is not known yet."""
    still_paused: bool
    """Paused by this update, or perhaps so; it will be resumed."""


class Snapshot(TypedDict):
    """The state before the write."""

    state: str
    """A `state.Document` as JSON text."""
    version: str
    taken_by: str
    """The run of the workflow that took it: only that one can know that no write was tried since."""
    at: NotRequired[int]
    """When, in milliseconds since 1970. Earlier versions did not record it."""


class Inspection(TypedDict):
    """The connection and its state before anything is touched."""

    connection: dict[str, Any]
    snapshot: Snapshot | None
    """None if there is no state yet."""
    is_settled: bool
    """The state was read after the connection was seen to be drained: no sync can have moved it."""


class Readback(TypedDict):
    """The state after a write, as Fivetran returned it."""

    is_as_written: bool
    found: str | None
    """A `state.Document` as JSON text, if it is not as written; 0.1 did not record it."""
    at: NotRequired[int]
    """When, in milliseconds since 1970. Earlier versions did not record it."""


def owner(request: UpdateRequest) -> str:
    """The prefix of the ids of a connection's updates: its id, after the account's for a guest."""
    account = request.get("account")
    return request["connection_id"] if account is None else f"{account}/{request['connection_id']}"


def is_held(request: UpdateRequest) -> bool:
    """True if the update waits, still paused, until all connections of its group are changed."""
    return "part_of" in request and request.get("mode") != "independent"


def attributes(request: UpdateRequest) -> dict[str, Any]:
    """The workflow's attributes, which say what its input holds."""
    return {GUEST: True} if "credentials" in request else {}


STARTED = Progress(
    phase="inspect",
    message="Looking at the connection.",
    was_paused=None,
    still_paused=False,
)


class Written(TypedDict):
    """Fivetran's answer to a write."""

    answer: str | None
    """The state that it says it keeps, as JSON text, if that is not the one that was written."""


@dataclass(frozen=True)
class Update:
    """One update as the database knows it. Times are milliseconds since the epoch."""

    workflow_id: str
    request: UpdateRequest
    status: Literal["running", "succeeded", "failed"]
    outcome: Outcome | None
    error: FivetranStateError | None
    progress: Progress | None
    was_ended_from_outside: bool
    """Somebody ended its workflow in the database; it was taken up again."""
    created_at: int
    completed_at: int | None


@dataclass(frozen=True)
class Unfinished:
    """The row of a workflow that has not ended, so that a process has to complete it."""

    workflow_id: str
    name: str
    executor_id: str | None
    status: str
    version: str | None

    @property
    def was_ended_from_outside(self) -> bool:
        return self.status in ENDED_FROM_OUTSIDE

    @property
    def is_released(self) -> bool:
        """True if a process gave the update up because Fivetran refused its key."""
        return (self.executor_id or "").startswith(RELEASED)


@dataclass(frozen=True)
class Step:
    """One checkpoint of an update."""

    name: str
    started_at: int | None
    completed_at: int | None
    error: FivetranStateError | None


def request_fingerprint(request: UpdateRequest) -> tuple[Any, ...]:
    change = request["source"] or (request["change_kind"], request["change"])
    return (request["expected_version"], change, request.get("then_sync", False))
