"""One update, one read, a start, and an idle server: ratios against raw httpx and a bare MCP server.

Linux only. `scripts/bench one` runs it.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from benchmarks.account import (
    ERRORS_ONLY,
    LATENCY,
    client_of,
    read_by_hand,
    sandbox_of,
    update_by_hand,
    variables,
)
from benchmarks.figures import Figure, Line, Table, ratios
from benchmarks.promises import sets_paused
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.calls import ROOT, call, version_of

CONNECTION = "updated"
SETTLING = 5
"""Seconds after which a started server has nothing more to do."""
IDLE = 10
IDLE_SERVERS = 3
BARE_SERVER = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bare")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
server.run("stdio")
"""

UPDATE = Line("update of a running connection", "ratio", "six raw calls", 1.10)
PAUSED = Line("time that the connection is paused", "ratio", "the raw calls between", 1.10)
READ = Line("`get_state`", "ratio", "one raw call", 1.10)
START = Line("spawn to first answer", "ratio", "a one-tool `MCPServer`", 1.10)
MEMORY = Line("resident memory, idle", "MB", target=120)
CPU = Line("idle CPU", "share of a core", target=0.01)


@asynccontextmanager
async def assistant(url: str) -> AsyncIterator[Client]:
    """A client of a new stdio server, with a SQLite database of its own."""
    with tempfile.TemporaryDirectory() as home:
        command = [str(ROOT / "server.py")]
        environment = variables(url, home) | ERRORS_ONLY
        server = StdioServerParameters(command=sys.executable, args=command, env=environment)
        async with Client(server) as client:
            yield client


async def timed(action: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await action()
    return time.perf_counter() - start


async def update(client: Client, name: str, patch: dict[str, object]) -> float:
    """The seconds of an update of the version that is there."""
    version = await version_of(client, name)

    async def change() -> None:
        done = await call(
            client,
            "update_state",
            connection_id=name,
            merge_patch=patch,
            expected_version=version,
            wait_seconds=50,
        )
        assert done["status"] == "updated", done

    return await timed(change)


def paused_seconds(sandbox: Sandbox, since: int) -> float:
    """Seconds from the arrival of the pause to the answer of the resume."""
    pause, resume = (request for request in sandbox.log[since:] if sets_paused(request) is not None)
    return resume.time - pause.time + LATENCY


async def calls(rounds: int) -> list[Figure]:
    sandbox = sandbox_of([CONNECTION], '{"cursor":0}')
    raw, raw_paused, raw_reads = [], [], []
    updates, updates_paused, reads = [], [], []
    with SandboxServer(sandbox) as fivetran:
        async with client_of(fivetran.url) as http, assistant(fivetran.url) as client:
            await version_of(client, CONNECTION)  # The engine is up.
            for number in range(1, rounds + 1):
                total, between = await update_by_hand(http, CONNECTION, {"cursor": number})
                raw.append(total)
                raw_paused.append(between)
                since = len(sandbox.log)
                updates.append(await update(client, CONNECTION, {"cursor": -number}))
                updates_paused.append(paused_seconds(sandbox, since))
                raw_reads.append(await read_by_hand(http, CONNECTION))
                reads.append(await timed(lambda: version_of(client, CONNECTION)))
    return [
        Figure(UPDATE, ratios(updates, raw)),
        Figure(PAUSED, ratios(updates_paused, raw_paused)),
        Figure(READ, ratios(reads, raw_reads)),
    ]


async def starts(rounds: int) -> Figure:
    bare = StdioServerParameters(command=sys.executable, args=["-c", BARE_SERVER])
    ours, theirs = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as home:
            server = StdioServerParameters(
                command=sys.executable,
                args=[str(ROOT / "server.py"), "--sandbox"],
                env={"FIVETRAN_STATE_DATA_DIR": home} | ERRORS_ONLY,
            )
            theirs.append(await first_answer(bare))
            ours.append(await first_answer(server))
    return Figure(START, ratios(ours, theirs))


async def first_answer(server: StdioServerParameters) -> float:
    start = time.perf_counter()
    async with Client(server, mode="legacy") as client:
        await client.list_tools()
        return time.perf_counter() - start


def idle() -> tuple[float, float]:
    """Resident megabytes of an idle server, and its share of a core."""
    with SandboxServer(Sandbox()) as fivetran, tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "server.py")],
            env=os.environ | variables(fivetran.url, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(SETTLING)
        before = cpu_seconds(server.pid)
        time.sleep(IDLE)
        used = (cpu_seconds(server.pid) - before) / IDLE
        resident = memory(server.pid, "VmRSS")
        server.communicate()
    return resident, used


def memory(pid: int, field: str) -> float:
    """Megabytes of a process, by the field of its status."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(rounds: int) -> Iterator[Figure]:
    yield from anyio.run(calls, rounds)
    yield anyio.run(starts, rounds)
    resident, used = zip(*(idle() for _ in range(IDLE_SERVERS)), strict=True)
    yield Figure(MEMORY, resident)
    yield Figure(CPU, used)


TABLE = Table(
    "one",
    "One update, one read, one server",
    "what",
    (UPDATE, PAUSED, READ, START, MEMORY, CPU),
    measure,
    rounds=15,
    is_quick=True,
)
