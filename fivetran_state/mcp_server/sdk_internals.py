"""The unpublished parts of the MCP SDK that this project uses, all in one place.

`tests/unit/test_sdk_internals.py` fails by name when a new version of the SDK removes one.
"""

from typing import Any

from mcp.server import Server
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver import server as mcpserver


def low_level(server: MCPServer[Any]) -> Server[Any]:
    """The underlying server. It takes request handlers and runs on given streams."""
    return server._lowlevel_server


def connection_of(request: ServerRequestContext[Any, Any]) -> Connection:
    """The client's connection. In older protocols, only this lasts as long as a subscription."""
    return request.session._connection


def leave_logs_to_us() -> None:
    """Keep the SDK from configuring logging: for that it loads rich, before the first answer."""
    vars(mcpserver)["configure_logging"] = lambda level: None
