"""REST, for programs: the service's capabilities as routes, with exact numbers both ways.

A request may bring the credentials of an account of its own, in its body or in its headers; then
it is that account whose connections and updates it sees.
"""

import asyncio
import re
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute
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
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from typing_extensions import Self

from fivetran_state import large, state
from fivetran_state.access import READ, WRITE
from fivetran_state.errors import InvalidRequest
from fivetran_state.http_server.gate import demand, requires
from fivetran_state.http_server.problems import PROBLEMS, described, for_rest
from fivetran_state.mcp_server.backend import Backend
from fivetran_state.models import (
    ConnectionPage,
    Model,
    StateView,
    Update,
    UpdatesView,
    WorkflowPage,
    WorkflowView,
)
from fivetran_state.service import Service
from fivetran_state.validation import too_many_unknown

MAX_CONNECTIONS = 100
"""In one request."""
READ_AT_ONCE = 4
MOST_BYTES_AT_ONCE = 20_000_000
"""Of all the states in one answer."""
FOR_EVER = 24 * 3600.0
"""Seconds for which a caller is kept waiting who did not ask for less: an update's own patience."""

ConnectionId = Annotated[str, Field(max_length=200, examples=["speak_inexpensive"])]
ConnectionIds = Annotated[list[ConnectionId], Field(min_length=1, max_length=MAX_CONNECTIONS)]
_NONE_IF_EMPTY = BeforeValidator(lambda value: None if value == "" else value)
"""Of an optional argument that is text: an empty one is as good as none."""
# Pydantic lets half a character pass in SecretStr, and in a str without a bound.
ApiSecret = Secret[
    Annotated[
        str,
        Field(max_length=500, json_schema_extra={"format": "password", "writeOnly": True}),
    ]
]


def _with_example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


class Body(BaseModel):
    """What every request may say: whose account is meant, if not the server's own."""

    model_config = ConfigDict(extra="forbid")

    api_key: Annotated[
        str | None, Field(max_length=500, description="Of Fivetran; for this request only.")
    ] = None
    api_secret: ApiSecret | None = None


class CancelUpdate(Body):
    model_config = _with_example()


class GetState(Body):
    model_config = _with_example(connection_id="speak_inexpensive")

    connection_id: ConnectionId
    path: Annotated[
        str | None,
        Field(description="JSON Pointer to a part of the state, such as /orders."),
        _NONE_IF_EMPTY,
    ] = None


class GetStates(Body):
    model_config = _with_example(connection_ids=["speak_inexpensive", "bullion_shutdown"])

    connection_ids: ConnectionIds


