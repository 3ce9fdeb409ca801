"""The MCP server: what an assistant sees of `service.py`."""

from fivetran_state.mcp_server.server import build

__all__ = ["build"]
