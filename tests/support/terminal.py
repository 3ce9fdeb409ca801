"""A process at a terminal of its own, as a person sees it."""

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

SECONDS = 60


class Process(Protocol):
    """What runs at a terminal."""

    def wait(self, timeout: float) -> int:
        """The exit code, once it has ended."""


class Terminal:
    """Type into it, and wait for what it shows."""

    def __init__(self, process: Process, descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self.screen = ""
        """All that was shown so far."""

    def wait_for(self, text: str, times: int = 1) -> str:
        """Everything that was shown, once it has this text so many times."""
        deadline = time.monotonic() + SECONDS
        while self.screen.count(text) < times:
            assert self._read(deadline - time.monotonic()), f"{text!r} is not in {self.screen!r}"
        return self.screen

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait(self) -> int:
        """The exit code, once the process has ended."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(SECONDS)

    def _read(self, seconds: float) -> bool:
        """False at the end of the output, or after so many seconds."""
        if not select.select([self._descriptor], [], [], max(seconds, 0))[0]:
            return False
        try:
            found = os.read(self._descriptor, 65536)
        except OSError:  # Linux: nobody has the other side open.
            return False
        self.screen += found.decode(errors="replace")
        return bool(found)


@contextmanager
def terminal(
    command: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    *,
    stdout: int | None = None,
) -> Iterator[Terminal]:
    """A command at a terminal; its stdout may go elsewhere."""
    outer, inner = pty.openpty()

    def own_the_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        command,
        stdin=inner,
        stdout=inner if stdout is None else stdout,
        stderr=inner,
        env=environment | {"TERM": "xterm"},
        cwd=folder,
        preexec_fn=own_the_terminal,
    ) as process:
        os.close(inner)
        try:
            yield Terminal(process, outer)
        finally:
            process.kill()
            os.close(outer)
