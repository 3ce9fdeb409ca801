"""Many servers, one connection: one update at a time, none lost, every number used once."""

from pathlib import Path

import anyio

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, state_of, version_of
from tests.support.contention import Barrier, insist, letter
from tests.support.processes import running

PROCESSES = 8
TURNS = 2


async def contend(environment: dict[str, str], folder: Path) -> list[str]:
    """Every server makes its updates, all at once; the ids of the updates that were started."""
    started: list[str] = []
    all_ready = Barrier(PROCESSES)

    async def assistant(number: int) -> None:
        async with running(environment, folder) as server:
            await version_of(server.client, IDLE)
            await all_ready.wait()
            for turn in range(1, TURNS + 1):
                await insist(server, {f"server_{number}": turn}, started)

    async with anyio.create_task_group() as tasks:
        for number in range(PROCESSES):
            tasks.start_soon(assistant, number)
    return started


async def test_eight_servers_update_one_connection_one_at_a_time(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    started = await contend(environment, tmp_path)

    members = {f"server_{number}": TURNS for number in range(PROCESSES)}
    final = state_of(sandbox, IDLE)
    assert final == {"cursor": final["cursor"]} | members

    changes = [r for r in sandbox.log if r.connection_id == IDLE and r.method == "PATCH"]
    assert all(request.applied for request in changes)
    # An update that comes too late pauses nobody.
    assert "".join(map(letter, changes)) == "pwr" * (PROCESSES * TURNS)
    assert sandbox.connection(IDLE).paused is False

    numbers = sorted(int(workflow_id.removeprefix(f"{IDLE}:")) for workflow_id in started)
    assert numbers == list(range(1, len(started) + 1))
