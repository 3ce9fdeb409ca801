"""Two HTTP servers on one Postgres, one of which is killed every few seconds, and many clients.

    .venv/bin/python -m benchmarks.http_chaos [--updates 200] [--clients 16] [--seed 7]

The servers run behind a load balancer. There are clients of every kind: MCP in both eras, with and
without questions to the user, with tasks, and REST, with and without waiting, or with credentials.
Each client repeats a request until it has an answer. At the end the sandbox's log is compared with
the promises, and the answer to each client with the real result.
"""

import argparse
import itertools
import random
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp_types import ElicitRequestParams, ElicitResult, TextContent

from benchmarks.balancer import Balancer
from benchmarks.chaos import database
from benchmarks.promises import Updates
from benchmarks.watched import Watched
from fivetran_state import state
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.http_server import HttpProcess, http_running, mcp_client
from tests.support.tasks import FollowsTasks

CONNECTIONS = 18
SERVERS = ("one", "two")
REFUSALS = ("conflict", "update_in_progress")
"""Codes that a client may get if nothing was started."""
CREDENTIALS = {"api_key": "sandbox", "api_secret": "sandbox"}
NO_CREDENTIALS: Mapping[str, str] = {}
MAX_ANSWER_LENGTH = 90
"""Seconds after which a client gives its connection up."""


@dataclass(frozen=True)
class Request:
    """One update that a client wants; a repetition is the same request."""

    connection_id: str
    version: str
    marker: str

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "connection_id": self.connection_id,
            "merge_patch": Watched.change(self.marker, {self.connection_id: self.version}),
            "expected_version": self.version,
            "reason": self.marker,
        }


@dataclass(frozen=True)
class Caller:
    """A connected client: `read` returns a state's version, `update` how an update ended (its
    status, or the code of its error)."""

    read: Callable[[str], Awaitable[str]]
    update: Callable[[Request], Awaitable[str]]


Kind = Callable[[str], AbstractAsyncContextManager[Caller]]


