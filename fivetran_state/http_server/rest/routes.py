"""REST, for programs: the service's capabilities as routes, with exact numbers both ways.

A request may bring the credentials of another account, in its body or in its headers. Then it sees the
connections and updates of that account.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from fivetran_state import changes, large, state
from fivetran_state.access import READ, WRITE
from fivetran_state.errors import InvalidRequest
from fivetran_state.http_server.gate import demand, requires
from fivetran_state.http_server.problems import PROBLEMS, described, for_rest
from fivetran_state.http_server.rest.bodies import (
    Body,
    CancelUpdate,
    ConnectionsQuery,
    GetState,
    GetStates,
    Unchanged,
    Updated,
    UpdateState,
    UpdateStates,
    WaitQuery,
    WorkflowsQuery,
)
from fivetran_state.http_server.rest.requests import (
    Credentials,
    ExactRoute,
    Headers,
    IdempotencyKey,
    Prefer,
    Preference,
    WorkflowId,
    agreed,
    service_in,
)
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
from fivetran_state.startup import Backend

READ_AT_ONCE = 4
MAX_RESPONSE_BYTES = 20_000_000
"""Bytes of all the states in one answer."""


def router(backend: Backend, prefix: str) -> APIRouter:
    """The routes below `prefix`. Their answers are the service's models."""
    routes = APIRouter(
        route_class=ExactRoute,
        responses=PROBLEMS,
        generate_unique_id_function=lambda route: route.name,
    )

    async def service_of(headers: Credentials, body: Body) -> Service:
        """The service of the account in the request, or of the server's own."""
        return await service_in(await backend.service(), agreed(headers, body))

    async def service_for(headers: Headers) -> Service:
        return await service_of(headers, Body())

    ServiceFor = Annotated[Service, Depends(service_for)]  # noqa: N806

    async def running(update: Update | UpdatesView, prefer: Preference) -> Response:
        location = f"{prefix}/workflows/{update.workflow_id}"
        return await _answer(update, prefer, 202, Location=location)

    @routes.post(
        "/state/get", tags=["State"], dependencies=[requires(READ)], responses=_ok(StateView)
    )
    async def get_state(body: GetState, headers: Headers) -> Response:
        """A connection's state, its version, and whether it is paused or syncing."""
        service = await service_of(headers, body)
        view = await service.states.get(body.connection_id, path=body.path, exact=True)
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

        left = MAX_RESPONSE_BYTES

        async def read(connection_id: str) -> str:
            nonlocal left
            async with few:
                view = await service.states.get(connection_id, exact=True)
                text = await _text(view)
            left -= len(text)
            if left < 0:
                raise InvalidRequest(
                    f"These states have more than {MAX_RESPONSE_BYTES:,} bytes together: ask for "
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
        given = await body.change()
        if not any(value is not None for value in given.values()):
            if body.says_more or key is not None:
                raise _change_is_missing(given)
            view = await service.states.get(body.connection_id, exact=True)
            return await _answer(_unchanged(view))
        if body.dry_run:
            plan = await service.changes.plan(
                body.connection_id,
                await changes.parse(given, body.only),
                expected_version=body.expected_version,
                then_sync=body.then_sync,
            )
            return await _answer(plan)
        update = await service.changes.update(
            body.connection_id,
            await changes.parse(given, body.only),
            expected_version=body.expected_version,
            then_sync=body.then_sync,
            allow_resync=body.allow_resync,
            reason=body.reason,
            idempotency_key=key,
            wait_seconds=prefer.seconds,
        )
        if update.status == "running":
            return await running(update, prefer)
        assert update.workflow_id is not None, "it has been started"
        before, after = await service.changes.states_of(update.workflow_id)
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
        given = await body.change()
        if not any(value is not None for value in given.values()):
            raise _change_is_missing(given)
        view = await service.groups.update(
            body.connection_ids,
            await changes.parse(given),
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
        return await _answer(await service.connections.page(**query.model_dump()))

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
            page = await service.workflows.all(cursor=query.cursor, limit=query.limit)
        else:
            page = await service.workflows.of_connection(
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
        if service.groups.is_group(workflow_id):
            update = await service.groups.cancel(workflow_id, wait_seconds=prefer.seconds)
        else:
            update = await service.changes.cancel(workflow_id, wait_seconds=prefer.seconds)
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
        if service.groups.is_group(workflow_id):
            view = await service.groups.status(workflow_id, wait_seconds=query.wait)
            return await _answer(view)
        return await _answer(await service.workflows.status(workflow_id, wait_seconds=query.wait))

    return routes


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
    """The results of all; after the first error the others are cancelled."""
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
    prefer: Preference | None = None,
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
