"""The models that the surfaces return. Every model is JSON; an empty field is left out."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from fivetran_state import state
from fivetran_state.phases import Phase

SHOWN_CHANGES = 20
SHOWN_CHARACTERS = 200


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    _null_says_something: ClassVar[frozenset[str]] = frozenset()

    def to_json(self, *, exactly: bool = False) -> dict[str, Any]:
        """Its fields, without the empty ones.

        `exactly`: values of a state stay as they are, for `state.dump`.
        """
        return {
            name: _to_json(value, exactly)
            for name, value in self
            if value is not None or name in self._null_says_something & self.model_fields_set
        }


def _to_json(value: Any, exactly: bool) -> Any:
    # pydantic's exclude_none would also drop the nulls of a state.
    if isinstance(value, Model):
        return value.to_json(exactly=exactly)
    if isinstance(value, list):
        return [_to_json(item, exactly) for item in value]
    return value if exactly else state.plain(value)


class Change(Model):
    """Values are exact JSON, cut when long."""

    op: Literal["add", "remove", "replace"]
    path: str
    before: str | None = None
    after: str | None = None


def changes_between(before: state.Document, after: state.Document) -> tuple[list[Change], int]:
    """The first `SHOWN_CHANGES` differences, and how many there are."""

    def shown(value: state.JsonValue | state.RawDocument) -> str:
        return state.preview(value, SHOWN_CHARACTERS)

    found = state.diff(before, after, limit=SHOWN_CHANGES)
    changes = [
        Change(
            op=entry.op,
            path=state.shown_path(entry.path),
            before=None if entry.op == "add" else shown(entry.before),
            after=None if entry.op == "remove" else shown(entry.after),
        )
        for entry in found.changes
    ]
    return changes, found.total


class ConnectionFacts(Model):
    """The facts that distinguish connections, and what is unusual about one."""

    name: str = Field(description="Its schema name.")
    service: str
    group_id: str
    group_name: str | None = None
    paused: bool
    sync_state: str
    setup_state: str | None = None
    """Only if it is not connected: then it does not sync."""
    schedule_type: str | None = None
    """Only if it is manual: then no sync starts by itself."""
    is_historical_sync: bool | None = Field(
        None, description="Only if true: a re-sync, which begins empty, is pending or running."
    )


class ConnectionSummary(ConnectionFacts):
    id: str
    keeps_state: bool
    unusable_because: str | None = None


class ConnectionPage(Model):
    connections: list[ConnectionSummary]
    next_cursor: str | None = None
    """Pass it as cursor to get more."""


class OutlineEntry(Model):
    path: str
    type: str
    bytes: int
    items: int | None = None
    preview: str | None = None


class Seen(Model):
    """When a past state was seen, and how it came about."""

    seen_from: str
    seen_until: str
    next_seen: str | None = None
    """When another state was first seen."""
    is_certain: bool | None = Field(None, description="It was also seen after that time.")
    kind: str | None = None
    """The kind of its `HistoryEntry`."""
    workflow_id: str | None = None


class StateView(Model):
    """A state. For a past one, the fields about its connection are left out."""

    _null_says_something: ClassVar[frozenset[str]] = frozenset({"state"})

    connection_id: str
    name: str | None = None
    service: str | None = None
    group_id: str | None = None
    group_name: str | None = None
    paused: bool | None = None
    sync_state: str | None = None
    setup_state: str | None = None
    schedule_type: str | None = None
    is_historical_sync: bool | None = None
    seen: Seen | None = None
    """Only for a past state."""
    version: str = Field(description="Of the whole state, for expected_version of update_state.")
    path: str | None = None
    bytes: int = Field(description="Of the value at path.")
    state: Any = Field(None, description="The value at path.")
    state_json: str | None = Field(
        None,
        description="JSON text instead, if it hides characters or is not a state.",
    )
    problem: str | None = Field(
        None, description="Why it is not usable; only a new_state can replace it."
    )
    hint: str | None = None
    """How to get what is not shown."""
    outline: list[OutlineEntry] | None = Field(
        None, description="Of a large state, or what search found; go deeper with path."
    )
    matches_total: int | None = None
    """The number of values that a search found."""
    next_cursor: str | None = None
    """Pass it as cursor to get more of the outline."""
    exact_numbers: dict[str, str] | None = Field(
        None, description="By path, numbers that a double cannot hold."
    )
    update_in_progress: str | None = Field(None, description="A workflow_id.")


class Failure(Model):
    code: str
    message: str
    hint: str


ProposalState = Literal["proposed", "approved", "rejected", "withdrawn", "expired"]


class Update(Model):
    """A plan, a proposal, or a running or ended update."""

    connection_id: str
    status: (
        Literal["planned", "running", "updated", "unchanged", "cancelled", "failed"] | ProposalState
    )
    message: str
    """What happened, and what to do next."""
    workflow_id: str | None = None
    phase: Phase | None = None
    version_before: str | None = None
    version_after: str | None = None
    changes: list[Change] | None = None
    changes_total: int | None = None
    was_paused: bool | None = None
    paused_by_update: bool = False
    """Paused by this update, and not yet resumed."""
    paused_seconds: float | None = None
    kept_numbers: list[str] | None = Field(
        None, description="Paths where the given number looks rounded."
    )


Mode = Literal["all_or_nothing", "independent"]
"""Whether one failure in a group undoes all of it, or each connection succeeds or fails alone."""
GroupState = Literal["running", "updated", "partly_updated", "cancelled", "failed"] | ProposalState


class Kind(Model):
    """Connections that would be changed in the same places."""

    connections: int
    changes: list[str]
    """Such as `replace /cursor`."""


class MemberPlan(Model):
    """What would change at one connection of a group, or why it cannot be changed."""

    connection_id: str
    version_before: str | None = None
    version_after: str | None = None
    changes: list[Change] | None = Field(None, description="The first few.")
    changes_total: int | None = None
    warnings: list[str] | None = None
    error: Failure | None = None


class GroupPlanView(Model):
    """The plan of a change of several connections."""

    status: Literal["planned"] = "planned"
    message: str
    version: str | None = Field(
        None, description="For expected_version. Left out for a further page, which is only a part."
    )
    mode: Mode
    total: int
    changed: int
    unchanged: int
    failed: int
    calls: int = Field(description="To Fivetran's API, of which an hour has a limited number.")
    seconds: float = Field(description="About how long it takes.")
    kinds: list[Kind]
    failures: list[MemberPlan] = Field(description="The first that cannot be changed.")
    connections: list[MemberPlan] = Field(description="The first that would change.")
    more: int | None = Field(None, description="How many more would.")
    next_cursor: str | None = Field(
        None, description="Pass it as cursor to see what is not shown, connection by connection."
    )


class UpdatesView(Model):
    """A group of connections that are changed together."""

    workflow_id: str
    status: GroupState
    message: str
    """What happened, and what to do next."""
    mode: Mode
    total: int
    counts: dict[str, int] = Field(description="Connections by outcome, error code or progress.")
    updates: list[Update] = Field(
        description="The updates in order; of more than a hundred, those that failed or run first."
    )
    not_started: list[MemberPlan] | None = Field(
        None, description="The first connections without an update that failed."
    )
    error: Failure | None = Field(None, description="The worst that went wrong.")


class Since(Model):
    """Events since an update ended."""

    sync: Literal["none", "running", "succeeded", "failed"]
    state_moved: bool | None = None
    version: str | None = Field(None, description="Of the current state.")


class StepView(Model):
    name: str
    started_at: str | None = None
    seconds: float | None = None
    error: str | None = None


class WorkflowView(Update):
    part_of: str | None = None
    """The workflow_id of its group."""
    steps: list[StepView]
    reason: str | None = None
    asked_by: str | None = None
    agreed_by: str | None = None
    started_at: str
    ended_at: str | None = None
    error: Failure | None = None
    since: Since | None = None


class ProposalView(Model):
    """A change that waits until a person decides, or what became of it."""

    workflow_id: str
    status: ProposalState
    message: str
    """What happened, and what to do next."""
    connection_ids: list[str] = Field(description="The first of those that it changes.")
    total: int = Field(description="How many connections it changes.")
    change: str = Field(description="Its kind, or where the state came from.")
    reason: str | None = None
    asked_by: str
    asked_at: str
    expires_at: str
    decided_by: str | None = None
    note: str | None = Field(None, description="Why it was rejected.")
    update: str | None = Field(
        None, description="The workflow_id of the update or group that the approval has started."
    )
    last_problem: Failure | None = Field(
        None, description="Why there is no plan, or why the last approval started nothing."
    )
    plan: Update | GroupPlanView | None = Field(
        None, description="On the present states. To approve it, name its version."
    )


class ProposalPage(Model):
    proposals: list[ProposalView]


class WorkflowSummary(Model):
    workflow_id: str
    part_of: str | None = Field(None, description="The workflow_id of its group.")
    status: str
    change: str = Field(description="Its kind, or where the state came from.")
    reason: str | None = None
    asked_by: str | None = None
    agreed_by: str | None = None
    version_before: str | None = None
    version_after: str | None = None
    changes_total: int | None = None
    error: str | None = Field(None, description="A code; see workflow_status.")
    started_at: str


class WorkflowPage(Model):
    workflows: list[WorkflowSummary]
    next_cursor: str | None = Field(None, description="Pass it as cursor to get older ones.")
    message: str | None = Field(None, description="Explains an empty page.")


HistoryKind = Literal["sync", "update", "others", "first look"]
"""What moved a state; first look: unknown."""


class HistoryEntry(Model):
    """A version that a state had, or an update that made none."""

    at: str
    """When it was first seen; for an update without a version, when it started."""
    kind: HistoryKind = Field(description="What made it; first look: unknown.")
    version: str | None = None
    seen_until: str | None = None
    changes: list[Change] | None = None
    """The first of what moved."""
    changes_total: int | None = None
    workflow_id: str | None = None
    part_of: str | None = None
    """The workflow_id of its group."""
    status: str | None = None
    change: str | None = None
    """Its kind, or where the state came from."""
    reason: str | None = None
    asked_by: str | None = None
    agreed_by: str | None = None
    error: str | None = Field(None, description="workflow_status tells more.")


class HistoryPage(Model):
    entries: list[HistoryEntry]
    next_cursor: str | None = None
    """Pass it as cursor to get older ones."""
    message: str | None = None
    """The reason for an empty page."""


class Difference(Model):
    """The differences between two states of a connection."""

    connection_id: str
    version_before: str
    version_after: str
    seen_before: Seen | None = None
    seen_after: Seen | None = Field(None, description="Left out for the present state.")
    changes: list[Change] = Field(description="The first of them.")
    changes_total: int