class _Changing(Body):
    new_state: Annotated[dict[str, Any] | None, Field(description="The whole new state.")] = None
    merge_patch: Annotated[dict[str, Any] | None, Field(description="RFC 7386.")] = None
    json_patch: Annotated[
        list[dict[str, Any]] | None,
        Field(max_length=state.MOST_OPERATIONS, description="RFC 6902."),
    ] = None
    copy_from: Annotated[
        ConnectionId | None, Field(description="Another connection."), _NONE_IF_EMPTY
    ] = None
    then_sync: Annotated[bool, Field(description="Start a sync afterwards.")] = False
    allow_resync: Annotated[
        bool, Field(description="Write although a pending historical re-sync will overwrite it.")
    ] = False
    reason: Annotated[str | None, Field(max_length=500), _NONE_IF_EMPTY] = None
    _read: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _remember(cls, read: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        body = handler(read)
        body._read = read
        return body

    async def change(self) -> dict[str, object]:
        """The kinds of change, as JSON text, which is taken exactly."""
        given = {"new_state": self.new_state, "merge_patch": self.merge_patch}
        # `_Exact` has read it, so that every number is as it was spelt.
        exact: dict[str, object] = {
            kind: None if value is None else await large.run(state.dump, value)
            for kind, value in (given | {"json_patch": self.json_patch}).items()
        }
        # The caller may wait for hours, and FastAPI keeps what it has read as long as that.
        self.new_state = self.merge_patch = self.json_patch = None
        self._read.clear()
        return exact | {"copy_from": self.copy_from}


class UpdateState(_Changing):
    model_config = _with_example(
        connection_id="bullion_shutdown", new_state={"cursor": "2025-03-06 20:20:20"}
    )

    connection_id: ConnectionId
    restore_from: Annotated[
        str | None,
        Field(max_length=500, description="A workflow_id: the state before it."),
        _NONE_IF_EMPTY,
    ] = None
    only: Annotated[
        str | None,
        Field(description="With restore_from or copy_from: a JSON Pointer, only this part."),
        _NONE_IF_EMPTY,
    ] = None
    expected_version: Annotated[
        str | None,
        # An empty one may be a variable that was never set, and must not stand for any version.
        Field(
            min_length=1,
            max_length=500,
            description="The version that was seen; without it, whatever is there.",
        ),
    ] = None
    dry_run: Annotated[bool, Field(description="Only answer the plan.")] = False

    async def change(self) -> dict[str, object]:
        return await super().change() | {"restore_from": self.restore_from}

    @property
    def says_more(self) -> bool:
        """Whether it says how a change is to be made, and so is meant to have one."""
        texts = (self.expected_version, self.reason, self.only)
        flags = self.dry_run or self.then_sync or self.allow_resync
        return flags or any(text is not None for text in texts)


class UpdateStates(_Changing):
    model_config = _with_example(
        connection_ids=["bullion_shutdown", "gentle_harbour"],
        new_state={"cursor": "2025-03-06 20:20:20"},
    )

    connection_ids: ConnectionIds


NotUsable = Annotated[
    str | None,
    Field(description="JSON text of what was there instead, if that was not a usable state."),
]


class Unchanged(Model):
    """The answer to an update without a change."""

    connection_id: str
    message: str
    version: str
    current_state: Any = None
    current_state_json: NotUsable = None
    problem: Annotated[str | None, Field(description="Why it is not a usable state.")] = None


class Updated(Update):
    """An update that has ended well, with the state before and after."""

    current_state: Any = None
    current_state_json: NotUsable = None
    verified_state: Any = None


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cursor: Annotated[
        str | None, Field(max_length=2000, description="next_cursor."), _NONE_IF_EMPTY
    ] = None


class ConnectionsQuery(_Page):
    name: Annotated[
        str | None, Field(max_length=200, description="Part of the id or name."), _NONE_IF_EMPTY
    ] = None
    service: Annotated[
        str | None, Field(max_length=200, description="Such as connector_sdk."), _NONE_IF_EMPTY
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class WorkflowsQuery(_Page):
    connection_id: Annotated[
        ConnectionId | None, Field(description="Without it, of all connections."), _NONE_IF_EMPTY
    ] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class WaitQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    wait: Annotated[float, Field(ge=0, le=3600, description="Seconds to wait for the end.")] = 0


Credential = Annotated[str | None, Header(max_length=500)]
WorkflowId = Annotated[str, Path(max_length=500, examples=["speak_inexpensive:1"])]


class _WorkflowIds(StringConvertor):
    """In a path: of a guest's update with its account in front, and never with what follows."""

    regex = "[^/]+(?:/[^/:]+:[^/]+)?"


register_url_convertor("workflow_id", _WorkflowIds())


class _Exact(Request):
    """A request whose JSON body keeps every number as it is spelt."""

    _value: state.JsonValue

    def check_type(self) -> None:
        """What is not JSON any page may have a browser send, without asking first."""
        if re.match(r"application/(.+\+)?json\s*(;|$)", self._content_type) is None:
            raise HTTPException(415, "The request has to be of the Content-Type application/json.")

    async def read(self, known: Collection[str]) -> None:
        try:
            self._value = await large.run(state.parse_value, await self.body())
        except state.InvalidState as error:
            raise InvalidRequest(f"The body cannot be used: {error}.") from error
        self._body = b"{}"  # FastAPI wants to know only whether there is one.
        if isinstance(self._value, dict):
            problems = too_many_unknown(self._value, known)
            if problems is not None:
                raise InvalidRequest(f"{problems}.")

    @property
    def _content_type(self) -> str:
        return self.headers.get("content-type", "").lower()

    async def json(self) -> Any:
        return self._value


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            exact = _Exact(request.scope, request.receive)
            field = self.body_field
            if field is not None:
                exact.check_type()
                if field.field_info.is_required() or await exact.body():
                    model: Any = field.field_info.annotation
                    await exact.read(model.model_fields)
            return await handler(exact)

        return handle


@dataclass(frozen=True, repr=False)
class _Credentials:
    """Whose account is meant: neither is given, or both."""

    key: str | None
    secret: str | None


_NONE = _Credentials(None, None)


def _credentials(
    fivetran_api_key: Credential = None, fivetran_api_secret: Credential = None
) -> _Credentials:
    return _Credentials(fivetran_api_key, fivetran_api_secret)


@dataclass(frozen=True)
class _Preference:
    """What `Prefer` (RFC 7240) asks for: how many seconds to wait for the end of an update."""

    seconds: float = FOR_EVER
    applied: str | None = None


def _preference(
    prefer: Annotated[
        list[Annotated[str, Field(max_length=200)]] | None,
        Header(description="respond-async: answer at once; wait=SECONDS: at the latest then."),
    ] = None,
) -> _Preference:
    # Several lines are as good as one, with commas (RFC 9110, 5.3).
    wanted = [each.strip() for each in re.split("[,;]", ",".join(prefer or []).lower())]
    waits = [match for each in wanted if (match := re.fullmatch(r'wait="?(\d{1,5})"?', each))]
    applied = ["respond-async"] if "respond-async" in wanted else []
    seconds = 0.0 if applied else FOR_EVER
    if waits:
        seconds = float(waits[0][1])
        applied.append(f"wait={waits[0][1]}")
    return _Preference(seconds, ", ".join(applied) or None)


def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(description="The same key never updates twice, in quotes or not.", max_length=202),
    ] = None,
) -> str | None:
    if idempotency_key is None:
        return None
    quoted = re.fullmatch('"(.*)"', idempotency_key.strip())
    key = quoted[1] if quoted else idempotency_key.strip()
    if not 1 <= len(key) <= 200:
        raise InvalidRequest("Idempotency-Key must have 1 to 200 characters.")
    return key


