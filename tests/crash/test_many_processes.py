"""Many servers, one connection: one update at a time, no lost update, and every number used once."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, call, state_of, version_of
from tests.support.processes import Server, running
from tests.support.updates import changes

TURNS = 2


class Barrier:
    """Lets all continue when all have arrived."""

    def __init__(self, parties: int) -> None:
        self._missing = parties
        self._complete = anyio.Event()

    async def wait(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._complete.set()
        await self._complete.wait()


async def insist(server: Server, patch: dict[str, Any], started: list[str]) -> None:
    """Tries until the update is made; records every update that this server started."""
    while True:
        result = await server.client.call_tool(
            "update_state",
            {
                "connection_id": IDLE,
                "merge_patch": patch,
                "expected_version": await version_of(server.client, IDLE),
                "wait_seconds": 50,
            },
        )
        answer = json.loads(result.content[0].text)  # type: ignore[union-attr]
        if result.is_error and answer["code"] == "update_in_progress":
            await call(
                server.client,
                "workflow_status",
                workflow_id=answer["workflow_id"],
                wait_seconds=50,
            )
            continue
        started.append(answer["workflow_id"])
        if not result.is_error:
            assert answer["status"] == "updated", answer
            return
        assert answer["code"] == "conflict", answer


async def contend(environment: dict[str, str], folder: Path, processes: int) -> list[str]:
    """Every server makes its updates, all at the same time; the ids of the updates that were
    started."""
    started: list[str] = []
    all_ready = Barrier(processes)

    async def assistant(number: int) -> None:
        async with running(environment, folder) as server:
            await version_of(server.client, IDLE)
            await all_ready.wait()
            for turn in range(1, TURNS + 1):
                await insist(server, {f"server_{number}": turn}, started)

    async with anyio.create_task_group() as tasks:
        for number in range(processes):
            tasks.start_soon(assistant, number)
    return started


@pytest.mark.slow
@pytest.mark.parametrize(("database", "processes"), [("environment", 8), ("on_postgres", 4)])
async def test_servers_update_one_connection_one_at_a_time(
    sandbox: Sandbox,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: str,
    processes: int,
) -> None:
    started = await contend(request.getfixturevalue(database), tmp_path, processes)

    members = {f"server_{number}": TURNS for number in range(processes)}
    final = state_of(sandbox, IDLE)
    assert final == {"cursor": final["cursor"]} | members

    # An update that comes too late pauses no connection.
    assert changes(sandbox, IDLE) == "pwr" * (processes * TURNS)
    assert all(request.applied for request in sandbox.log if request.connection_id == IDLE)
    assert sandbox.connection(IDLE).paused is False

    numbers = sorted(int(workflow_id.removeprefix(f"{IDLE}:")) for workflow_id in started)
    assert numbers == list(range(1, len(started) + 1))
