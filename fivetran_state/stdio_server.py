"""MCP on stdin and stdout. Hosts start such a server for each of their windows, and wait for it."""

import gc
import logging

from fivetran_state.ending import end_process
from fivetran_state.startup import Backend, settings_for


def serve_stdio(*, sandbox: bool) -> None:
    """Serve MCP on stdin and stdout; does not return."""
    gc.disable()  # Until the service is there: see `Backend`.
    settings = settings_for(sandbox)
    from fivetran_state.mcp_server import build

    try:
        build(settings, Backend(settings, ends_process=True)).run("stdio")
    except Exception:  # The client is gone, or the terminal.
        logging.getLogger(__name__).warning("The connection to the client broke", exc_info=True)
    finally:
        end_process()
