"""Two servers without a common database update one connection: neither leaves it paused."""

from pathlib import Path

import pytest

from fivetran_state.sandbox import Fault, Sandbox
from tests.support import matrix
from tests.support.calls import IDLE, arrival, call, version_of
from tests.support.processes import Server, ended, running

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("goes_on_first", matrix.few(["the one"], ["the one", "the other"]))
@pytest.mark.parametrize("stops_at", matrix.few(["pause"], matrix.RUNNING))
async def test_servers_without_a_common_database_leave_a_connection_as_it_was(
    environment: dict[str, str],
    sandbox: Sandbox,
    tmp_path: Path,
    stops_at: str,
    goes_on_first: str,
) -> None:
    """One server stops at a call that has taken effect. The other starts then, and stops at each of
    its calls."""
    data = environment["FIVETRAN_STATE_DATA_DIR"]
    async with (
        running(environment, tmp_path) as one,
        running(environment, tmp_path, FIVETRAN_STATE_DATA_DIR=f"{data} of another") as other,
    ):
        for other_stops_at in matrix.RUNNING:
            held = [(one, *await held_update(sandbox, one, matrix.RUNNING[stops_at]))]
            calls = matrix.PAUSED if sandbox.connection(IDLE).paused else matrix.RUNNING
            if other_stops_at in calls:
                found = await held_update(sandbox, other, calls[other_stops_at])
                held.append((other, *found))
            if goes_on_first == "the other":
                held.reverse()
            for server, fault, workflow_id in held:
                fault.release()
                status = await ended(server.client, workflow_id)
                assert status["status"] in ("updated", "failed"), status

            assert not sandbox.connection(IDLE).paused, other_stops_at


async def held_update(sandbox: Sandbox, server: Server, at: matrix.Call) -> tuple[Fault, str]:
    """The id of an update, and the fault that holds it at this call."""
    version = await version_of(server.client, IDLE)
    before = sandbox.log[-1].index
    fault = sandbox.fault("apply_then_hang", method=at.method, path=at.path(IDLE), skip=at.skip)
    started = await call(
        server.client,
        "update_state",
        connection_id=IDLE,
        merge_patch={f"cursor of {server.pid}": before},
        expected_version=version,
        wait_seconds=0,
    )
    await arrival(sandbox, lambda each: each.index > before and each.fault is not None)
    return fault, started["workflow_id"]
