"""The extension `io.modelcontextprotocol/ui`, for clients that declare it.

All others see the same tools and resources as without it. Specification:
https://github.com/modelcontextprotocol/ext-apps
"""

from typing import Any

import anyio.to_thread
from mcp.server.apps import Apps, ResourceCsp, client_supports_apps
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver.resources import Resource

from fivetran_state.config import Settings

URI = "ui://fivetran-state/app.html"
SHOWN = frozenset({"update_state", "update_states", "workflow_status", "state_history"})
"""The tools whose results the App shows."""

RequestContext = ServerRequestContext[Any, Any]


class _Document(Resource):
    """The App's HTML. It loads nothing, so no domain is named."""

    writes: bool

    async def read(self) -> str:
        # Loading the templates takes longer than the first answer of the server may take.
        from fivetran_state.mcp_server.app.document import render

        return await anyio.to_thread.run_sync(render, self.writes)


class App(Apps):
    """Pass it to the server as an extension, and `for_hosts` as middleware."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        nothing = ResourceCsp(connect_domains=[], resource_domains=[])
        self.add_resource(
            _Document(
                uri=URI,
                name="app",
                title="Plans, updates and time lines",
                meta={"ui": {"csp": nothing.model_dump(by_alias=True, exclude_none=True)}},
                writes=not settings.read_only,
            )
        )

    async def for_hosts(self, ctx: RequestContext, call_next: CallNext) -> HandlerResult:
        """Middleware: names the App in the lists of clients that can show it, and only there."""
        result = await call_next(ctx)
        if ctx.request_id is None:  # A notification with the name of a list.
            return result
        if ctx.method == "tools/list" and client_supports_apps(ctx):
            assert isinstance(result, dict)
            for tool in result["tools"]:
                if tool["name"] in SHOWN:
                    tool["_meta"] = {"ui": {"resourceUri": URI}}
        elif ctx.method == "resources/list" and not client_supports_apps(ctx):
            assert isinstance(result, dict)
            result["resources"] = [each for each in result["resources"] if each["uri"] != URI]
        return result
