"""The routes of the page for reading. Each shows what the service's own methods return."""

import asyncio
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from fivetran_state import large, state
from fivetran_state.access import READ
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranStateError,
    NoStateYet,
    StateNotKept,
)
from fivetran_state.http_server.gate import requires
from fivetran_state.http_server.page import actions, charts, differences, events, words
from fivetran_state.http_server.page.asked import PagesOf, for_browsers
from fivetran_state.http_server.page.rendering import Pages
from fivetran_state.http_server.paths import SCRIPT, STYLE
from fivetran_state.http_server.rest.bodies import (
    NONE_IF_EMPTY,
    At,
    ConnectionId,
    HistoryQuery,
    PageQuery,
    StateQuery,
)
from fivetran_state.http_server.rest.requests import OwnService, WorkflowId
from fivetran_state.models import (
    ConnectionSummary,
    UpdatesView,
    WorkflowView,
)
from fivetran_state.service import Service

SHOWN_CONNECTIONS = 50
SHOWN_ENTRIES = 20
SHOWN_LATEST = 20
LOOKED_AT = 100
"""The newest updates, among which the failed ones are shown."""
SHOWN_LEFT_PAUSED = 20
OUTLINE_BYTES = 20_000


def router() -> APIRouter:
    """The pages below `/page`. Reading them needs the scope read; their files need no token."""
    routes = APIRouter(prefix="/page", include_in_schema=False)
    html = [requires(READ), Depends(for_browsers)]
    routes.get("/connections", dependencies=html)(_connections)
    routes.get("/connections/{connection_id}", dependencies=html)(_connection)
    routes.get("/connections/{connection_id}/state", dependencies=html)(_state)
    routes.get("/connections/{connection_id}/compare", dependencies=html)(_compare)
    routes.get("/updates", dependencies=html)(_updates)
    routes.get("/updates/{workflow_id:workflow_id}/events", dependencies=[requires(READ)])(_events)
    routes.get("/updates/{workflow_id:workflow_id}", dependencies=html)(_update)
    for path in (STYLE, SCRIPT):
        routes.get(path.removeprefix(routes.prefix), name=path)(_asset)
    actions.add_to(routes)
    return routes


async def _asset(request: Request, pages: PagesOf) -> Response:
    return pages.asset(request.url.path)


async def front(service: Service, pages: Pages) -> Response:
    """What runs, waits, has failed, or is left paused now."""
    running = await service.workflows.unfinished()
    groups, newest, proposed, (left, left_problem) = await asyncio.gather(
        _groups(service, running.groups),
        service.workflows.list_all_workflows(limit=LOOKED_AT),
        service.proposals.waiting(),
        _left_paused(service),
    )
    known = {view.workflow_id for view in running.updates}
    return pages.answer(
        "now.html",
        running=[each for each in running.updates if each.phase not in words.WAITING],
        waiting=[each for each in running.updates if each.phase in words.WAITING],
        more=running.total - len(running.updates),
        groups=groups,
        left=[view for view in left if view.workflow_id not in known],
        left_problem=left_problem,
        failed=[each for each in newest.workflows if each.status == "failed"][:SHOWN_LATEST],
        latest=newest.workflows[:SHOWN_LATEST],
        proposed=proposed.proposals[:SHOWN_LATEST],
        paused_since=_paused_since,
        looked_at=LOOKED_AT,
    )


async def _groups(service: Service, group_ids: list[str]) -> list[UpdatesView]:
    """The running groups that this caller may see."""
    found = []
    for group_id in group_ids:
        try:
            found.append(await service.groups.updates_status(group_id))
        except FivetranStateError:
            continue  # It has a connection that is not allowed, or it has just been deleted.
    return found


async def _left_paused(
    service: Service,
) -> tuple[list[WorkflowView], FivetranStateError | None]:
    """The updates that hold a connection paused, or why nobody knows.

    Fivetran is asked, and may not answer.
    """
    try:
        found = await service.operations.left_paused()
        ids = [id_ for id_ in found.values() if await service.workflows.may_see(id_)]
        views = [await service.workflows.workflow_status(id_) for id_ in ids[:SHOWN_LEFT_PAUSED]]
    except FivetranStateError as error:
        return [], error
    return views, None


def _paused_since(view: WorkflowView) -> str | None:
    """When the update paused its connection, if it holds it paused."""
    paused = [each.started_at for each in view.steps if each.name == "pause" and not each.error]
    return paused[0] if paused and view.paused_by_update else None


class _ConnectionsQuery(PageQuery):
    name: Annotated[str | None, Field(max_length=200), NONE_IF_EMPTY] = None
    service: Annotated[str | None, Field(max_length=200), NONE_IF_EMPTY] = None
    group: Annotated[str | None, Field(max_length=200), NONE_IF_EMPTY] = None
    every: bool = False
    """Also those that keep no state."""