Headers = Annotated[_Credentials, Depends(_credentials)]
Prefer = Annotated[_Preference, Depends(_preference)]
IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]


def router(backend: Backend, prefix: str) -> APIRouter:
    """The routes, whose answers are the service's models; clients find them behind `prefix`."""
    routes = APIRouter(
        route_class=_Route,
        responses=PROBLEMS,
        generate_unique_id_function=lambda route: route.name,
    )

    async def service_of(headers: _Credentials, body: Body) -> Service:
        """The service of the account in the request, or of the server's own."""
        return await _of(await backend.service(), _agreed(headers, body))

    async def service_for(headers: Headers) -> Service:
        return await service_of(headers, Body())

    ServiceFor = Annotated[Service, Depends(service_for)]  # noqa: N806

    async def running(update: Update | UpdatesView, prefer: _Preference) -> Response:
        location = f"{prefix}/workflows/{update.workflow_id}"
        return await _answer(update, prefer, 202, Location=location)

    @routes.post(
        "/state/get", tags=["State"], dependencies=[requires(READ)], responses=_ok(StateView)
    )
    async def get_state(body: GetState, headers: Headers) -> Response:
        """A connection's state, its version, and whether it is paused or syncing."""
        service = await service_of(headers, body)
        view = await service.get_state(body.connection_id, path=body.path, exact=True)
        return await _answer(view)

    @routes.post(
        "/state/get-multiple",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=_ok(dict[str, StateView]),
    )
    async def get_states(body: GetStates, headers: Headers) -> Response:
        """The states of several connections, by id."""
        service = await service_of(headers, body)
        few = asyncio.Semaphore(READ_AT_ONCE)

        left = MOST_BYTES_AT_ONCE

        async def read(connection_id: str) -> str:
            nonlocal left
            async with few:
                view = await service.get_state(connection_id, exact=True)
                text = await _text(view)
            left -= len(text)
            if left < 0:
                raise InvalidRequest(
                    f"These states have more than {MOST_BYTES_AT_ONCE:,} bytes together: ask for "
                    "fewer at a time."
                )
            return text

        wanted = list(dict.fromkeys(body.connection_ids))
        texts = await _all(map(read, wanted))
        members = zip(map(state.dump, wanted), texts, strict=True)
        content = "{" + ",".join(f"{name}:{text}" for name, text in members) + "}"
        return Response(content, media_type="application/json")

    @routes.post(
        "/state/update",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=_ok(Updated | Update | Unchanged) | _accepted(Update),
    )
    async def update_state(
        body: UpdateState,
        request: Request,
        headers: Headers,
        prefer: Prefer,
        key: IdempotencyKey,
    ) -> Response:
        """Change a state safely: pause, stop a running sync, write, verify, resume.

        Give one of new_state, merge_patch, json_patch, restore_from, copy_from. A body with nothing
        but connection_id is answered with the current state. The answer comes when the update has ended, unless Prefer says
        otherwise; a caller who leaves does not stop it.
        """
        if not body.dry_run:
            demand(WRITE, request)
        service = await service_of(headers, body)
        change = await body.change()
        if not any(value is not None for value in change.values()):
            if body.says_more or key is not None:
                raise _change_is_missing(change)
            view = await service.get_state(body.connection_id, exact=True)
            return await _answer(_unchanged(view))
        if body.dry_run:
            plan = await service.plan_update(
                body.connection_id,
                change,
                expected_version=body.expected_version,
                only=body.only,
                then_sync=body.then_sync,
            )
            return await _answer(plan)
        update = await service.update_state(
            body.connection_id,
            change,
            expected_version=body.expected_version,
            only=body.only,
            then_sync=body.then_sync,
            allow_resync=body.allow_resync,
            reason=body.reason,
            idempotency_key=key,
            wait_seconds=prefer.seconds,
        )
        if update.status == "running":
            return await running(update, prefer)
        assert update.workflow_id is not None, "it has been started"
        before, after = await service.states_of(update.workflow_id)
        fields = {name: value for name, value in update if value is not None}
        if isinstance(before, state.RawDocument):
            fields["current_state_json"] = before.text
        else:
            fields["current_state"] = before
        return await _answer(Updated(**fields, verified_state=after), prefer)

    @routes.post(
        "/state/update-multiple",
        tags=["State"],
        dependencies=[requires(WRITE)],
        responses=_ok(dict[str, Update]) | _accepted(UpdatesView),
    )
    async def update_states(
        body: UpdateStates, headers: Headers, prefer: Prefer, key: IdempotencyKey
    ) -> Response:
        """Make one change to several connections, in order: to all of them, or to none.

        All are looked at before any is paused. They stay paused until all are written and verified;
        after a failure each state is put back before its connection is resumed.
        """
        service = await service_of(headers, body)
        change = await body.change()
        if not any(value is not None for value in change.values()):
            raise _change_is_missing(change)
        view = await service.update_states(
            body.connection_ids,
            change,
            then_sync=body.then_sync,
            allow_resync=body.allow_resync,
            reason=body.reason,
            idempotency_key=key,
            wait_seconds=prefer.seconds,
        )
        if view.status == "running":
            return await running(view, prefer)
        return await _answer({update.connection_id: update for update in view.updates}, prefer)

    @routes.get(
        "/connections",
        tags=["Connections"],
        dependencies=[requires(READ)],
        responses=_ok(ConnectionPage),
    )
    async def list_connections(
        query: Annotated[ConnectionsQuery, Query()], service: ServiceFor
    ) -> Response:
        """The account's connections; only those with keeps_state have a state."""
        return await _answer(await service.list_connections(**query.model_dump()))

    @routes.get(
        "/workflows",
        tags=["Workflows"],
        dependencies=[requires(READ)],
        responses=_ok(WorkflowPage),
    )
    async def list_workflows(
        query: Annotated[WorkflowsQuery, Query()], service: ServiceFor
    ) -> Response:
        """The updates of a connection, or of all connections, newest first."""
        if query.connection_id is None:
            page = await service.list_all_workflows(cursor=query.cursor, limit=query.limit)
        else:
            page = await service.list_workflows(
                query.connection_id, cursor=query.cursor, limit=query.limit
            )
        return await _answer(page)

    @routes.post(
        "/workflows/{workflow_id:workflow_id}/cancel",
        tags=["Workflows"],
        dependencies=[requires(WRITE)],
        responses=_ok(Update | UpdatesView) | _accepted(Update | UpdatesView),
    )
    async def cancel_update(
        workflow_id: WorkflowId,
        headers: Headers,
        prefer: Prefer,
        body: CancelUpdate = CancelUpdate(),  # noqa: B008
    ) -> Response:
        """End an update that waits, with nothing written; refused once it has written."""
        service = await service_of(headers, body)
        update: Update | UpdatesView
        if service.is_together(workflow_id):
            update = await service.cancel_updates(workflow_id, wait_seconds=prefer.seconds)
        else:
            update = await service.cancel_update(workflow_id, wait_seconds=prefer.seconds)
        if update.status == "running":
            return await running(update, prefer)
        return await _answer(update, prefer)

    @routes.get(
        "/workflows/{workflow_id:workflow_id}",
        tags=["Workflows"],
        dependencies=[requires(READ)],
        responses=_ok(WorkflowView | UpdatesView),
    )
    async def workflow_status(
        workflow_id: WorkflowId, query: Annotated[WaitQuery, Query()], service: ServiceFor
    ) -> Response:
        """How far an update is, or how it ended; with several connections, what became of each."""
        if service.is_together(workflow_id):
            view = await service.updates_status(workflow_id, wait_seconds=query.wait)
            return await _answer(view)
        return await _answer(await service.workflow_status(workflow_id, wait_seconds=query.wait))

    return routes


