"""Records what a killed server leaves behind, for later versions to go on with.

    .venv/bin/python -m tests.recorded.record

Run it once at each release, before the version is raised, and commit the folder that it makes:
`tests/recorded/<version>/<situation>/` holds the database, its key, and in `scenario.json` the
connection as the simulated Fivetran has it. `tests/integration/test_upgrade.py` finds the folder
by itself. Never change or remove one: each stands for databases that people have.
"""

import gzip
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from fivetran_state import __version__
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.calls import API_KEY, API_SECRET, arrival
from tests.crash.processes import Server, running
from tests.crash.test_kill import AFTER, is_poll_of_a_sync, start_update

HERE = Path(__file__).parent
CONNECTION = "slow_tortoise"
BEFORE = {"cursor": "2026-01-01T00:00:00Z"}


async def while_draining(server: Server, sandbox: Sandbox) -> str:
    """The connection is paused, its sync still runs; nothing is written."""
    sandbox.start_sync(CONNECTION)
    workflow_id = await start_update(server, CONNECTION)
    await arrival(sandbox, lambda request: is_poll_of_a_sync(request) and bool(request.status))
    await server.kill()
    sandbox.finish_sync(CONNECTION)
    return workflow_id


async def after_the_write(server: Server, sandbox: Sandbox) -> str:
    """Fivetran has the new state, but the checkpoint that says so is missing."""
    sandbox.fault(AFTER, method="PATCH", path="/state$")
    workflow_id = await start_update(server, CONNECTION)
    await arrival(sandbox, lambda request: request.fault == AFTER)
    await server.kill()
    return workflow_id


async def record(situation: str, play: Callable[[Server, Sandbox], Awaitable[str]]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="recording-"))
    sandbox = Sandbox(api_key=API_KEY, api_secret=API_SECRET, seed=False)
    sandbox.add_connection(
        CONNECTION, state=json.dumps(BEFORE), drain_seconds=3600, stopped_sync_counts=False
    )
    with SandboxServer(sandbox) as fivetran:
        environment = {
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_API_URL": fivetran.url,
            "FIVETRAN_STATE_DATA_DIR": str(folder / "data"),
        }
        async with running(environment, folder) as server:
            workflow_id = await play(server, sandbox)
    left = sandbox.connection(CONNECTION)
    _keep(
        folder / "data",
        HERE / __version__ / situation,
        {
            "workflow_id": workflow_id,
            "connection_id": CONNECTION,
            "paused": left.paused,
            "state": left.state,
            "state_before": json.dumps(BEFORE),
        },
    )
    sandbox.close()
    shutil.rmtree(folder)


def _keep(data: Path, folder: Path, scenario: dict[str, Any]) -> None:
    database = sqlite3.connect(data / "state.db")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    folder.mkdir(parents=True)
    (folder / "state.db.gz").write_bytes(gzip.compress((data / "state.db").read_bytes(), mtime=0))
    shutil.copyfile(data / "key", folder / "key")
    (folder / "scenario.json").write_text(json.dumps(scenario, indent=2) + "\n")


async def main() -> None:
    await record("draining", while_draining)
    await record("written", after_the_write)


if __name__ == "__main__":
    if (HERE / __version__).exists():
        sys.exit(f"{HERE / __version__} exists")
    anyio.run(main)
