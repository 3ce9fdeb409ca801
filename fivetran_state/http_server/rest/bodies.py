"""The bodies and queries of requests, and the answers that only REST has."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    Secret,
    model_validator,
)
from typing_extensions import Self

from fivetran_state import changes, large, state
from fivetran_state.changes import MAX_CONNECTIONS as MAX_MEMBERS
from fivetran_state.changes import GroupChange
from fivetran_state.models import Failure, Mode, Model, Update

MAX_CONNECTIONS = 100
"""Connections in one request."""
ConnectionId = Annotated[str, Field(max_length=200, examples=["speak_inexpensive"])]
ConnectionIds = Annotated[list[ConnectionId], Field(min_length=1, max_length=MAX_CONNECTIONS)]
NONE_IF_EMPTY = BeforeValidator(lambda value: None if value == "" else value)
"""For optional text: an empty text counts as unset."""
# Pydantic accepts half of a surrogate pair in SecretStr, and in a str without a limit.
ApiSecret = Secret[
    Annotated[
        str,
        Field(max_length=500, json_schema_extra={"format": "password", "writeOnly": True}),
    ]
]


def _with_example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


class Body(BaseModel):
    """The fields of every request: credentials, unless it is for the server's own account."""

    model_config = ConfigDict(extra="forbid")

    api_key: Annotated[
        str | None, Field(max_length=500, description="A Fivetran API key, for this request only.")
    ] = None
    api_secret: ApiSecret | None = None

    @property
    def is_original(self) -> bool:
        """True for a body with credentials, which is all that the original tool took: it had no
        versions, so its changes apply to whatever is there."""
        return self.api_key is not None


class CancelUpdate(Body):
    model_config = _with_example()


class GetState(Body):
    model_config = _with_example(connection_id="speak_inexpensive")

    connection_id: ConnectionId
    path: Annotated[
        str | None,
        Field(description="JSON Pointer to a part of the state, such as /orders."),
        NONE_IF_EMPTY,
    ] = None


class GetStates(Body):
    model_config = _with_example(connection_ids=["speak_inexpensive", "bullion_shutdown"])

    connection_ids: ConnectionIds


class _Change(BaseModel):
    """A change of a state, with exact numbers."""

    new_state: Annotated[dict[str, Any] | None, Field(description="The whole new state.")] = None
    merge_patch: Annotated[dict[str, Any] | None, Field(description="RFC 7386.")] = None
    json_patch: Annotated[
        list[dict[str, Any]] | None,
        Field(max_length=state.MAX_OPERATIONS, description="RFC 6902."),
    ] = None
    copy_from: Annotated[
        str | None,
        Field(
            max_length=500,
            description="Another connection: the state it has now, or with @ and a time or version, had.",
        ),
        NONE_IF_EMPTY,
    ] = None
    _read: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _remember(cls, read: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        body = handler(read)
        body._read = read
        return body

    async def change(self) -> dict[str, object]:
        """Each kind of change as JSON text with exact numbers."""
        given = {"new_state": self.new_state, "merge_patch": self.merge_patch}
        # `_Exact` has parsed the body, so every number has its original spelling.
        exact: dict[str, object] = {
            kind: None if value is None else await large.run(state.dump, value)
            for kind, value in (given | {"json_patch": self.json_patch}).items()
        }
        # Free this memory: the caller may wait for hours, and FastAPI keeps the parsed body as
        # long.
        self.new_state = self.merge_patch = self.json_patch = None
        self._read.clear()
        return exact | {"copy_from": self.copy_from}


class _Changing(_Change, Body):
    then_sync: Annotated[bool, Field(description="Start a sync afterwards.")] = False
    allow_resync: Annotated[
        bool, Field(description="Write even if a pending historical re-sync will overwrite it.")
    ] = False
    reason: Annotated[str | None, Field(max_length=500), NONE_IF_EMPTY] = None


class _Restoring(_Change):
    restore_from: Annotated[
        str | None,
        Field(
            max_length=500,
            description="A workflow_id (the state before that update), a time with zone, or a version: "
            "puts that state back.",
        ),
        NONE_IF_EMPTY,
    ] = None
    only: Annotated[
        str | None,
        Field(description="JSON Pointer: with restore_from or copy_from, changes this part only."),
        NONE_IF_EMPTY,
    ] = None

    async def change(self) -> dict[str, object]:
        return await super().change() | {"restore_from": self.restore_from}


ExpectedVersion = Annotated[
    str | None,
    # An empty text may come from a variable that was never set: it must not mean any version.
    Field(
        min_length=1,
        max_length=500,
        description="The version that you saw, or * for whatever is there. A change needs it.",
        examples=["0f3a9c1d5e7b2a4c6d8e0f1a2b3c4d5e"],
    ),
]
ANY_VERSION = "*"
DryRun = Annotated[bool, Field(description="Only return the plan.")]


Propose = Annotated[
    bool, Field(description="Make no change: let a person with the scope approve agree first.")
]


class ApproveProposal(BaseModel):
    model_config = _with_example(expected_version="0f3a9c1d5e7b2a4c6d8e0f1a2b3c4d5e")

    expected_version: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=500,
            description="Of the plan that you saw, unless If-Match has it.",
        ),
    ] = None


