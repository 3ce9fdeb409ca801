"""The audit file: one JSON line for each event, with the SHA-256 of the line before it.

So nobody can change, remove or insert a line unnoticed, unless they write all later lines anew, or cut
off the end. Whoever keeps the hash of the last line elsewhere notices that, too. Several processes may
share the file.
"""

import errno
import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from fivetran_state import private
from fivetran_state.logs import time_text

PREVIOUS = "previous"
"""The field with the hash of the line before."""
NOTHING = "0" * 64
"""What the first line has in place of a hash."""
_POLL_SECONDS = 0.001
_PATIENCE = 0.5
"""Seconds to wait for another process's line. That process may be suspended, and updates must go on."""
_TAIL = 4096
"""Bytes, more than most lines have."""


class AuditFile:
    """Appends to the file. Every method raises `OSError` if the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._one_at_a_time = threading.Lock()
        self._locked_by_us: FileLock | None = None
        self._known: tuple[int, str] = 0, NOTHING
        """The size of the file after our last line, and the hash of that line."""

    def create(self) -> None:
        """Create the file if it does not exist, for this user alone."""
        private.create(self.path)
        self._locked_by_us = private.lock(self.path.with_name(f"{self.path.name}.lock"))

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line, in one write."""
        with self._one_at_a_time:
            if self._locked_by_us is None:
                self.create()
            assert self._locked_by_us is not None
            with self._locked_by_us.acquire(_PATIENCE, poll_interval=_POLL_SECONDS):
                descriptor = private.open_to_append(self.path)
                try:
                    self._append(descriptor, entry)
                finally:
                    os.close(descriptor)

    def _append(self, descriptor: int, entry: dict[str, Any]) -> None:
        size, previous = self._known
        begin = b""
        if os.fstat(descriptor).st_size != size or not size:
            last = _last_line(descriptor)
            previous = NOTHING if last is None else _hash(last)
            if last is not None and not last.endswith(b"\n"):
                begin = b"\n"  # A process died while it wrote that line, which stays as it is.
        fields = {"time": time_text(time.time()), **entry, PREVIOUS: previous}
        line = json.dumps(fields).encode()
        whole = begin + line + b"\n"
        if os.write(descriptor, whole) < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._known = os.fstat(descriptor).st_size, _hash(line)


@dataclass
class Verdict:
    """What `verify` has found."""

    lines: int = 0
    incomplete: list[int] = field(default_factory=list)
    """Lines that a process could not write to their end."""
    wrong: list[int] = field(default_factory=list)
    """Lines that somebody has changed, or after which somebody has removed or inserted lines. 0: the
    beginning of the file is missing."""
    last: str = NOTHING
    """The hash of the last line."""


def verify(path: Path) -> Verdict:
    """Compare each line with the hash in the next one; raises `OSError`."""
    verdict = Verdict()
    with path.open("rb") as file:
        for line in file:
            previous = _previous_in(line)
            if previous is not None and previous != verdict.last:
                verdict.wrong.append(verdict.lines)
            verdict.lines += 1
            if previous is None:
                verdict.incomplete.append(verdict.lines)
            verdict.last = _hash(line)
    return verdict


def _previous_in(line: bytes) -> str | None:
    """The hash in the line; None if the line is incomplete."""
    try:
        found = json.loads(line)[PREVIOUS] if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, str) else None


def _hash(line: bytes) -> str:
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def _last_line(descriptor: int) -> bytes | None:
    """The last line, with its end if it has one; None if the file is empty."""
    size = os.fstat(descriptor).st_size
    length = _TAIL
    while size:
        start = max(size - length, 0)
        os.lseek(descriptor, start, os.SEEK_SET)
        tail = os.read(descriptor, size - start)
        newline = tail.rfind(b"\n", 0, -1)
        if newline >= 0 or not start:
            return tail[newline + 1 :]
        length *= 2
    return None
