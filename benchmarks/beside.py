"""How large groups and other work get on beside each other.

    .venv/bin/python -m benchmarks.beside [update] [health] [limit] [--postgres] [--many 20]

- `update`: how long an update takes alone, and in the same server while groups of 200 run in either mode
  and a watcher looks at 1,000 connections. The target is 1.5 times as long. The fastest of `--many`
  says what the work itself costs, the median what a caller meets.
- `health`: the longest wait for `/healthz`, asked every 50 ms, while a group of 1,000 and ten updates of
  4 MB run in the server. The target is 0.5 s.
- `limit`: two servers share a database and an account with 2,000 calls a minute, and each changes a
  group of 100, in either mode. No update may fail, and the calls a second stand beside those allowed.

The servers are processes of their own in front of a simulated Fivetran, which takes 50 ms for each call.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx

from benchmarks.load import LARGE_ONES, large_state
from fivetran_state.models import Mode
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.calls import API_KEY, API_SECRET
from tests.support.http_server import http_running
from tests.support.postgres import KEY, SECRET_KEY, URL, Postgres
from tests.support.rest import ANY, get, post

LATENCY = 0.05
MODES: tuple[Mode, ...] = ("independent", "all_or_nothing")
TARGET = 1.5
MAX_WAIT = 0.5
BETWEEN_PROBES = 0.05
SINGLE = "single"
BESIDE = 200
LARGE_GROUP = 1000
LARGE_UPDATES = 10
LIMITED = 100
LIMIT = 2000
"""Calls a minute."""
WATCH_SECONDS = "5"
PATIENCE = 600.0


class Numbers:
    """Values that no state has had."""

    def __init__(self) -> None:
        self._next = iter(range(1_000_000))

    def patch(self) -> dict[str, Any]:
        return {"merge_patch": {"cursor": next(self._next)}}


def connections(sandbox: Sandbox, count: int) -> list[str]:
    ids = [f"grouped_{number:04}" for number in range(count)]
    with sandbox.world.transaction():
        for connection_id in ids:
            sandbox.add_connection(connection_id, state='{"cursor":"2026"}')
    return ids


@contextmanager
def fivetran(
    postgres: Postgres | None, *, limit: int | None = None
) -> Iterator[tuple[Sandbox, dict[str, str], Path]]:
    """A simulated Fivetran, the environment of its servers, and a folder."""
    sandbox = Sandbox(seed=False, api_key=API_KEY, api_secret=API_SECRET)
    sandbox.api.requests_per_hour = 10_000_000
    if limit is not None:
        sandbox.api.requests_per_hour = limit
        sandbox.api.limit_window = 60.0
    with SandboxServer(sandbox) as server, tempfile.TemporaryDirectory() as folder:
        environment = {
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_API_URL": server.url,
            "FIVETRAN_STATE_DATA_DIR": f"{folder}/data",
            "FIVETRAN_STATE_RATE_LIMIT": "0",
            "FIVETRAN_STATE_WATCH_INTERVAL": "0",
        }
        if postgres is not None:
            environment |= {URL: postgres.new_database(), KEY: SECRET_KEY}
        yield sandbox, os.environ | environment, Path(folder)


async def begin(
    client: httpx.AsyncClient, ids: Sequence[str], mode: Mode, change: dict[str, Any]
) -> str:
    """The id of a group that was started."""
    body = ANY | {"connection_ids": list(ids), "mode": mode} | change
    made = await post(client, "/states/update", body, status=202, Prefer="wait=0")
    return str(made["workflow_id"])


async def end(client: httpx.AsyncClient, workflow_id: str) -> dict[str, Any]:
    """The end of an update or a group."""
    while True:
        view = await get(client, f"/workflows/{workflow_id}", wait=50)
        if view["status"] != "running":
            return view


class Single:
    """Makes updates of one connection, one after the other."""

    def __init__(self, client: httpx.AsyncClient, numbers: Numbers) -> None:
        self._client = client
        self._numbers = numbers

    async def seconds(self) -> float:
        start = time.perf_counter()
        body = {"connection_id": SINGLE, "expected_version": "*"} | self._numbers.patch()
        await post(self._client, "/state/update", body, Prefer="wait=60")
        return time.perf_counter() - start


async def update(postgres: Postgres | None, many: int) -> None:
    numbers = Numbers()
    with fivetran(postgres) as (sandbox, environment, folder):
        ids = connections(sandbox, LARGE_GROUP)
        sandbox.add_connection(SINGLE, state='{"cursor":"2026"}')
        sandbox.latency = LATENCY
        async with http_running(environment, folder) as server:
            single = Single(server.client, numbers)
            await single.seconds()
            alone = [await single.seconds() for _ in range(many)]
        print(f"update alone: {_told(alone)}", flush=True)
        environment["FIVETRAN_STATE_WATCH_INTERVAL"] = WATCH_SECONDS
        async with http_running(environment, folder) as server:
            single = Single(server.client, numbers)
            await single.seconds()
            for mode in MODES:
                begun = len(sandbox.log)
                beside: list[float] = []
                groups = 0
                while len(beside) < many:
                    for connection_id in ids:
                        sandbox.finish_sync(connection_id)
                    group = await begin(server.client, ids[:BESIDE], mode, numbers.patch())
                    groups += 1
                    ending = asyncio.create_task(end(server.client, group))
                    while not ending.done():
                        beside.append(await single.seconds())
                    view = await ending
                    assert view["counts"] == {"updated": BESIDE}, view["counts"]
                reads = sum(
                    each.path.endswith("/state") and each.connection_id in ids[BESIDE:]
                    for each in sandbox.log[begun:]
                )
                _print_ratio(mode, alone, beside)
                print(f"  of {groups} groups, while the watcher read {reads} states", flush=True)


def _print_ratio(mode: Mode, alone: list[float], beside: list[float]) -> None:
    fastest = min(beside) / min(alone)
    median = statistics.median(beside) / statistics.median(alone)
    missed = "" if max(fastest, median) <= TARGET else "   MISSED"
    print(
        f"update beside groups of {BESIDE}, {mode}: {_told(beside)}; ratio of the fastest "
        f"{fastest:.2f}, of the median {median:.2f} (target {TARGET}){missed}",
    )


def _told(seconds: list[float]) -> str:
    return (
        f"fastest {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s, "
        f"longest {max(seconds):.2f} s of {len(seconds)}"
    )


async def health(postgres: Postgres | None, many: int) -> None:
    numbers = Numbers()
    with fivetran(postgres) as (sandbox, environment, folder):
        ids = connections(sandbox, LARGE_GROUP)
        large = LARGE_ONES[:LARGE_UPDATES]
        for connection_id in large:
            sandbox.add_connection(connection_id, state='{"cursor":0}')
        sandbox.latency = LATENCY
        text = large_state()
        async with http_running(environment, folder) as server:
            url = str(server.client.base_url).rstrip("/")
            for mode in MODES:
                start = time.perf_counter()
                async with _patient(url) as client, _probed(url) as waits:
                    group = await begin(client, ids, mode, numbers.patch())
                    planned = time.perf_counter() - start
                    ending = asyncio.create_task(end(client, group))
                    await asyncio.gather(*(_large_update(url, each, mode, text) for each in large))
                    updated = time.perf_counter() - start
                    view = await ending
                seconds = time.perf_counter() - start
                longest = max(wait for _, wait in waits)
                late = [(at, wait) for at, wait in waits if wait > MAX_WAIT]
                missed = "" if longest <= MAX_WAIT else "   MISSED"
                print(
                    f"/healthz beside a group of {len(ids):,}, {mode}, and {len(large)} updates of "
                    f"4 MB: longest {longest:.2f} s of {len(waits)} (target {MAX_WAIT}), "
                    f"{len(late)} later{missed}; {view['counts']}; planned after {planned:.0f} s, "
                    f"large ones made after {updated:.0f} s, all after {seconds:.0f} s",
                    flush=True,
                )
                for at, wait in late[:10]:
                    print(f"  {wait:.2f} s, asked after {at:.1f} s", flush=True)


@asynccontextmanager
async def _patient(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client that waits longer than the server may be busy."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        yield client


async def _large_update(url: str, connection_id: str, mode: Mode, text: str) -> None:
    body = f'{{"connection_id":"{connection_id}","expected_version":"*","new_state":{{"{mode}":{text}}}}}'
    async with _patient(url) as client:
        made = await post(client, "/state/update", body, status=202, Prefer="wait=0")
        made = await end(client, made["workflow_id"])
        assert made["status"] == "updated", made


@asynccontextmanager
async def _probed(url: str) -> AsyncIterator[list[tuple[float, float]]]:
    """Each request for `/healthz` within the `with` block, after it: when it was asked, and its wait."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.beside", "--probe", url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    waits: list[tuple[float, float]] = []
    try:
        yield waits
    finally:
        told, _ = await process.communicate(b"")
    waits += json.loads(told)