class RejectProposal(BaseModel):
    model_config = _with_example(reason="Wait for the backfill of orders.")

    reason: Annotated[str | None, Field(max_length=500), NONE_IF_EMPTY] = None


class UpdateState(_Restoring, _Changing):
    model_config = _with_example(
        connection_id="bullion_shutdown",
        new_state={"cursor": "2025-03-06 20:20:20"},
        expected_version="0f3a9c1d5e7b2a4c6d8e0f1a2b3c4d5e",
    )

    connection_id: ConnectionId
    expected_version: ExpectedVersion = None
    dry_run: DryRun = False
    propose: Propose = False

    @property
    def says_more(self) -> bool:
        """True if the body has options of a change; then a missing change is a mistake."""
        texts = (self.expected_version, self.reason, self.only)
        flags = self.dry_run or self.propose or self.then_sync or self.allow_resync
        return flags or any(text is not None for text in texts)


class UpdateStates(_Changing):
    model_config = _with_example(
        connection_ids=["bullion_shutdown", "gentle_harbour"],
        new_state={"cursor": "2025-03-06 20:20:20"},
        expected_version="*",
    )

    connection_ids: ConnectionIds
    expected_version: Annotated[
        Literal["*"] | None,
        Field(description="* for whatever is there. Needed unless the body has an api_key."),
    ] = None


