"""The parts of the MCP SDK that `mcp_server.sdk_internals` uses still exist and still do the same."""

import subprocess
import sys
from typing import Any

from mcp import Client
from mcp.server import Server
from mcp.server.connection import Connection
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver import server as mcpserver

from fivetran_state.mcp_server.sdk_internals import connection_of, low_level


def test_the_sdk_configures_no_logs_and_so_does_not_load_rich() -> None:
    assert callable(vars(mcpserver)["configure_logging"])
    program = """if True:
        import sys
        from fivetran_state.mcp_server.sdk_internals import leave_logs_to_us
        from mcp.server.mcpserver import MCPServer
        leave_logs_to_us()
        MCPServer("any")
        assert "rich" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def test_low_level_is_the_server_underneath() -> None:
    assert isinstance(low_level(MCPServer[None]("any")), Server)


async def test_connection_of_is_the_same_throughout_a_connection_of_an_older_protocol() -> None:
    server = MCPServer[None]("any")
    connections: list[Connection] = []

    @server.tool()
    async def remember(context: Context[Any, Any]) -> None:
        connections.append(connection_of(context.request_context))

    for _ in range(2):
        async with Client(server, mode="legacy") as client:
            for _ in range(2):
                await client.call_tool("remember", {})

    first, again, other, _ = connections
    assert isinstance(first, Connection)
    assert first is again
    assert first is not other
