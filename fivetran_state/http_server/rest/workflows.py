"""Handlers for connections and for updates that were made."""

from typing import Annotated

from fastapi import Query, Request, Response

from fivetran_state.http_server.rest.answers import answer, running
from fivetran_state.http_server.rest.bodies import (
    CancelUpdate,
    ConnectionsQuery,
    WaitQuery,
    WorkflowsQuery,
)
from fivetran_state.http_server.rest.requests import (
    Headers,
    OwnService,
    Prefer,
    ServiceFor,
    WorkflowId,
    agreed,
    service_in,
)
from fivetran_state.models import ProposalView


async def list_connections(
    query: Annotated[ConnectionsQuery, Query()], service: ServiceFor
) -> Response:
    """The account's connections; only those with keeps_state have a state."""
    return await answer(await service.connections.list_connections(**query.model_dump()))


async def list_workflows(
    query: Annotated[WorkflowsQuery, Query()], service: ServiceFor
) -> Response:
    """The updates of a connection, or of all connections, newest first.

    A request searches a bounded number of updates. So a page may have fewer than `limit`, even
    none, and still a next_cursor: go on with it until there is none.
    """
    if query.connection_id is None:
        asked = query.model_dump(exclude={"connection_id"})
        return await answer(await service.workflows.list_all_workflows(**asked))
    page = await service.workflows.list_workflows(**query.model_dump())
    return await answer(page)


async def cancel_workflow(
    workflow_id: WorkflowId,
    request: Request,
    headers: Headers,
    own: OwnService,
    prefer: Prefer,
    body: CancelUpdate = CancelUpdate(),  # noqa: B008
) -> Response:
    """Cancel an update that waits: nothing is written. Refused once the update has written."""
    service = await service_in(own, agreed(headers, body))
    ended = await service.by_id.cancel(workflow_id, wait_seconds=prefer.seconds)
    if not isinstance(ended, ProposalView) and ended.status == "running":
        return await running(ended, prefer, request)
    return await answer(ended, prefer)


async def get_workflow(
    workflow_id: WorkflowId, query: Annotated[WaitQuery, Query()], service: ServiceFor
) -> Response:
    """How far an update is, or how it ended; for a group, the result of each connection."""
    return await answer(await service.by_id.status(workflow_id, wait_seconds=query.wait))