async def _connections(
    query: Annotated[_ConnectionsQuery, Query()], service: OwnService, pages: PagesOf
) -> Response:
    page = await service.connections.list_connections(
        name=query.name,
        service=query.service,
        group=query.group,
        keeps_state=None if query.every else True,
        cursor=query.cursor,
        limit=SHOWN_CONNECTIONS,
    )
    # The sort is stable: within a group, Fivetran's order stays.
    ordered = sorted(page.connections, key=_group_of)
    return pages.answer(
        "connections.html",
        query=query,
        groups=[(name, list(each)) for name, each in groupby(ordered, key=_group_of)],
        next_cursor=page.next_cursor,
    )


def _group_of(connection: ConnectionSummary) -> str:
    return connection.group_name or connection.group_id


async def _connection(
    connection_id: ConnectionId,
    query: Annotated[HistoryQuery, Query()],
    service: OwnService,
    pages: PagesOf,
) -> Response:
    connection, problem = await _facts(service, connection_id)
    try:
        page = await service.history.time_line(
            connection_id,
            kind=query.kind,
            since=query.since,
            until=query.until,
            path=query.path,
            cursor=query.cursor,
            limit=min(query.limit, SHOWN_ENTRIES),
        )
    except ConnectionNotFound:
        # Nothing is known of it, and Fivetran does not know it either.
        raise problem or ConnectionNotFound(f"There is no connection {connection_id}.") from None
    return pages.answer(
        "connection.html",
        connection_id=connection_id,
        connection=connection,
        problem=problem,
        query=query,
        page=page,
        charts=charts.of_page(page.entries),
        width=charts.WIDTH,
        height=charts.HEIGHT,
        remembered=[each for each in page.entries if each.version and each.seen_until],
    )


async def _facts(
    service: Service, connection_id: str
) -> tuple[ConnectionSummary | None, FivetranStateError | None]:
    """The connection, or why Fivetran does not show it: its history stays readable."""
    service.check(connection_id)
    try:
        return await service.connections.connection(connection_id), None
    except FivetranStateError as error:
        return None, error


async def _state(
    connection_id: ConnectionId,
    query: Annotated[StateQuery, Query()],
    service: OwnService,
    pages: PagesOf,
) -> Response:
    view, absent = None, None
    try:
        view = await service.states.get_state(
            connection_id,
            path=query.path,
            max_bytes=OUTLINE_BYTES,
            for_people=True,
            at=query.at,
            search=query.search,
            cursor=query.cursor,
        )
    except (NoStateYet, StateNotKept) as error:
        absent = error
    return pages.answer(
        "state.html", connection_id=connection_id, query=query, view=view, absent=absent
    )


class _CompareQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    from_: Annotated[At | None, Field(alias="from"), NONE_IF_EMPTY] = None
    to: Annotated[At | None, NONE_IF_EMPTY] = None
    start: Annotated[int, Field(ge=0, le=state.MAX_VALUES * 2)] = 0


async def _compare(
    connection_id: ConnectionId,
    query: Annotated[_CompareQuery, Query()],
    service: OwnService,
    pages: PagesOf,
) -> Response:
    service.check(connection_id)
    found, before, after = None, None, None
    if query.from_ is not None:
        before, after = await service.history.pair(connection_id, query.from_, query.to)
        found = await large.run(differences.rows, before.document, after.document, query.start)
    return pages.answer(
        "compare.html",
        connection_id=connection_id,
        query=query,
        found=found,
        before=before,
        after=after,
    )


async def _updates(
    query: Annotated[PageQuery, Query()], service: OwnService, pages: PagesOf
) -> Response:
    page = await service.workflows.list_all_workflows(cursor=query.cursor, limit=SHOWN_CONNECTIONS)
    return pages.answer("updates.html", query=query, page=page)


async def _update(
    workflow_id: WorkflowId,
    query: Annotated[actions.Start, Query()],
    service: OwnService,
    pages: PagesOf,
) -> Response:
    if service.proposals.is_proposal(workflow_id):
        return actions.to(pages.links.proposal(workflow_id))
    view = await service.by_id.status(workflow_id)
    if isinstance(view, UpdatesView):
        return pages.answer("group.html", view=view)
    return pages.answer(
        "update.html",
        workflow_id=workflow_id,
        view=view,
        found=await _changes(service, view, query.start),
        paused_since=_paused_since,
    )


async def _changes(service: Service, view: WorkflowView, start: int) -> differences.Rows | None:
    """The changes in full; None if the update changed nothing, or has not read the state yet."""
    if view.status not in ("updated", "running") or view.workflow_id is None:
        return None
    try:
        before, after = await service.changes.states_of(view.workflow_id)
    except (FivetranStateError, state.InvalidChange):
        return None
    return await large.run(differences.rows, before, after, start)


async def _events(workflow_id: WorkflowId, service: OwnService, pages: PagesOf) -> Response:
    await service.by_id.status(workflow_id)  # Raises, so that errors have their status.

    def rendered(view: WorkflowView | UpdatesView) -> str:
        if isinstance(view, UpdatesView):
            return pages.render("_group_progress.html", view=view)
        return pages.render("_progress.html", view=view, paused_since=_paused_since)

    return StreamingResponse(
        events.stream(service, workflow_id, rendered),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )
