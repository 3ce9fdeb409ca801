"""The MCP server: what an assistant sees of the service."""

from fivetran_state.mcp_server.server import build

__all__ = ["build"]
