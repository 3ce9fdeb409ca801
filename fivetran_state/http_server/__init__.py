"""The HTTP server: MCP over Streamable HTTP, and REST, over one `service.py`."""

from fivetran_state.http_server.app import build, run

__all__ = ["build", "run"]
