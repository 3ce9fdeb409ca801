"""Commands and servers in processes that are forked from one that has imported everything.

A process takes more time to import its libraries than to do its work. Use this where the start of the
interpreter is not what is tested; `terminal` starts a new one, as a person does.
"""

import fcntl
import multiprocessing
import os
import pty
import resource
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
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
_one_at_a_time = threading.Lock()
"""Held while exit codes are read: multiprocessing takes a code that another thread reads for 255."""


class _Forked:
    """A forked command, with what `Terminal` needs of a process."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    def wait(self, timeout: float) -> int:
        code = join(self._process, timeout)
        assert code is not None, "it still runs"
        return code


def start(
    arguments: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    *standard: int,
    owns_terminal: bool = False,
    max_files: int | None = None,
) -> ForkServerProcess:
    """Starts `fivetran-state ...` with these descriptors as its stdin, stdout and stderr.

    `owns_terminal` says that they are a terminal, which becomes that of the process. `max_files`
    limits its open files. Call `join` at the end.
    """
    # Connections, because multiprocessing sends their descriptors along.
    sent = [Connection(os.dup(each)) for each in standard]
    asked = (sent, list(arguments), environment, str(folder), owns_terminal, max_files)
    process = _context.Process(target=_run, args=asked, daemon=True)
    with _one_at_a_time:
        process.start()
    for each in sent:
        each.close()
    return process


def join(process: ForkServerProcess, timeout: float | None = None) -> int | None:
    """The exit code of the process when it has ended, or None after so many seconds."""
    wait([process.sentinel], timeout)
    with _one_at_a_time:
        process.join(0)
        return process.exitcode


def start_server(
    arguments: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    log: Path,
    *,
    max_files: int | None = None,
) -> ForkServerProcess:
    """Starts `fivetran-state ...` without stdin and stdout; its stderr goes to the file `log`."""
    with Path(os.devnull).open("r+b") as nothing, log.open("wb") as stderr:
        standard = (nothing.fileno(), nothing.fileno(), stderr.fileno())
        return start(arguments, environment, folder, *standard, max_files=max_files)


def run(
    arguments: Sequence[str], environment: dict[str, str], folder: Path, timeout: float = 60
) -> "subprocess.CompletedProcess[str]":
    """Runs `fivetran-state ...` to its end, without a terminal."""
    with (
        Path(os.devnull).open("rb") as stdin,
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
    ):
        standard = (stdin.fileno(), stdout.fileno(), stderr.fileno())
        process = start(arguments, environment, folder, *standard)
        code = join(process, timeout)
        if code is None:
            process.kill()
            join(process)
        for each in (stdout, stderr):
            each.seek(0)
        told = (stdout.read(), stderr.read())
    if code is None:
        raise subprocess.TimeoutExpired(list(arguments), timeout, *told)
    return subprocess.CompletedProcess(list(arguments), code, *told)


@contextmanager
def warm_terminal(
    arguments: Sequence[str], environment: dict[str, str], folder: Path
) -> Iterator[Terminal]:
    """`fivetran-state ...` at a terminal of its own."""
    outer, inner = pty.openpty()
    try:
        process = start(
            arguments,
            environment | {"TERM": "xterm"},
            folder,
            *(inner, inner, inner),
            owns_terminal=True,
        )
    finally:
        os.close(inner)
    try:
        yield Terminal(_Forked(process), outer)
    finally:
        process.kill()
        join(process)
        os.close(outer)


def _run(
    sent: "Sequence[Connection[Any, Any]]",
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    owns_terminal: bool,
    max_files: int | None,
) -> None:
    """The program, with these as its stdin, stdout and stderr."""
    if owns_terminal:
        os.setsid()
        fcntl.ioctl(sent[0].fileno(), termios.TIOCSCTTY, 0)
    for standard, each in enumerate(sent):
        os.dup2(each.fileno(), standard)
    for each in sent:
        each.close()
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if max_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))
    sys.argv = ["fivetran-state", *arguments]
    main()
