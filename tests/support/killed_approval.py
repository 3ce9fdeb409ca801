"""A process in which a person approves a proposal, and which kills itself before its n-th write.

    python -m tests.support.killed_approval proposal:1f… 3

It exits with 0 if it makes fewer writes until the update has ended.
"""

import asyncio
import sys

from fivetran_state import access
from fivetran_state.config import Settings
from fivetran_state.service import Service
from tests.support.killed import kill_before
from tests.support.people import APPROVER, version_of


async def _approve(proposal: str, number: int) -> None:
    service = Service(Settings())
    service.start()
    with access.working_for(APPROVER):
        version = version_of(await service.proposals.plan(proposal))
        kill_before(number)
        await service.proposals.approve(proposal, expected_version=version, wait_seconds=30)
    await service.close()


if __name__ == "__main__":
    asyncio.run(_approve(sys.argv[1], int(sys.argv[2])))
