"""Updates a second by HTTP servers that share one database. `scripts/bench servers` runs it."""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import httpx

from benchmarks.account import DATABASES, new_database, postgres_for, sandbox_of, variables
from benchmarks.figures import Figure, Line, Table
from fivetran_state.sandbox.server import SandboxServer
from tests.support.http_server import http_running
from tests.support.postgres import Postgres

SERVERS = (1, 2, 4, 8)
AT_ONCE = 20
UPDATES = 10
"""Updates of each connection."""


def line_of(servers: int, database: str) -> Line:
    what = f"{servers} server{'s' if servers > 1 else ''}"
    return Line(what, "updates a second", case=database)


async def make_updates(http: httpx.AsyncClient, name: str, count: int) -> None:
    """Updates of one connection, one after the other."""
    for number in range(count):
        change = {
            "connection_id": name,
            "merge_patch": {"cursor": time.time_ns() + number},
            "expected_version": "*",
        }
        answer = await http.post("/state/update", json=change)
        assert answer.json().get("status") == "updated", answer.text


async def updates_a_second(servers: int, postgres: Postgres | None) -> float:
    """Each client has a connection of its own, and a server that it shares with others."""
    names = [f"connection_{number}" for number in range(AT_ONCE)]
    sandbox = sandbox_of(names, '{"cursor":0}')
    async with AsyncExitStack() as stack:
        fivetran = stack.enter_context(SandboxServer(sandbox))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = os.environ | variables(fivetran.url, f"{folder}/data")
        environment |= new_database(postgres)
        clients = []
        for _ in range(servers):
            server = await stack.enter_async_context(http_running(environment, folder))
            clients.append(server.client)
        pairs = [(clients[number % servers], name) for number, name in enumerate(names)]
        await asyncio.gather(*(make_updates(http, name, 1) for http, name in pairs))  # Warm up.
        start = time.perf_counter()
        await asyncio.gather(*(make_updates(http, name, UPDATES) for http, name in pairs))
        return AT_ONCE * UPDATES / (time.perf_counter() - start)


def measure(rounds: int) -> Iterator[Figure]:
    for database in DATABASES:
        with postgres_for(database) as postgres:
            for servers in SERVERS:
                found = [anyio.run(updates_a_second, servers, postgres) for _ in range(rounds)]
                yield Figure(line_of(servers, database), tuple(found))


TABLE = Table(
    "servers",
    f"HTTP servers with one database, {AT_ONCE} updates at once over REST",
    "servers",
    tuple(line_of(servers, database) for database in DATABASES for servers in SERVERS),
    measure,
    rounds=3,
)
