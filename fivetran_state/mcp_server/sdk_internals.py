"""What this project uses of the MCP SDK that the SDK does not publish, all in one place.

`tests/unit/test_sdk_internals.py` fails by name when a new version of the SDK takes something away.
"""

from typing import Any

from mcp.server import Server
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver import server as mcpserver


def low_level(server: MCPServer[Any]) -> Server[Any]:
    """The server underneath, which takes request handlers and runs on given streams."""
    return server._lowlevel_server


def connection_of(request: ServerRequestContext[Any, Any]) -> Connection:
    """The client's connection: of the older protocols, nothing else lasts as long as a subscription."""
    return request.session._connection


def leave_logs_to_us() -> None:
    """Keep the SDK from configuring logging: for that it loads rich, before the first answer."""
    vars(mcpserver)["configure_logging"] = lambda level: None
