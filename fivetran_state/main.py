"""Where the program starts, with nothing imported that serving MCP on stdio does not need.

Hosts start such a server for each of their windows, and wait for it.
"""

import logging
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from fivetran_state.ending import end_process
from fivetran_state.text import visible

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from fivetran_state.config import Settings


def main() -> None:
    """`fivetran-state`, with or without arguments."""
    if sys.stderr is None:  # The host has closed it.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    arguments = sys.argv[1:]
    if arguments in ([], ["--sandbox"]):
        serve_stdio(sandbox=bool(arguments))
    else:
        from fivetran_state.cli import app

        app()


def serve_stdio(*, sandbox: bool) -> None:
    """Serve MCP on stdin and stdout; does not return."""
    settings = settings_for(sandbox)
    # The MCP SDK would dress its logs with it, httpx a command line; both do without. Nobody sees
    # either here, and it takes 6 MB, and time before the first answer.
    sys.modules["rich"] = None  # type: ignore[assignment]
    from fivetran_state.mcp_server import build
    from fivetran_state.mcp_server.backend import Backend

    try:
        build(settings, Backend(settings, ends_process=True)).run("stdio")
    except Exception:  # The client is gone, or the terminal.
        logging.getLogger(__name__).warning("The connection to the client broke", exc_info=True)
    finally:
        end_process()


def refuse_to_start(why: str) -> NoReturn:
    """Say why on stderr, and exit with 2, as for a wrong command line."""
    sys.stderr.write(f"Cannot start: {visible(why)}\n")
    raise SystemExit(2)


def _in_words(problem: "ErrorDetails") -> str:
    """Without the value, which may be a secret."""
    said = problem["msg"].removeprefix("Value error, ")
    return f"{problem['loc'][0]}: {said}" if problem["loc"] else said


def settings_for(sandbox: bool, takes_guests: bool = False) -> "Settings":
    """The settings, and the logs as they say; exits with 2 if the environment is wrong."""
    from pydantic import ValidationError

    from fivetran_state import logs
    from fivetran_state.config import Settings

    try:
        settings = Settings(sandbox=sandbox, takes_guests=takes_guests)
    except ValidationError as error:
        refuse_to_start("; ".join(_in_words(problem) for problem in error.errors()))
    logs.configure(settings.log_level)
    if settings.dbos_application_database_url is not None:
        logging.getLogger(__name__).warning(
            "DBOS_DATABASE_URL is ignored: DBOS has no application database any more; "
            "DBOS_SYSTEM_DATABASE_URL is what counts"
        )
    return settings
