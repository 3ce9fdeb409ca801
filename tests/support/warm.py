"""Commands in processes that are forked from one that has imported everything.

A command takes more time to import its libraries than to do its work. Use this where many commands run
one after the other; `terminal` starts a new interpreter for each, as a person does.
"""

import fcntl
import multiprocessing
import os
import pty
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

# The forkserver imports this module, and these with it.
import fivetran_state.cli.app
import fivetran_state.cli.demo
import fivetran_state.http_server
import fivetran_state.mcp_server.server
import fivetran_state.runtime.launch
import fivetran_state.service  # noqa: F401
from fivetran_state.main import main
from tests.support.terminal import Terminal

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


class _Forked:
    """A forked command, with what `Terminal` needs of a process."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, "it still runs"
        return code


@contextmanager
def warm_terminal(
    arguments: Sequence[str], environment: dict[str, str], folder: Path
) -> Iterator[Terminal]:
    """`fivetran-state ...` at a terminal of its own."""
    outer, inner = pty.openpty()
    # A Connection, because multiprocessing sends its descriptor along.
    with Connection(inner) as sent:
        asked = (sent, list(arguments), environment | {"TERM": "xterm"}, str(folder))
        process = _context.Process(target=_run, args=asked, daemon=True)
        process.start()
    try:
        yield Terminal(_Forked(process), outer)
    finally:
        process.kill()
        process.join()
        os.close(outer)


def _run(
    sent: "Connection[Any, Any]", arguments: list[str], environment: dict[str, str], folder: str
) -> None:
    """The program, with this terminal as its own."""
    os.setsid()
    fcntl.ioctl(sent.fileno(), termios.TIOCSCTTY, 0)
    for standard in range(3):
        os.dup2(sent.fileno(), standard)
    sent.close()
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["fivetran-state", *arguments]
    main()
