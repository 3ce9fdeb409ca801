"""Where the program starts, with nothing imported that serving MCP on stdio does not need."""

import os
import sys

from fivetran_state.stdio_server import serve_stdio


def main() -> None:
    """`fivetran-state`, with or without arguments."""
    if sys.stderr is None:  # The host has closed it.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    arguments = sys.argv[1:]
    if arguments in ([], ["--sandbox"]):
        serve_stdio(sandbox=bool(arguments))
    else:
        from fivetran_state.cli.app import app

        app()
