"""Subscriptions to resources: who listens is told when an update of the connection has ended.

The update may have been made by another process, or have outlived its caller. So the database is
watched; but only while somebody listens, with one look a second for everybody.
"""

import asyncio
import logging
from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp_types import (
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from fivetran_state.errors import FivetranStateError, InvalidRequest, NotAllowed
from fivetran_state.mcp_server.backend import Backend
from fivetran_state.mcp_server.protocol_errors import protocol_error
from fivetran_state.mcp_server.resources import shown_by

logger = logging.getLogger(__name__)

INTERVAL = 1.0
MOST_CONNECTIONS = 1000
PATIENCE = 5.0
"""Seconds that a client which does not read may hold up the others."""

Request = ServerRequestContext[Any, Any]


class Subscriptions:
    """The listeners of one server: since 2026-07-28 a listen request, before that a connection."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.bus = InMemorySubscriptionBus()
        self._serve_stream = ListenHandler(self.bus)
        self._uris: dict[object, set[str]] = {}
        self._ended: dict[str, int] = {}
        """Of each connection that is watched, the number of the last update known to have ended."""
        self._watch: asyncio.Task[None] | None = None

    def register(self, server: MCPServer[Any]) -> None:
        # MCPServer has no way of its own to serve these; the handler of `listen` that it comes
        # with does not say what is listened to.
        handlers = server._lowlevel_server
        handlers.add_request_handler(
            "subscriptions/listen", SubscriptionsListenRequestParams, self._listen
        )
        handlers.add_request_handler("resources/subscribe", SubscribeRequestParams, self._subscribe)
        handlers.add_request_handler(
            "resources/unsubscribe", UnsubscribeRequestParams, self._unsubscribe
        )

    async def _listen(
        self, request: Request, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """One stream, until the client ends it; what cannot be honoured is left out of the answer."""
        listener = object()
        wanted, honoured = params.notifications, []
        try:
            for uri in wanted.resource_subscriptions or []:
                try:
                    await self._add(listener, uri)
                    honoured.append(uri)
                except (InvalidRequest, NotAllowed) as error:
                    logger.info("Not listened to: %s", error.message)
                except FivetranStateError as error:
                    raise protocol_error(error, uri=uri) from None
            subset = wanted.model_copy(update={"resource_subscriptions": honoured})
            return await self._serve_stream(
                request, params.model_copy(update={"notifications": subset})
            )
        finally:
            self._remove(listener)

    async def _subscribe(self, request: Request, params: SubscribeRequestParams) -> EmptyResult:
        connection = _connection(request)
        try:
            await self._add(connection, params.uri)
        except FivetranStateError as error:
            raise protocol_error(error, uri=params.uri) from None
        return EmptyResult()

    async def _unsubscribe(self, request: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        self._remove(_connection(request), params.uri)
        return EmptyResult()

    async def _add(self, listener: object, uri: str) -> None:
        """From now on the listener is told. Raises `InvalidRequest`, `NotAllowed`, or what keeps
        the database from being read."""
        shown = shown_by(uri)
        if shown is None:
            raise InvalidRequest(f"There is no resource {uri!r}.")
        connection_id, _ = shown
        service = await self._backend.service()
        if connection_id not in self._ended:
            if len(self._ended) >= MOST_CONNECTIONS:
                raise InvalidRequest(f"{MOST_CONNECTIONS} connections are listened to already.")
            ended = await service.last_ended(connection_id)
            self._ended.setdefault(connection_id, ended)
        if listener not in self._uris:
            self._uris[listener] = set()
            if isinstance(listener, Connection):
                listener.exit_stack.callback(self._remove, listener)
        self._uris[listener].add(uri)
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_watch())

    def _remove(self, listener: object, uri: str | None = None) -> None:
        """The listener is not told any more: of one resource, or of any."""
        left = set() if uri is None else self._uris.get(listener, set()) - {uri}
        if left:
            self._uris[listener] = left
        else:
            self._uris.pop(listener, None)
        watched = {connection_id for connection_id, _ in self._watched().values()}
        self._ended = {key: number for key, number in self._ended.items() if key in watched}
        if not watched and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _watched(self) -> dict[str, tuple[str, int | None]]:
        """Each resource that is listened to, and what it shows."""
        uris = {uri for uris in self._uris.values() for uri in uris}
        return {uri: shown for uri in uris if (shown := shown_by(uri)) is not None}

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                while await self._look():
                    pass
            except FivetranStateError:
                pass  # The database is away, as the engine says: told when it is back.
            except Exception:
                logger.exception("Looking for ended updates failed; trying again")

    async def _look(self) -> bool:
        """Tell of the updates that have ended since the last look; whether there were any."""
        service = await self._backend.service()
        news = await service.ended_since(self._ended)
        for uri, (connection_id, number) in self._watched().items():
            if connection_id in news and number in (None, news[connection_id]):
                await self._tell(uri)
        for connection_id, number in news.items():
            # Meanwhile it may not be watched any more, or anew.
            if self._ended.get(connection_id) == number - 1:
                self._ended[connection_id] = number
        return bool(news)

    async def _tell(self, uri: str) -> None:
        await self.bus.publish(ResourceUpdated(uri))
        for listener, uris in list(self._uris.items()):
            if isinstance(listener, Connection) and uri in uris:
                with anyio.move_on_after(PATIENCE):
                    await listener.send_resource_updated(uri)


def _connection(request: Request) -> Connection:
    # Private, and the only thing that lasts as long as a subscription of the older protocols.
    return request.session._connection
