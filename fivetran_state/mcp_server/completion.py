"""Completion: ids for a resource's URI or for a prompt, from the typed beginning."""

from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp_types import (
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from fivetran_state.errors import FivetranStateError
from fivetran_state.mcp_server.protocol_errors import protocol_error
from fivetran_state.startup import Backend

MAX_COMPLETIONS = 100
"""The protocol's own limit."""

SEARCHED = 1000


class Completions:
    """Completes arguments by their names, the same for every resource and prompt."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def register(self, server: MCPServer[Any]) -> None:
        server.completion()(self.complete)  # type: ignore[no-untyped-call]

    async def complete(
        self,
        reference: ResourceTemplateReference | PromptReference,
        argument: CompletionArgument,
        context: CompletionContext | None,
    ) -> Completion | None:
        try:
            if argument.name == "connection_id":
                return await self._connection_ids(argument.value)
            if argument.name == "workflow_id":
                return await self._workflow_ids(argument.value)
        except FivetranStateError as error:
            raise protocol_error(error) from None
        return None

    async def _connection_ids(self, typed: str) -> Completion:
        """Connections that keep a state, by the beginning of their id or name."""
        service = await self._backend.service()
        page = await service.connections.list_connections(name=typed or None, limit=SEARCHED)
        begun = typed.lower()
        values = [
            each.id
            for each in page.connections
            if each.keeps_state
            and (each.id.lower().startswith(begun) or each.name.lower().startswith(begun))
        ]
        is_all = page.next_cursor is None
        return Completion(
            values=values[:MAX_COMPLETIONS],
            total=len(values) if is_all else None,
            has_more=len(values) > MAX_COMPLETIONS or not is_all,
        )

    async def _workflow_ids(self, typed: str) -> Completion:
        """Updates by the beginning of their id, newest first."""
        service = await self._backend.service()
        values = await service.workflows.newest_workflow_ids(typed, MAX_COMPLETIONS + 1)
        return Completion(
            values=values[:MAX_COMPLETIONS], has_more=len(values) > MAX_COMPLETIONS or None
        )
