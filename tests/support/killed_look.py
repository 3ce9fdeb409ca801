"""A process that looks once, and kills itself before it commits its n-th write to the database.

    python -m tests.support.killed_look 3

It exits with 0 if the look makes fewer writes. The writes of the start do not count.
"""

import asyncio
import sys

from fivetran_state.config import Settings
from fivetran_state.service import Service
from tests.support.killed import kill_before


async def _look(number: int) -> None:
    service = Service(Settings())
    service.start()
    await service.operations.left_paused()  # It is up.
    kill_before(number)
    await service.operations.look()
    await service.close()


if __name__ == "__main__":
    asyncio.run(_look(int(sys.argv[1])))
