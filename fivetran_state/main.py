"""Where the program starts, with nothing imported that serving MCP on stdio does not need."""

import os
import sys

from fivetran_state.stdio_server import serve_stdio

_COMPLETION = "_FIVETRAN_STATE_COMPLETE"
"""A shell that completes a command line sets it."""


def main() -> None:
    """`fivetran-state`, with or without arguments."""
    if sys.stderr is None:  # The host has closed it.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    arguments = sys.argv[1:]
    if arguments in ([], ["--sandbox"]) and _COMPLETION not in os.environ:
        serve_stdio(sandbox=bool(arguments))
    else:
        from fivetran_state.cli import app

        app.main()
