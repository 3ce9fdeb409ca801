"""The extension `io.modelcontextprotocol/ui`: https://github.com/modelcontextprotocol/ext-apps

Every client is told of the App, because not every host that shows Apps declares it. A model never reads
where a tool names it.
"""

from typing import Any

import anyio.to_thread
from mcp.server.apps import Apps, ResourceCsp
from mcp.server.mcpserver.resources import Resource

from fivetran_state.config import Settings

URI = "ui://fivetran-state/app"
SHOWN: dict[str, Any] = {"ui": {"resourceUri": URI}}
"""The `_meta` of a tool whose results the App shows."""


class _Document(Resource):
    """The App's HTML. It loads nothing, so no domain is named."""

    writes: bool

    async def read(self) -> str:
        # Loading the templates takes longer than the first answer of the server may take.
        from fivetran_state.mcp_server.app.document import render

        return await anyio.to_thread.run_sync(render, self.writes)


class App(Apps):
    """Pass it to the server as an extension."""

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