async def _of(service: Service, credentials: _Credentials) -> Service:
    if credentials == _NONE:
        return service
    if not credentials.key or not credentials.secret:
        raise InvalidRequest("Credentials are an API key and its secret: give both, or none.")
    return await service.of(credentials.key, credentials.secret)


def _agreed(headers: _Credentials, body: Body) -> _Credentials:
    secret = None if body.api_secret is None else body.api_secret.get_secret_value()
    in_body = _Credentials(body.api_key, secret)
    if _NONE not in (headers, in_body) and headers != in_body:
        raise InvalidRequest(
            "The credentials in the headers are not those in the body: give them once."
        )
    return headers if in_body == _NONE else in_body


def _change_is_missing(change: Mapping[str, object]) -> InvalidRequest:
    return InvalidRequest(f"The change is missing: give exactly one of {', '.join(change)}.")


def _unchanged(view: StateView) -> Unchanged:
    return Unchanged(
        connection_id=view.connection_id,
        message="No change was given; nothing was written.",
        version=view.version,
        current_state=view.state,
        current_state_json=view.state_json,
        problem=view.problem,
    )


async def _all(coroutines: Iterable[Coroutine[Any, Any, str]]) -> list[str]:
    """What all of them return; after the first error the others end too."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _text(model: Model) -> str:
    values = for_rest(model.to_json(exactly=True))
    return await large.run(state.dump, values)


async def _answer(
    content: Model | Mapping[str, Model],
    prefer: _Preference | None = None,
    status: int = 200,
    **headers: str,
) -> Response:
    if prefer is not None and prefer.applied:
        headers["Preference-Applied"] = prefer.applied
    if isinstance(content, Model):
        text = await _text(content)
    else:
        values = {name: for_rest(view.to_json(exactly=True)) for name, view in content.items()}
        text = await large.run(state.dump, values)
    return Response(text, status, media_type="application/json", headers=headers)


def _ok(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}}


def _accepted(model: Any) -> dict[int | str, dict[str, Any]]:
    headers = described(
        Location="Where to follow it.",
        **{"Preference-Applied": "What of Prefer was honoured."},
    )
    return {202: {"model": model, "description": "It goes on by itself.", "headers": headers}}
