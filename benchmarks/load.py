"""The effect of one caller on the others: how long they wait, and how much memory it takes.

    .venv/bin/python -m benchmarks.load [names of loads]

One HTTP server runs in its own process, in front of a simulated Fivetran. During a load, a prober
in another process, with another token, asks for `/healthz` and makes a small update, again and
again. Each load has one row: the longest wait for each of the two, and the growth of the server's
memory. Linux only.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx

from benchmarks.speed import memory
from fivetran_state.config import Settings
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from fivetran_state.tokens import TokenFile
from tests.support.http_server import HttpProcess, http_running

MAX_WAIT = 0.5
MAX_MEMORY = 200
"""Megabytes."""
BETWEEN_PROBES = 0.02
SETTLING = 1.0
"""Seconds after a load during which its after-effects still count."""
LARGE = 4_000_000
"""Bytes, just below the limit for a body."""
DEEP = 95
SMALL = "probed"
LARGE_ONES = [f"large_{number}" for number in range(30)]
WAITED_FOR = "waited_for"
JSON = {"Content-Type": "application/json"}
TOKEN = "TOKEN_OF_THIS_PROCESS"

Load = Callable[[str], Awaitable[Counter[str]]]
"""Puts its load on the server at that address; returns the number of answers of each kind."""


def large_state(size: int = LARGE) -> str:
    """Cursors of many tables."""
    member = '"table_{:07}":{{"cursor":"2026-01-01T00:00:00.000Z","id":{},"share":0.1{}}}'
    count = size // len(member.format(0, 1_000_000, 5))
    return "{" + ",".join(member.format(n, 1_000_000 + n, n % 10) for n in range(count)) + "}"


def deep_state(size: int = LARGE) -> str:
    """As many nested arrays as the limits allow."""
    item = "[" * DEEP + "]" * DEEP
    return '{"deep":[' + ",".join([item] * (size // (len(item) + 1))) + "]}"


def dense_state(size: int = LARGE) -> str:
    """As many exact numbers as the limits allow."""
    return '{"dense":[' + ",".join(["1.5"] * (size // 4)) + "]}"


def bulky_state(size: int = LARGE) -> str:
    """One value of maximum size that cannot be compressed."""
    return f'{{"bulky":"{os.urandom(size // 2 - 100).hex()}"}}'


async def _all(*requests: Awaitable[httpx.Response]) -> Counter[str]:
    answers = await asyncio.gather(*requests, return_exceptions=True)
    return Counter(
        str(each.status_code) if isinstance(each, httpx.Response) else type(each).__name__
        for each in answers
    )


def _client(url: str) -> httpx.AsyncClient:
    """A client with the token of this process."""
    limits = httpx.Limits(max_connections=None)
    headers = JSON | {"Authorization": f"Bearer {os.environ[TOKEN]}"}
    return httpx.AsyncClient(base_url=url, timeout=300, limits=limits, headers=headers)


def _change(connection_id: str, state: str, more: str = "") -> str:
    return f'{{"connection_id":"{connection_id}"{more},"expected_version":"*","new_state":{state}}}'


async def nothing(url: str) -> Counter[str]:
    """No load: the delay by the machine itself."""
    await asyncio.sleep(5)
    return Counter()


async def one_update(url: str) -> Counter[str]:
    """An update of 4 MB."""
    async with _client(url) as client:
        body = _change(LARGE_ONES[0], large_state())
        return await _all(client.post("/state/update", content=body))


async def one_dense_update(url: str) -> Counter[str]:
    """An update of a million numbers."""
    async with _client(url) as client:
        body = _change(LARGE_ONES[0], dense_state())
        return await _all(client.post("/state/update", content=body))


async def large_plans(url: str) -> Counter[str]:
    """30 plans of 4 MB at once."""
    body = _change(LARGE_ONES[1], large_state(), ',"dry_run":true')
    async with _client(url) as client:
        return await _all(*(client.post("/state/update", content=body) for _ in range(30)))


async def deep_plans(url: str) -> Counter[str]:
    """30 plans of 4 MB at once, 95 levels deep."""
    body = _change(LARGE_ONES[1], deep_state(), ',"dry_run":true')
    async with _client(url) as client:
        return await _all(*(client.post("/state/update", content=body) for _ in range(30)))


async def large_reads(url: str) -> Counter[str]:
    """30 states of 4 MB read, by one request."""
    async with _client(url) as client:
        return await _all(client.post("/state/get-multiple", json={"connection_ids": LARGE_ONES}))


async def listings(url: str) -> Counter[str]:
    """10 listings of 100 updates of 4 MB."""
    async with _client(url) as client:
        return await _all(*(client.get("/workflows?limit=100") for _ in range(10)))


async def unknown_fields(url: str) -> Counter[str]:
    """3 bodies with 300,000 unknown fields."""
    body = "{" + ",".join(f'"f{number}":0' for number in range(300_000)) + "}"
    async with _client(url) as client:
        return await _all(*(client.post("/state/get", content=body) for _ in range(3)))


async def wrong_operations(url: str) -> Counter[str]:
    """3 JSON patches with a million invalid operations."""
    body = f'{{"connection_id":"{SMALL}","expected_version":"*","json_patch":[{",".join(["0"] * 1_000_000)}]}}'
    async with _client(url) as client:
        return await _all(*(client.post("/state/update", content=body) for _ in range(3)))


async def subscriptions(url: str) -> Counter[str]:
    """200 subscriptions of 100 resources each."""
    uris = [f"fivetran://connections/listened_{number}/state" for number in range(100)]
    async with _client(url) as client, AsyncExitStack() as open_streams:

        async def listen(number: int) -> httpx.Response:
            body = {
                "jsonrpc": "2.0",
                "id": number,
                "method": "subscriptions/listen",
                "params": {
                    "notifications": {"resourceSubscriptions": uris},
                    "_meta": {
                        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                        "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "0"},
                        "io.modelcontextprotocol/clientCapabilities": {},
                    },
                },
            }
            headers = {
                "Accept": "application/json, text/event-stream",
                "MCP-Protocol-Version": "2026-07-28",
                "Mcp-Method": "subscriptions/listen",
            }
            stream = client.stream("POST", "/mcp", json=body, headers=headers)
            return await open_streams.enter_async_context(stream)

        found = await _all(*map(listen, range(200)))
        await asyncio.sleep(SETTLING)
        return found


async def silence(url: str) -> Counter[str]:
    """500 connections that send nothing."""
    host, _, port = url.removeprefix("http://").partition(":")
    writers = []
    for _ in range(500):
        _, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
    await asyncio.sleep(5)
    for writer in writers:
        writer.close()
    return Counter({"connected": len(writers)})


async def waiting(url: str) -> Counter[str]:
    """300 calls that wait for one update."""
    async with _client(url) as client:
        update = {
            "connection_id": WAITED_FOR,
            "expected_version": "*",
            "merge_patch": {"cursor": "later"},
        }
        started = await client.post(
            "/state/update", json=update, headers={"Prefer": "respond-async"}
        )
        path = f"/workflows/{started.json()['workflow_id']}"
        found = await _all(*(client.get(path, params={"wait": 10}) for _ in range(300)))
        await client.post(f"{path}/cancel", json={})
        return found


LOADS: dict[str, Load] = {
    load.__name__: load
    for load in (
        nothing,
        unknown_fields,
        wrong_operations,
        subscriptions,
        silence,
        waiting,
        one_update,
        one_dense_update,
        large_plans,
        deep_plans,
        large_reads,
        listings,
    )
}


@dataclass(frozen=True)
class Waits:
    """The longest wait for each, in seconds, and the number of answers."""

    health: float
    update: float
    answers: int


async def probe(url: str) -> None:
    """Sends requests until stdin ends, then prints the longest waits. Runs as its own process."""
    longest = {"health": 0.0, "update": 0.0}
    counts: Counter[str] = Counter()
    has_ended = asyncio.Event()

    async def again(name: str, ask: Callable[[], Awaitable[httpx.Response]]) -> None:
        while not has_ended.is_set():
            start = time.perf_counter()
            try:
                answer = await ask()
                counts[f"{name} {answer.status_code}"] += 1
            except httpx.HTTPError as error:
                counts[f"{name} {type(error).__name__}"] += 1
            longest[name] = max(longest[name], time.perf_counter() - start)
            await asyncio.sleep(BETWEEN_PROBES)

    async with _client(url) as one, _client(url) as other:
        numbers = iter(range(1_000_000))

        def update() -> Awaitable[httpx.Response]:
            body = {
                "connection_id": SMALL,
                "expected_version": "*",
                "merge_patch": {"cursor": next(numbers)},
            }
            return other.post("/state/update", json=body, headers={"Prefer": "wait=60"})

        probing = asyncio.gather(
            again("health", lambda: one.get("/healthz")), again("update", update)
        )
        print(flush=True)  # The prober has started.
        await anyio.to_thread.run_sync(sys.stdin.read)
        has_ended.set()
        await probing
    print(json.dumps({"longest": longest, "counts": counts}))


@asynccontextmanager
async def probed(
    url: str, token: str
) -> AsyncIterator[Callable[[], Awaitable[dict[str, dict[str, float]]]]]:
    """Probes the server within the `with` block; the function ends the probe and returns its
    results."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load", "--probe", url),
        env=os.environ | {TOKEN: token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()

    async def found() -> dict[str, dict[str, float]]:
        told, _ = await process.communicate(b"")
        told_json: dict[str, dict[str, float]] = json.loads(told)
        return told_json

    yield found


def memory_now(pid: int) -> float:
    """Resident megabytes; `most_memory` counts from here."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory(pid, "VmRSS")


def most_memory(pid: int) -> float:
    return memory(pid, "VmHWM")


def warnings_in(log: Path) -> int:
    lines = map(json.loads, log.read_text().splitlines())
    return sum(line["level"] not in ("debug", "info") for line in lines)


async def prepare(server: HttpProcess, sandbox: Sandbox, loads: list[str]) -> None:
    for name in (SMALL, WAITED_FOR):
        sandbox.add_connection(name, state='{"cursor":0}', paused=True)
    sandbox.add_connection(
        WAITED_FOR, state='{"cursor":0}', sync_seconds=1e9, drain_seconds=1e9, sync_ends_at=1e12
    )
    for name in LARGE_ONES:
        text = large_state() if "large_reads" in loads else '{"cursor":0}'
        sandbox.add_connection(name, state=text, paused=True)
    if "listings" in loads:
        async with _client(str(server.client.base_url)) as client:
            for number in range(100):
                answer = await client.post(
                    "/state/update", content=_change(LARGE_ONES[number % 30], bulky_state())
                )
                assert answer.status_code == 200, answer.text[:500]


async def put(name: str, url: str) -> None:
    """Puts one load on the server, then prints the number of answers of each kind. Runs as its own
    process."""
    print(json.dumps(await LOADS[name](url)))


async def _answers(name: str, url: str) -> Counter[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load", name, "--at", url),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    return Counter(json.loads(told))


async def measure(names: list[str]) -> None:
    print(f"{'load':20} {'/healthz (s)':>12} {'update (s)':>12} {'memory (MB)':>12}   answers")
    for name in names:
        sandbox = Sandbox(seed=False)
        with SandboxServer(sandbox) as fivetran, tempfile.TemporaryDirectory() as folder:
            environment = {
                "FIVETRAN_API_KEY": "sandbox",
                "FIVETRAN_API_SECRET": "sandbox",
                "FIVETRAN_API_URL": fivetran.url,
                "FIVETRAN_STATE_DATA_DIR": f"{folder}/data",
                "FIVETRAN_STATE_RATE_LIMIT": "0",
            }
            tokens = TokenFile(Settings.model_validate(environment))
            probing, os.environ[TOKEN] = (tokens.create("write", None, 1)[0] for _ in range(2))
            async with http_running(os.environ | environment, Path(folder)) as server:
                await prepare(server, sandbox, [name])
                url = str(server.client.base_url).rstrip("/")
                async with probed(url, probing) as found:
                    await asyncio.sleep(SETTLING)
                    before = memory_now(server.process.pid)
                    start = time.perf_counter()
                    answers = await _answers(name, url)
                    await asyncio.sleep(SETTLING)
                    seconds = time.perf_counter() - start - SETTLING
                    told = await found()
                grown = most_memory(server.process.pid) - before
                logged = warnings_in(Path(folder) / "stderr.txt")
        longest, counts = told["longest"], told["counts"]
        is_well = max(longest.values()) <= MAX_WAIT and grown <= MAX_MEMORY
        print(
            f"{name:20} {longest['health']:12.2f} {longest['update']:12.2f} {grown:12.0f}   "
            f"{dict(answers)} in {seconds:.1f} s; {counts}; {logged} warnings"
            f"{'' if is_well else '   MISSED'}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loads", nargs="*", choices=[[], *LOADS])
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument("--at", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.at:
        (name,) = arguments.loads
        anyio.run(put, name, arguments.at)
    elif arguments.probe:
        anyio.run(probe, arguments.probe)
    else:
        anyio.run(measure, arguments.loads or list(LOADS))


if __name__ == "__main__":
    main()