async def probe(url: str) -> None:
    """Asks every 50 ms, whether or not the last one was answered, until stdin ends; prints the waits."""
    waits: list[tuple[float, float]] = []
    begun = time.perf_counter()

    async with _patient(url) as client:

        async def ask() -> None:
            start = time.perf_counter()
            (await client.get("/healthz")).raise_for_status()
            waits.append((start - begun, time.perf_counter() - start))

        async def ask_again() -> None:
            async with anyio.create_task_group() as asking:
                while not has_ended.is_set():
                    asking.start_soon(ask)
                    await anyio.sleep(BETWEEN_PROBES)

        has_ended = anyio.Event()
        print(flush=True)  # The prober has started.
        async with anyio.create_task_group() as probing:
            probing.start_soon(ask_again)
            await anyio.to_thread.run_sync(sys.stdin.read)
            has_ended.set()
    print(json.dumps(waits))


async def limit(postgres: Postgres | None, many: int) -> None:
    numbers = Numbers()
    with fivetran(postgres, limit=LIMIT) as (sandbox, environment, folder):
        ids = connections(sandbox, 2 * LIMITED)
        sandbox.latency = LATENCY
        async with AsyncExitStack() as stack:
            servers = []
            for _ in range(2):
                server = await stack.enter_async_context(http_running(environment, folder))
                client = _patient(str(server.client.base_url))
                servers.append(await stack.enter_async_context(client))
            for mode in MODES:
                begun = len(sandbox.log)
                start = time.perf_counter()
                views = await asyncio.gather(
                    *(
                        _group(client, part, mode, numbers.patch())
                        for client, part in zip(
                            servers, (ids[:LIMITED], ids[LIMITED:]), strict=True
                        )
                    )
                )
                seconds = time.perf_counter() - start
                log = sandbox.log[begun:]
                refused = sum(each.status == 429 for each in log)
                counts = [view["counts"] for view in views]
                missed = "" if counts == [{"updated": LIMITED}] * 2 else "   MISSED"
                print(
                    f"two servers, each a group of {LIMITED}, {mode}: {counts}{missed}; "
                    f"{len(log)} calls in {seconds:.0f} s, {len(log) / seconds:.1f} a second "
                    f"(allowed {LIMIT / 60:.1f}), {refused} refused",
                    flush=True,
                )


async def _group(
    client: httpx.AsyncClient, ids: Sequence[str], mode: Mode, change: dict[str, Any]
) -> dict[str, Any]:
    return await end(client, await begin(client, ids, mode, change))


MEASURES = {measure.__name__: measure for measure in (update, health, limit)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES])
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--many", type=int, default=20)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        anyio.run(probe, arguments.probe)
        return
    postgres = Postgres() if arguments.postgres else None
    try:
        for name in arguments.measures or MEASURES:
            anyio.run(MEASURES[name], postgres, arguments.many)
    finally:
        if postgres is not None:
            postgres.close()


if __name__ == "__main__":
    main()
