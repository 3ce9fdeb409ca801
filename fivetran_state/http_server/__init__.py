"""The HTTP server: MCP over Streamable HTTP, and REST, over one `service.py`."""

from fivetran_state.http_server.app import bind, build, run

__all__ = ["bind", "build", "run"]
