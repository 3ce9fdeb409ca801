"""Subscriptions to resources: listeners are told when an update of the connection has ended.

The update may have been made by another process, or have outlived its caller. So the database is
watched; but only while somebody listens, with one look a second for everybody.
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.request_state import authenticated_principal
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp_types import (
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from fivetran_state.errors import FivetranStateError, InvalidRequest, NotAllowed
from fivetran_state.mcp_server.protocol_errors import protocol_error
from fivetran_state.mcp_server.resources import shown_by
from fivetran_state.mcp_server.sdk_internals import connection_of, low_level
from fivetran_state.startup import Backend

logger = logging.getLogger(__name__)

INTERVAL = 1.0
MAX_CONNECTIONS = 10_000
"""The most connections to watch. On Postgres, one look at so many takes a tenth of a second."""
MAX_OF_PRINCIPAL = 200
MAX_OF_LISTENER = 100
"""The most resources of one principal, and of one listener, so that there is room for others."""
LOOKS_AT_ONCE = 4
"""The most simultaneous look-ups for new listeners, so that the database has time for others."""
PATIENCE = 5.0
"""Seconds that a client which does not read may delay the others."""

Request = ServerRequestContext[Any, Any]


@dataclass
class _Listener:
    principal: str | None
    """None for anonymous callers, who share one principal."""
    resources: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """By URI, the connection and update that each resource shows: see `shown_by`."""


class Subscriptions:
    """The listeners of one server. A listener is a listen request or, before 2026-07-28, a
    connection."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.bus = InMemorySubscriptionBus()
        self._serve_stream = ListenHandler(self.bus)
        self._listeners: dict[object, _Listener] = {}
        self._taken: Counter[str | None] = Counter()
        """The number of resources of each principal, over all its listeners."""
        self._ended: dict[str, int] = {}
        """For each watched connection, the number of the last update known to have ended."""
        self._watch: asyncio.Task[None] | None = None
        self._few_look = asyncio.Semaphore(LOOKS_AT_ONCE)

    def register(self, server: MCPServer[Any]) -> None:
        # MCPServer has no way of its own to serve these; the handler of `listen` that it comes
        # with does not say what is listened to.
        handlers = low_level(server)
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
        """Serve one stream until the client ends it. The answer names only the honoured resources."""
        key = object()
        wanted, honoured = params.notifications, []
        refusals: list[FivetranStateError] = []
        try:
            # Do not even look at the others: there may be 100,000.
            for uri in (wanted.resource_subscriptions or [])[:MAX_OF_LISTENER]:
                try:
                    await self._add(key, request, uri)
                    honoured.append(uri)
                except (InvalidRequest, NotAllowed) as error:
                    refusals.append(error)
                    if self._taken[authenticated_principal(request)] >= MAX_OF_PRINCIPAL:
                        break  # The others would be refused for the same reason.
                except FivetranStateError as error:
                    raise protocol_error(error, uri=uri) from None
            if refusals:
                missed = len(wanted.resource_subscriptions or []) - len(honoured)
                logger.info("Refused to listen to %d resources: %s", missed, refusals[0])
            subset = wanted.model_copy(update={"resource_subscriptions": honoured})
            return await self._serve_stream(
                request, params.model_copy(update={"notifications": subset})
            )
        finally:
            self._remove(key)

    async def _subscribe(self, request: Request, params: SubscribeRequestParams) -> EmptyResult:
        connection = connection_of(request)
        try:
            await self._add(connection, request, params.uri)
        except FivetranStateError as error:
            raise protocol_error(error, uri=params.uri) from None
        return EmptyResult()

    async def _unsubscribe(self, request: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        listener = self._listeners.get(connection_of(request))
        if listener is not None and listener.resources.pop(params.uri, None) is not None:
            self._taken[listener.principal] -= 1
            self._forget_unwatched()
        return EmptyResult()

    async def _add(self, key: object, request: Request, uri: str) -> None:
        """Add a resource to a listener. Raises `InvalidRequest`, `NotAllowed`, or the database's error."""
        shown = shown_by(uri)
        if shown is None:
            raise InvalidRequest(
                f"{uri!r} is no resource that can be listened to. A group is followed with "
                "workflow_status."
            )
        connection_id, _ = shown
        service = await self._backend.service()
        listener = self._listeners.get(key) or _Listener(authenticated_principal(request))
        if uri not in listener.resources:
            # Do not ask the database if there is no room.
            self._check_room(listener, connection_id)
        ended = self._ended.get(connection_id)
        if ended is None:
            async with self._few_look:
                ended = await service.workflows.last_ended(connection_id)
        # From here on there is no await, so nobody else can take the room.
        listener = self._listeners.get(key) or listener
        if uri not in listener.resources:
            self._check_room(listener, connection_id)
            self._taken[listener.principal] += 1
        listener.resources[uri] = shown
        self._ended.setdefault(connection_id, ended)
        if key not in self._listeners:
            self._listeners[key] = listener
            if isinstance(key, Connection):
                key.exit_stack.callback(self._remove, key)
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_watch())

    def _check_room(self, listener: _Listener, connection_id: str) -> None:
        """Raise `InvalidRequest` if there is no room for one more resource of this connection."""
        if len(listener.resources) >= MAX_OF_LISTENER:
            raise InvalidRequest(
                f"This listener listens to {MAX_OF_LISTENER} resources already, which "
                "is the maximum."
            )
        if self._taken[listener.principal] >= MAX_OF_PRINCIPAL:
            raise InvalidRequest(
                f"This principal listens to {MAX_OF_PRINCIPAL} resources already, "
                "which is the maximum for all its listeners together."
            )
        if connection_id not in self._ended and len(self._ended) >= MAX_CONNECTIONS:
            raise InvalidRequest(
                f"The server watches {MAX_CONNECTIONS:,} connections already, which is the maximum."
            )

    def _remove(self, key: object) -> None:
        """Remove the listener."""
        listener = self._listeners.pop(key, None)
        if listener is not None:
            self._taken[listener.principal] -= len(listener.resources)
            self._taken += Counter()  # Drops the zeros.
            self._forget_unwatched()

    def _forget_unwatched(self) -> None:
        watched = {connection_id for connection_id, _ in self._watched().values()}
        self._ended = {id_: number for id_, number in self._ended.items() if id_ in watched}
        if not watched and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _watched(self) -> dict[str, tuple[str, int | None]]:
        """Each resource with listeners, and the connection and update that it shows."""
        return {
            uri: shown
            for listener in self._listeners.values()
            for uri, shown in listener.resources.items()
        }

    async def _keep_watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                while await self._look():
                    pass
            except FivetranStateError:
                pass  # The database is away, as the engine logs. Listeners are told when it is back.
            except Exception:
                logger.exception("Looking for ended updates failed; trying again")

    async def _look(self) -> bool:
        """Announce the updates that have ended since the last look; true if there were any."""
        service = await self._backend.service()
        news = await service.workflows.ended_since(self._ended)
        if not news:
            return False
        for uri, (connection_id, number) in self._watched().items():
            if connection_id in news and number in (None, news[connection_id]):
                await self._tell(uri)
        for connection_id, number in news.items():
            # Meanwhile the connection may have lost its listeners, or have new ones.
            if self._ended.get(connection_id) == number - 1:
                self._ended[connection_id] = number
        return True

    async def _tell(self, uri: str) -> None:
        await self.bus.publish(ResourceUpdated(uri))
        for key, listener in list(self._listeners.items()):
            if isinstance(key, Connection) and uri in listener.resources:
                with anyio.move_on_after(PATIENCE):
                    await key.send_resource_updated(uri)
