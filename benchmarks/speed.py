"""The cost of the server, as ratios against raw httpx and a bare MCP server in the same run.

    .venv/bin/python -m benchmarks.speed [--rounds 15]

Prints one row per target of docs/explanation/speed.md: the measured ratio (or figure) and the
target.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import httpx
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from benchmarks.promises import sets_paused
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer

ROOT = Path(__file__).parent.parent
CONNECTION = "bullion_shutdown"
LATENCY = 0.05
BARE_SERVER = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bare")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
server.run("stdio")
"""


async def timed(action: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await action()
    return time.perf_counter() - start


async def raw_update(http: httpx.AsyncClient, document: dict[str, object]) -> tuple[float, float]:
    """Six calls by hand, one after the other: seconds in total, and from pause to resume."""
    connection = f"/v1/connections/{CONNECTION}"
    start = time.perf_counter()
    await http.get(connection)
    paused = time.perf_counter()
    await http.patch(connection, json={"paused": True, "run_setup_tests": False})
    await http.get(f"{connection}/state")
    await http.patch(f"{connection}/state", json={"state": document})
    await http.get(f"{connection}/state")
    await http.patch(connection, json={"paused": False, "run_setup_tests": False})
    end = time.perf_counter()
    return end - start, end - paused


def paused_seconds(sandbox: Sandbox, since: int) -> float:
    """Seconds from the arrival of the pause to the answer of the resume."""
    pause, resume = (request for request in sandbox.log[since:] if sets_paused(request) is not None)
    return resume.time - pause.time + LATENCY


async def calls(rounds: int) -> None:
    sandbox = Sandbox(latency=LATENCY)
    with SandboxServer(sandbox) as server, tempfile.TemporaryDirectory() as home:
        parameters = StdioServerParameters(
            command=sys.executable,
            args=[str(ROOT / "server.py")],
            env=account(server.url, home),
        )
        headers = {"Accept": "application/json"}
        async with (
            httpx.AsyncClient(
                base_url=server.url, auth=("sandbox", "sandbox"), headers=headers
            ) as http,
            Client(parameters) as client,
        ):

            async def read() -> str:
                result = await client.call_tool("get_state", {"connection_id": CONNECTION})
                assert result.structured_content is not None, result.content
                return str(result.structured_content["version"])

            version = await read()
            raw, raw_paused, raw_reads = [], [], []
            updates, updates_paused, reads = [], [], []
            for number in range(rounds):
                total, between = await raw_update(http, {"cursor": number})
                raw.append(total)
                raw_paused.append(between)
                version = await read()
                since = len(sandbox.log)
                arguments = {
                    "connection_id": CONNECTION,
                    "merge_patch": {"cursor": -number - 1},
                    "expected_version": version,
                }
                updates.append(await timed(lambda: client.call_tool("update_state", arguments)))  # noqa: B023
                updates_paused.append(paused_seconds(sandbox, since))
                raw_reads.append(
                    await timed(lambda: http.get(f"/v1/connections/{CONNECTION}/state"))
                )
                reads.append(await timed(read))
            row("update of a running connection / six raw calls", ratio(updates, raw), 1.10)
            row("time paused / the raw calls between", ratio(updates_paused, raw_paused), 1.10)
            row("get_state / one raw call", ratio(reads, raw_reads), 1.10)


async def starts(rounds: int) -> None:
    bare = StdioServerParameters(command=sys.executable, args=["-c", BARE_SERVER])
    ours, theirs = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as home:
            server = StdioServerParameters(
                command=sys.executable,
                args=[str(ROOT / "server.py"), "--sandbox"],
                env={"FIVETRAN_STATE_DATA_DIR": home, "FIVETRAN_STATE_LOG_LEVEL": "ERROR"},
            )
            theirs.append(await first_answer(bare))
            ours.append(await first_answer(server))
    row("spawn to first answer / a bare MCPServer", ratio(ours, theirs), 1.10)


async def first_answer(server: StdioServerParameters) -> float:
    start = time.perf_counter()
    async with Client(server, mode="legacy") as client:
        await client.list_tools()
        return time.perf_counter() - start


def idle() -> None:
    """Resident memory and CPU of an idle server (Linux)."""
    with SandboxServer(Sandbox()) as fivetran, tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "server.py")],
            env=os.environ | account(fivetran.url, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(5)
        before = cpu_seconds(server.pid)
        time.sleep(10)
        used = (cpu_seconds(server.pid) - before) / 10
        status = Path(f"/proc/{server.pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        server.communicate()
    row("resident memory, idle (MB)", resident, 120)
    row("idle CPU (share of a core)", used, 0.01)


def account(url: str, home: str) -> dict[str, str]:
    return {
        "FIVETRAN_API_KEY": "sandbox",
        "FIVETRAN_API_SECRET": "sandbox",
        "FIVETRAN_API_URL": url,
        "FIVETRAN_STATE_DATA_DIR": home,
        "FIVETRAN_STATE_LOG_LEVEL": "ERROR",
    }


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ratio(measured: list[float], reference: list[float]) -> float:
    return statistics.median(measured) / statistics.median(reference)


def row(what: str, figure: float, target: float) -> None:
    print(f"{what:50} {figure:8.3f}   target ≤ {target:g}   {'' if figure <= target else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    anyio.run(calls, rounds)
    anyio.run(starts, rounds)
    if sys.platform == "linux":
        idle()


if __name__ == "__main__":
    main()
