"""The resources that a host can attach: a connection's state, its history, single updates, and groups.

They are templates only, and `resources/list` is empty, but for the App. Hosts ask for the list when they start. A
list of the account's connections would cost every start a call to Fivetran, and would make it wait
while Fivetran cannot be reached. Completion finds the ids.
"""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.uri_template import UriTemplate

from fivetran_state.errors import FivetranStateError, InvalidRequest
from fivetran_state.ids import UpdateId
from fivetran_state.mcp_server import several
from fivetran_state.mcp_server.protocol_errors import protocol_error
from fivetran_state.models import Model, UpdatesView
from fivetran_state.startup import Backend

if TYPE_CHECKING:
    from fivetran_state.service import Service

STATE = "fivetran://connections/{connection_id}/state"
HISTORY = "fivetran://connections/{connection_id}/history"
WORKFLOW = "fivetran://workflows/{workflow_id}"

_OF_CONNECTIONS = [UriTemplate.parse(STATE), UriTemplate.parse(HISTORY)]
_OF_WORKFLOWS = UriTemplate.parse(WORKFLOW)


def shown_by(uri: str) -> tuple[str, int | None] | None:
    """The connection that a resource shows, and the update's number if it shows only one update."""
    for template in _OF_CONNECTIONS:
        if match := template.match(uri):
            return str(match["connection_id"]), None
    if match := _OF_WORKFLOWS.match(uri):
        with suppress(InvalidRequest):
            update = UpdateId.parse(str(match["workflow_id"]))
            return update.owner, update.number
    return None


class Resources:
    """The resources of one server. Each returns the same as the tool for this purpose."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def register(self, server: MCPServer[Any]) -> None:
        server.resource(
            STATE,
            name="state",
            title="A connection's state",
            description="The state, its version, and whether the connection is paused or syncing; "
            "a large state as an outline.",
            mime_type="application/json",
        )(self.state)
        server.resource(
            HISTORY,
            name="history",
            title="A connection's updates",
            description="The latest updates of the connection's state, newest first.",
            mime_type="application/json",
        )(self.history)
        server.resource(
            WORKFLOW,
            name="workflow",
            title="An update or a group",
            description="One update: its steps, what it changed, and how it ended. Of a group, how many "
            "connections are how far, and some of its updates.",
            mime_type="application/json",
        )(self.workflow)

    async def state(self, connection_id: str, context: Context[Any, Any]) -> str:
        return await self._read(context, lambda service: service.states.get_state(connection_id))

    async def history(self, connection_id: str, context: Context[Any, Any]) -> str:
        return await self._read(context, lambda service: service.history.time_line(connection_id))

    async def workflow(self, workflow_id: str, context: Context[Any, Any]) -> str:
        async def ask(service: "Service") -> Model:
            if service.proposals.is_proposal(workflow_id):
                return await service.proposals.proposal(workflow_id)
            view = await service.by_id.status(workflow_id)
            return several.brief(view) if isinstance(view, UpdatesView) else view

        return await self._read(context, ask)

    async def _read(
        self, context: Context[Any, Any], ask: "Callable[[Service], Awaitable[Model]]"
    ) -> str:
        try:
            answer = await ask(await self._backend.service())
        except FivetranStateError as error:
            uri = (context.request_context.params or {}).get("uri")
            raise protocol_error(error, uri=uri) from None
        return json.dumps(answer.to_json(), ensure_ascii=False, separators=(",", ":"))
