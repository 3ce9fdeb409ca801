"""Handlers for what states were."""

from typing import Annotated

from fastapi import Query, Response

from fivetran_state.http_server.rest.answers import answer, answer_unless_known
from fivetran_state.http_server.rest.bodies import (
    ConnectionId,
    DiffQuery,
    HistoryQuery,
    StateQuery,
)
from fivetran_state.http_server.rest.requests import IfNoneMatch, ServiceFor
from fivetran_state.service.states import LIMIT_OF_MAX_BYTES


async def get_connection_state(
    connection_id: ConnectionId,
    query: Annotated[StateQuery, Query()],
    service: ServiceFor,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """A connection's state, now or in the past: at a time, as a version, or before an update.

    With `search`, the values whose paths contain it, in pages of up to 1,000,000 bytes.
    """
    view = await service.states.get_state(
        connection_id,
        path=query.path,
        max_bytes=LIMIT_OF_MAX_BYTES,
        exact=True,
        at=query.at,
        search=query.search,
        cursor=query.cursor,
    )
    return await answer_unless_known(view, view.version, if_none_match)


async def get_state_history(
    connection_id: ConnectionId, query: Annotated[HistoryQuery, Query()], service: ServiceFor
) -> Response:
    """The versions that a state had, newest first: when, what moved, and what moved it."""
    page = await service.history.time_line(
        connection_id,
        kind=query.kind,
        since=query.since,
        until=query.until,
        path=query.path,
        cursor=query.cursor,
        limit=query.limit,
    )
    return await answer(page)


async def get_state_difference(
    connection_id: ConnectionId, query: Annotated[DiffQuery, Query()], service: ServiceFor
) -> Response:
    """The differences between two states of a connection."""
    found = await service.history.difference(connection_id, query.from_, query.to, path=query.path)
    return await answer(found)
