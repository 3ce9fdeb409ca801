"""MCP on stdin and stdout. Hosts start such a server for each of their windows, and wait for it."""

import gc
import logging
import sys

from fivetran_state.ending import end_process
from fivetran_state.startup import Backend, settings_for


def serve_stdio(*, sandbox: bool) -> None:
    """Serve MCP on stdin and stdout; does not return."""
    gc.disable()  # Until the service is there: see `Backend`.
    settings = settings_for(sandbox)
    # The MCP SDK would dress its logs with it, httpx a command line; both do without. Nobody sees
    # either here, and it takes 6 MB, and time before the first answer.
    sys.modules["rich"] = None  # type: ignore[assignment]
    from fivetran_state.mcp_server import build

    try:
        build(settings, Backend(settings, ends_process=True)).run("stdio")
    except Exception:  # The client is gone, or the terminal.
        logging.getLogger(__name__).warning("The connection to the client broke", exc_info=True)
    finally:
        end_process()
