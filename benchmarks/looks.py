"""What a look of the watcher costs: calls, seconds and memory.

    .venv/bin/python -m benchmarks.looks [--connections 1000 10000] [--postgres]

Each look is a process of its own (`fivetran-state watch --once`) in front of a simulated Fivetran. The
first one reads all states; then a twentieth of the connections sync, and the second one reads theirs.
Seconds stand beside those of raw httpx that makes the same calls, four at a time. Memory is the
process's peak. At the end, an update is made twice: alone, and during a look.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from fivetran_state.changes import Inline
from fivetran_state.config import Settings
from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.sandbox.server import SandboxServer
from fivetran_state.service import Service
from fivetran_state.state import Change
from tests.support.calls import API_KEY, API_SECRET, arrival
from tests.support.postgres import SECRET_KEY, Postgres
from tests.support.watching import only, sync

AT_ONCE = 4
SHARE = 20
"""One of so many connections syncs between two looks."""
ROUNDS = 5
HEADERS = {"Accept": "application/json;version=2"}
LATENCY = 0.05
"""Seconds that the simulated Fivetran takes for each call while an update runs."""


def _look(environment: dict[str, str]) -> tuple[dict[str, Any], float, float]:
    """What it did, its seconds, and its peak in megabytes."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "fivetran_state", "watch", "--once", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the look failed")
    return json.loads(output), time.monotonic() - begin, usage.ru_maxrss / 1024


async def _raw(url: str, lists: int, ids: list[str]) -> float:
    """Seconds of the same calls."""
    few = asyncio.Semaphore(AT_ONCE)
    begin = time.monotonic()
    async with httpx.AsyncClient(
        base_url=url, auth=(API_KEY, API_SECRET), headers=HEADERS
    ) as client:

        async def read(connection_id: str) -> None:
            async with few:
                (await client.get(f"/v1/connections/{connection_id}/state")).raise_for_status()

        for _ in range(lists):
            await client.get("/v1/connections", params={"limit": 1000})
        await asyncio.gather(*map(read, ids))
    return time.monotonic() - begin


def _measure(sandbox: Sandbox, url: str, environment: dict[str, str], count: int) -> None:
    ids = only(sandbox, count)
    moved = ids[::SHARE]
    for what, read in (("all states", ids), ("a twentieth", moved)):
        if read is moved:
            for connection_id in moved:
                sync(sandbox, connection_id, {"cursor": "after"})
        begin = len(sandbox.log)
        looked, seconds, megabytes = _look(environment)
        made = sandbox.log[begin:]
        lists = sum(each.path == "/v1/connections" for each in made)
        states = sum(each.path.endswith("/state") for each in made)
        raw = asyncio.run(_raw(url, lists, read))
        print(
            f"{count:6} connections, {what:11}: {lists} calls for lists, {states} for states, "
            f"{len(made) - lists - states} others; {looked['read']} read; {seconds:6.1f} s "
            f"(raw {raw:5.1f} s); {megabytes:.0f} MB",
            flush=True,
        )


async def _update_beside_a_look(sandbox: Sandbox) -> None:
    """Print how much longer an update takes during a look."""
    ids = only(sandbox, 400)
    updated = "updated"
    sandbox.add_connection(updated, state='{"n":0}', paused=True)
    sandbox.latency = LATENCY
    service = Service(Settings())
    service.start()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(ROUNDS * 2):
        during = bool(number % 2)
        looking = None
        if during:
            for connection_id in ids:
                sync(sandbox, connection_id, {"cursor": number})
            begun = len(sandbox.log)

            def is_reading(request: LoggedRequest, begun: int = begun) -> bool:
                return request.index >= begun and request.path.endswith("/state")

            looking = asyncio.create_task(service.operations.look())
            await arrival(sandbox, is_reading)
        version = (await service.states.get_state(updated)).version
        begin = time.monotonic()
        done = await service.changes.update_state(
            updated,
            Inline(Change("merge_patch", {"n": number + 1})),
            expected_version=version,
            wait_seconds=60,
        )
        seconds[during].append(time.monotonic() - begin)
        assert done.status == "updated", done
        if looking is not None:
            assert not looking.done(), "the look was over before the update"
            await looking
    await service.close()
    alone, beside = (min(each) for each in (seconds[False], seconds[True]))
    print(f"an update during a look / alone: {beside / alone:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, nargs="*", default=[1000, 10000])
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    postgres = Postgres() if arguments.postgres else None
    with tempfile.TemporaryDirectory() as folder:
        for count in [*arguments.connections, 0]:
            sandbox = Sandbox(api_key=API_KEY, api_secret=API_SECRET)
            sandbox.api.requests_per_hour = 1_000_000
            with SandboxServer(sandbox) as server:
                environment = {
                    "FIVETRAN_API_KEY": API_KEY,
                    "FIVETRAN_API_SECRET": API_SECRET,
                    "FIVETRAN_API_URL": server.url,
                    "FIVETRAN_STATE_DATA_DIR": str(Path(folder) / str(count)),
                }
                if postgres is not None:
                    environment["DBOS_SYSTEM_DATABASE_URL"] = postgres.new_database()
                    environment["FIVETRAN_STATE_SECRET_KEY"] = SECRET_KEY
                if count:
                    _measure(sandbox, server.url, os.environ | environment, count)
                else:
                    os.environ.update(environment)
                    asyncio.run(_update_beside_a_look(sandbox))
    if postgres is not None:
        postgres.close()


if __name__ == "__main__":
    main()