async def _yes(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return ElicitResult(action="accept", content={})


@asynccontextmanager
async def _by_mcp(
    url: str, era: str, *, asks: bool = False, tasks: bool = False
) -> AsyncIterator[Caller]:
    extensions = [FollowsTasks()] if tasks else []
    async with mcp_client(url, era, ask=_yes if asks else None, extensions=extensions) as client:
        yield Caller(partial(_read_by_mcp, client), partial(_update_by_mcp, client))


async def _read_by_mcp(client: Client, connection_id: str) -> str:
    seen = await _ask(client, "get_state", connection_id=connection_id)
    version: str = seen["version"]
    return version


async def _update_by_mcp(client: Client, request: Request) -> str:
    named = request.arguments | {"idempotency_key": request.marker, "wait_seconds": 1}
    update = await _ask(client, "update_state", **named)
    while update.get("status") == "running":
        update = await _ask(
            client, "workflow_status", workflow_id=update["workflow_id"], wait_seconds=20
        )
    return _outcome(update)


async def _ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    structured: dict[str, Any] | None = result.structured_content
    if structured is not None:
        return structured
    assert isinstance(result.content[0], TextContent)
    return {"error": state.parse(result.content[0].text)}


@asynccontextmanager
async def _by_rest(
    url: str, *, waits: bool = True, credentials: Mapping[str, str] = NO_CREDENTIALS
) -> AsyncIterator[Caller]:
    async with httpx.AsyncClient(base_url=url, timeout=MAX_ANSWER_LENGTH) as client:
        yield Caller(
            partial(_read_by_rest, client, credentials),
            partial(_update_by_rest, client, credentials, waits),
        )


async def _read_by_rest(
    client: httpx.AsyncClient, credentials: Mapping[str, str], connection_id: str
) -> str:
    body = {"connection_id": connection_id, **credentials}
    version: str = _parsed(await client.post("/state/get", json=body))["version"]
    return version


async def _update_by_rest(
    client: httpx.AsyncClient, credentials: Mapping[str, str], waits: bool, request: Request
) -> str:
    headers = {"Idempotency-Key": request.marker} | ({} if waits else {"Prefer": "respond-async"})
    body = {**request.arguments, **credentials}
    answer = await client.post("/state/update", json=body, headers=headers)
    update = _parsed(answer)
    while update.get("status") == "running":
        update = _parsed(await client.get(answer.headers["Location"], params={"wait": "20"}))
    return update["code"] if answer.is_client_error else _outcome(update)


def _parsed(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_server_error:
        answer.raise_for_status()
    parsed: dict[str, Any] = answer.json()
    return parsed


def _outcome(update: dict[str, Any]) -> str:
    outcome: str = update.get("error", {}).get("code") or update["status"]
    return outcome


KINDS: dict[str, Kind] = {
    "legacy MCP": partial(_by_mcp, era="legacy"),
    "legacy MCP, asking": partial(_by_mcp, era="legacy", asks=True),
    "MCP": partial(_by_mcp, era="2026-07-28"),
    "MCP, asking": partial(_by_mcp, era="2026-07-28", asks=True),
    "MCP, tasks": partial(_by_mcp, era="2026-07-28", tasks=True),
    "REST": _by_rest,
    "REST, not waiting": partial(_by_rest, waits=False),
    "REST, with credentials": partial(_by_rest, credentials=CREDENTIALS),
}


@dataclass
class HttpChaos:
    """One run: `play` it, then `violations` lists what was wrong."""

    environment: dict[str, str]
    sandbox: Sandbox
    folder: Path
    seed: int
    wanted: int
    clients: int
    happened: Counter[str] = field(default_factory=Counter)
    told: dict[str, str] = field(default_factory=dict)
    """By the request's marker: the end of its update, as its client was told."""
    updates: Updates = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.connections = Watched(self.sandbox, CONNECTIONS)
        self.balancer = Balancer({})
        self._processes: dict[str, HttpProcess] = {}

    @property
    def is_done(self) -> bool:
        return self.happened["told updated"] >= self.wanted and self.happened["kills"] > 0

    async def play(self) -> None:
        """Runs until there have been enough updates, then waits until every update has ended."""
        async with self.balancer.running() as url, anyio.create_task_group() as servers:
            for name in SERVERS:
                await servers.start(self._serve, name)
            async with anyio.create_task_group() as clients:
                clients.start_soon(self._kill)
                for number, kind in zip(
                    range(self.clients), itertools.cycle(KINDS.items()), strict=False
                ):
                    clients.start_soon(self._client, url, number, *kind)
            await self._collect(url)
            servers.cancel_scope.cancel()

    async def _serve(self, name: str, *, task_status: Any) -> None:
        """One server, started again whenever it was killed."""
        while True:
            async with http_running(self.environment, self.folder) as server:
                self.balancer.servers[name] = str(server.client.base_url).rstrip("/")
                self._processes[name] = server
                if not self.happened["kills"]:
                    task_status.started()
                await server.process.wait()

    async def _kill(self) -> None:
        while not self.is_done:
            await anyio.sleep(self.random.uniform(2, 4))
            if len(self._processes) == len(SERVERS) and not self.is_done:
                name = self.random.choice(SERVERS)
                self._processes.pop(name).process.kill()
                self.happened["kills"] += 1

    async def _client(self, url: str, number: int, name: str, kind: Kind) -> None:
        chance = random.Random(f"{self.seed} {number}")
        request: Request | None = None
        while request is not None or not self.is_done:
            try:
                with anyio.fail_after(MAX_ANSWER_LENGTH):
                    async with kind(url) as caller:
                        while request is not None or not self.is_done:
                            if request is None:
                                connection_id = chance.choice(self.connections.names)
                                version = await caller.read(connection_id)
                                request = Request(connection_id, version, uuid.uuid4().hex)
                            outcome = await caller.update(request)
                            self.told[request.marker] = outcome
                            self.happened[f"told {outcome}"] += 1
                            self.happened[f"{name}: {outcome}"] += 1
                            request = None
            except Exception:  # Each kind of client has its own exceptions for a broken connection.
                self.happened[f"{name}: broken off"] += 1

    async def _collect(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=MAX_ANSWER_LENGTH) as client:

            async def status(workflow_id: str) -> dict[str, Any] | None:
                answer = await client.get(f"/workflows/{workflow_id}", params={"wait": "50"})
                return None if answer.status_code == 404 else _parsed(answer)

            self.updates = await self.connections.updates(status)

    def violations(self) -> list[str]:
        """Every broken promise, as a sentence."""
        found = self.connections.violations(self.updates, [])
        ended: dict[str, list[str]] = {}
        for update in self.updates:
            ended.setdefault(update["reason"], []).append(_outcome(update))
        for marker, outcomes in ended.items():
            if len(outcomes) > 1:
                found.append(f"{marker} was started {len(outcomes)} times: {outcomes}")
        for marker, told in self.told.items():
            # A conflict may be noticed before anything is started, or later.
            happened = ended.get(marker, [told] if told in REFUSALS else [])
            if happened != [told]:
                found.append(f"{marker}: its client was told {told}, but {happened}")
        return found


def run(*, seed: int, updates: int, clients: int) -> HttpChaos:
    """One run in its own directory."""
    folder = Path(tempfile.mkdtemp(prefix="fivetran-state-chaos-"))
    sandbox = Sandbox(seed=False)
    sandbox.api.requests_per_hour = 1_000_000
    try:
        with database(True, folder) as variables, SandboxServer(sandbox) as server:
            environment = {
                "FIVETRAN_API_KEY": CREDENTIALS["api_key"],
                "FIVETRAN_API_SECRET": CREDENTIALS["api_secret"],
                "FIVETRAN_API_URL": server.url,
                "FIVETRAN_STATE_DATA_DIR": str(folder / "data"),
                "FIVETRAN_STATE_RATE_LIMIT": "0",
            }
            chaos = HttpChaos(environment | variables, sandbox, folder, seed, updates, clients)
            anyio.run(chaos.play)
            return chaos
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    start = time.monotonic()
    chaos = run(**vars(parser.parse_args()))
    violations = chaos.violations()
    for what, times in sorted(chaos.happened.items()):
        print(f"{times:6}  {what}")
    print(f"{len(chaos.updates):6}  updates in {time.monotonic() - start:.0f} s")
    for violation in violations:
        print("VIOLATION", violation)
    print(f"{len(violations):6}  violations")
    raise SystemExit(bool(violations))


if __name__ == "__main__":
    main()
