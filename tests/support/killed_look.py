"""A process that looks once, and kills itself before it commits its n-th write to the database.

    python -m tests.support.killed_look 3

It exits with 0 if the look makes fewer writes. The writes of the start do not count.
"""

import asyncio
import os
import re
import signal
import sys

from sqlalchemy import Connection, Engine, event

from fivetran_state.config import Settings
from fivetran_state.service import Service

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE)\b")


def _kill_before(number: int) -> None:
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


async def _look(number: int) -> None:
    service = Service(Settings())
    service.start()
    await service.operations.left_paused()  # It is up.
    _kill_before(number)
    await service.operations.look()
    await service.close()


if __name__ == "__main__":
    asyncio.run(_look(int(sys.argv[1])))
