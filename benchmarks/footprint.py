"""What updates leave: bytes in the database, and memory. `scripts/bench footprint` runs it. Linux only."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx

from benchmarks.account import DATABASES, new_database, postgres_for, sandbox_of, variables
from benchmarks.figures import Figure, Line, Table
from benchmarks.servers import make_updates
from benchmarks.sizes import state_of_size
from benchmarks.speed import memory
from fivetran_state.sandbox.server import SandboxServer
from tests.support.http_server import http_running
from tests.support.postgres import URL, Postgres

MANY, FEW = 1_000, 20
KB, MB = 1_000, 1_000_000
FREE = 8
"""KB that an update may take beside three times its state."""


@dataclass(frozen=True)
class Left:
    """What so many updates left."""

    kilobytes: float
    """Growth of the database for each update."""
    before: float
    """Resident megabytes, after the first updates."""
    after: float


def lines_of(database: str) -> tuple[Line, Line, Line, Line]:
    return (
        Line("database, each update of 1 KB", "KB", target=3 + FREE, case=database),
        Line("database, each update of 1 MB", "KB", target=3 * MB / KB + FREE, case=database),
        Line(f"memory after {FEW} updates", "MB", case=database),
        Line(f"memory after {MANY:,} updates", "MB", case=database),
    )


def database_bytes(environment: dict[str, str], postgres: Postgres | None) -> int:
    """Bytes in use, without the pages that wait to be used again."""
    if postgres is not None:
        url = environment[URL]
        return int(postgres.query(url, "SELECT pg_database_size(current_database())")[0][0])
    file = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "state.db"
    with closing(sqlite3.connect(file)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


async def left(size: int, updates: int, postgres: Postgres | None) -> Left:
    sandbox = sandbox_of(["updated"], state_of_size(size), latency=0)
    with SandboxServer(sandbox) as fivetran, tempfile.TemporaryDirectory() as folder:
        environment = os.environ | variables(fivetran.url, f"{folder}/data")
        environment |= new_database(postgres)
        async with http_running(environment, Path(folder)) as server:
            http: httpx.AsyncClient = server.client
            await make_updates(http, "updated", FEW)
            bytes_before = database_bytes(environment, postgres)
            before = memory(server.process.pid, "VmRSS")
            await make_updates(http, "updated", updates)
            after = memory(server.process.pid, "VmRSS")
            grown = database_bytes(environment, postgres) - bytes_before
    return Left(grown / updates / KB, before, after)


def measure(rounds: int) -> Iterator[Figure]:
    for database in DATABASES:
        small, large, few, many = lines_of(database)
        with postgres_for(database) as postgres:
            small_ones = [anyio.run(left, KB, MANY, postgres) for _ in range(rounds)]
            yield Figure(small, tuple(each.kilobytes for each in small_ones))
            large_ones = [anyio.run(left, MB, FEW, postgres) for _ in range(rounds)]
            yield Figure(large, tuple(each.kilobytes for each in large_ones))
            yield Figure(few, tuple(each.before for each in small_ones))
            yield Figure(many, tuple(each.after for each in small_ones))


TABLE = Table(
    "footprint",
    "What updates leave",
    "what",
    tuple(line for database in DATABASES for line in lines_of(database)),
    measure,
    rounds=1,
)
