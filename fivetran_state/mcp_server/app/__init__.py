"""The MCP App: what tools answer, for a person, inside the chat of a host that shows pages."""

from fivetran_state.mcp_server.app.extension import SHOWN, App

__all__ = ["SHOWN", "App"]
