"""Kills this process before it commits its n-th write to the database."""

import os
import re
import signal

from sqlalchemy import Connection, Engine, event

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b")


def kill_before(number: int) -> None:
    """The writes count from now on."""
    count = 0

    def note(connection: Connection, _: object, statement: str, *__: object) -> None:
        if _WRITES.match(statement):
            connection.info["has_written"] = True

    def kill(connection: Connection) -> None:
        nonlocal count
        if connection.info.pop("has_written", False):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", note)
    event.listen(Engine, "commit", kill)
