"""The account's connections, page by page."""

import asyncio
import re

from fivetran_state.errors import FivetranError, InvalidRequest
from fivetran_state.fivetran_answers import Connection, is_cursor
from fivetran_state.models import ConnectionPage, ConnectionSummary
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.refusals import not_a_cursor
from fivetran_state.text import shown

MAX_PAGE = 1000
MAX_PAGES_SEARCHED = 20
_SKIPPED = re.compile("[0-9]{1,4}")


class Connections:
    """Lists the connections that the operator allows."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list_connections(
        self,
        *,
        name: str | None = None,
        service: str | None = None,
        group: str | None = None,
        keeps_state: bool | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ConnectionPage:
        """The account's connections whose id or name contains `name`, of one service and of one group
        (its id or name), page by page; with `keeps_state`, only those that keep one, or do not.

        Fivetran cannot search, so its pages are read until `limit` are found. Our cursor
        says how many connections to skip on which of Fivetran's pages. Raises `InvalidRequest` for a
        service that no connection has.
        """
        fivetran = (await self._caller.account()).fivetran
        group_names = await fivetran.group_names()
        services: set[str] = set()
        skip, at = _place(cursor) if cursor else (0, None)
        is_search = (
            name
            or service
            or group
            or keeps_state is not None
            or self._caller.settings.allowed_connections != "*"
        )
        found: list[ConnectionSummary] = []
        for _ in range(MAX_PAGES_SEARCHED):
            try:
                page, following = await fivetran.list_connections(
                    cursor=at, limit=MAX_PAGE if is_search else limit
                )
            except FivetranError as error:
                if cursor and at and error.details.get("status") == 400:
                    raise not_a_cursor(cursor) from error
                raise
            services |= {each.service for each in page if self._caller.settings.allows(each.id)}
            for index, connection in enumerate(page[skip:], skip):
                if not self._is_wanted(connection, name, service):
                    continue
                if group not in (None, connection.group_id, group_names.get(connection.group_id)):
                    continue
                if keeps_state not in (None, connection.keeps_state):
                    continue
                if len(found) == limit:
                    return ConnectionPage(connections=found, next_cursor=f"{index}:{at or ''}")
                found.append(views.connection(connection, group_names))
            if following is None:
                if service is not None and cursor is None and service not in services:
                    raise InvalidRequest(
                        f"There is no connection of the service '{shown(service)}'. Services in "
                        f"use: {', '.join(sorted(services)) or 'none'}."
                    )
                return ConnectionPage(connections=found)
            skip, at = 0, following
            if len(found) == limit:
                break
        return ConnectionPage(connections=found, next_cursor=f"0:{at}")

    async def connection(self, connection_id: str) -> ConnectionSummary:
        """One connection, without its state; raises `ConnectionNotFound`."""
        fivetran = await self._caller.fivetran_for(connection_id)
        found, group_names = await asyncio.gather(
            fivetran.get_connection(connection_id), fivetran.group_names()
        )
        return views.connection(found, group_names)

    def _is_wanted(self, connection: Connection, name: str | None, service: str | None) -> bool:
        return (
            self._caller.settings.allows(connection.id)
            and (service is None or connection.service == service)
            and (name is None or name.lower() in f"{connection.id} {connection.schema}".lower())
        )


def _place(cursor: str) -> tuple[int, str | None]:
    """The number of connections to skip, and the page of Fivetran's to skip them on."""
    skipped, colon, place = cursor.partition(":")
    if not colon or not _SKIPPED.fullmatch(skipped) or not (place == "" or is_cursor(place)):
        raise not_a_cursor(cursor)
    return int(skipped), place or None