class ConnectionFilter(BaseModel):
    """Chooses the connections that keep a state and fit all that is given."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None,
        Field(max_length=200, description="A glob on the id or the name, such as orders_*."),
        NONE_IF_EMPTY,
    ] = None
    group: Annotated[
        str | None, Field(max_length=200, description="A group's id or name."), NONE_IF_EMPTY
    ] = None
    service: Annotated[
        str | None, Field(max_length=200, description="Such as connector_sdk."), NONE_IF_EMPTY
    ] = None


class OneChange(_Restoring):
    """The change of one of several connections."""

    model_config = ConfigDict(extra="forbid")

    connection_id: ConnectionId


class ChangeStates(_Restoring, _Changing):
    model_config = _with_example(
        filter={"group": "warehouse"},
        merge_patch={"orders": {"cursor": "2026-01-01T00:00:00Z"}},
        expected_version="0f3a9c1d5e7b2a4c6d8e0f1a2b3c4d5e",
    )

    connection_ids: Annotated[list[ConnectionId] | None, Field(max_length=MAX_MEMBERS)] = None
    filter: ConnectionFilter | None = None
    changes: Annotated[
        list[OneChange] | None,
        Field(
            max_length=MAX_MEMBERS,
            description="A change for each, in place of one for all.",
        ),
    ] = None
    undo: Annotated[
        str | None,
        Field(max_length=500, description="The workflow_id of a group: puts back what it changed."),
        NONE_IF_EMPTY,
    ] = None
    mode: Annotated[
        Mode,
        Field(description="independent: each connection succeeds or fails by itself."),
    ] = "all_or_nothing"
    if_busy: Annotated[
        Literal["refuse", "wait"],
        Field(description="What to do about a connection whose update is running."),
    ] = "refuse"
    expected_version: ExpectedVersion = None
    dry_run: DryRun = False
    propose: Propose = False
    cursor: Annotated[
        str | None,
        Field(
            max_length=2000,
            description="With dry_run, a plan's next_cursor: only the next connections are looked at.",
        ),
        NONE_IF_EMPTY,
    ] = None

    async def chosen(self) -> GroupChange:
        """The change of each connection; raises `InvalidRequest`."""
        given = await self.change()
        choice = changes.the_one_choice(
            {
                "connection_ids": self.connection_ids,
                "filter": self.filter,
                "changes": self.changes,
                "undo": self.undo,
            }
        )
        if choice in ("connection_ids", "filter"):
            change = await changes.parse(given, self.only)
            if self.filter is None:
                return changes.for_each(self.connection_ids or (), change)
            return changes.fitting(changes.Filter(**self.filter.model_dump()), change)
        changes.refuse_another(choice, given, self.only)
        if self.undo is not None:
            return changes.Undo(self.undo)
        each = [
            {"connection_id": one.connection_id, "only": one.only} | await one.change()
            for one in self.changes or ()
        ]
        return await changes.parse_each(each)


NotUsable = Annotated[
    str | None,
    Field(
        description="The state that the update found, as JSON text, if it is not a usable state."
    ),
]


class Unchanged(Model):
    """The answer to an update without a change."""

    connection_id: str
    message: str
    version: str
    current_state: Any = None
    current_state_json: NotUsable = None
    problem: Annotated[str | None, Field(description="Why it is not a usable state.")] = None


class NotRead(Model):
    """In place of a state that cannot be read."""

    connection_id: str
    error: Failure


class Updated(Update):
    """An update that succeeded, with the states before and after."""

    current_state: Any = None
    current_state_json: NotUsable = None
    verified_state: Any = None


class PageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[
        str | None, Field(max_length=2000, description="next_cursor."), NONE_IF_EMPTY
    ] = None


class ConnectionsQuery(PageQuery):
    name: Annotated[
        str | None, Field(max_length=200, description="Part of the id or name."), NONE_IF_EMPTY
    ] = None
    service: Annotated[
        str | None, Field(max_length=200, description="Such as connector_sdk."), NONE_IF_EMPTY
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


At = Annotated[
    str,
    Field(
        max_length=500,
        description="A time with zone, a version, or a workflow_id (the state before that update).",
        examples=["2026-11-24T08:00Z"],
    ),
]
Time = Annotated[str, Field(max_length=100, description="A time with zone.")]
Path = Annotated[str, Field(max_length=10_000, description="JSON Pointer, such as /orders.")]


class StateQuery(PageQuery):
    at: Annotated[At | None, NONE_IF_EMPTY] = None
    path: Annotated[Path | None, NONE_IF_EMPTY] = None
    search: Annotated[
        str | None,
        Field(
            max_length=state.MAX_PATH_LENGTH,
            description="Part of a path, in any case: lists the values that it finds, at any depth.",
        ),
        NONE_IF_EMPTY,
    ] = None


class HistoryQuery(PageQuery):
    path: Annotated[Path | None, NONE_IF_EMPTY] = None
    kind: Annotated[Literal["sync", "update", "others"] | None, NONE_IF_EMPTY] = None
    since: Annotated[Time | None, NONE_IF_EMPTY] = None
    until: Annotated[Time | None, NONE_IF_EMPTY] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class DiffQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    from_: Annotated[At, Field(alias="from")]
    to: Annotated[At | None, Field(description="Without it, the present state."), NONE_IF_EMPTY] = (
        None
    )
    path: Annotated[Path | None, NONE_IF_EMPTY] = None


class WorkflowsQuery(PageQuery):
    connection_id: Annotated[
        ConnectionId | None,
        Field(description="Without it, the updates of all connections."),
        NONE_IF_EMPTY,
    ] = None
    status: Annotated[
        Literal["running", "updated", "unchanged", "cancelled", "failed"] | None, NONE_IF_EMPTY
    ] = None
    asked_by: Annotated[
        str | None,
        Field(max_length=500, description="A principal, such as token:1a2b3c4d."),
        NONE_IF_EMPTY,
    ] = None
    since: Annotated[
        Time | None, Field(description="Started then or later; a time with zone."), NONE_IF_EMPTY
    ] = None
    until: Annotated[
        Time | None, Field(description="Started before; a time with zone."), NONE_IF_EMPTY
    ] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class WaitQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: Annotated[float, Field(ge=0, le=3600, description="Seconds to wait for the end.")] = 0
