"""What a year of states costs: bytes before and after thinning, and the time of a look back.

    .venv/bin/python -m benchmarks.history [--connections 2] [--postgres]

The case is 100 connections with states of 20 KB, and a sync every quarter of an hour for a year. Each
connection's history stands by itself (its rows, its contents, its own place in every index), so a few
connections are filled with the whole year, and bytes are printed for one of them and for 100. The
year is written as the store writes it, but in large transactions: 35,040 calls of `remember` for each
connection would take an hour. The times of `at` and of a page are the median of many, beside the same
of a store that holds a day; a target is that they take at most 1.5 times as long.

A sync moves a few of the tables of its state, as in reality: a state of 20 KB has a hundred tables or so.
"""

import argparse
import asyncio
import json
import random
import secrets
import statistics
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import sqlalchemy as sa

from fivetran_state import state, vault
from fivetran_state.history.rows import Rows
from fivetran_state.history.store import HistoryStore
from fivetran_state.history.versions import Seals, SeenBy, Version
from tests.support.history import ACCOUNT, KEY, create_database, engine_of, store_of
from tests.support.postgres import Postgres

QUARTER = 15 * 60_000
DAY = 96 * QUARTER
YEAR = 365 * DAY
NOW = 20_600 * DAY
TABLES = 118
MOVED = 10
"""Tables that a sync moves."""
ROUNDS = 200
AT_ONCE = 2_000
OWNER = "connection_0"


class Source:
    """A connection whose syncs move a state of 20 KB."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._tables = {f"public.table_{n:03}": self._cursor(0) for n in range(TABLES)}

    def synced(self, at: int) -> str:
        for table in self._chance.sample(sorted(self._tables), MOVED):
            self._tables[table] = self._cursor(at)
        return json.dumps({"tables": self._tables}, separators=(",", ":"))

    def _cursor(self, at: int) -> dict[str, object]:
        moment = datetime.fromtimestamp(at / 1000, timezone.utc)
        return {
            "cursor": moment.isoformat(timespec="microseconds"),
            "last_id": self._chance.getrandbits(50),
            "page_token": f"{self._chance.getrandbits(192):048x}",
            "rows": self._chance.randrange(10**6),
        }


def fill(engine: sa.Engine, owner: str, source: Source, start: int) -> int:
    """Remember a sync in every quarter of an hour until now; the size of the last state."""
    serializer = vault.SealingSerializer([KEY], ACCOUNT)
    seals = Seals(vault.Sealer([KEY], f"history of {ACCOUNT}"), serializer.digest, ACCOUNT)
    rows = Rows(ACCOUNT, seals)
    mark, text = None, ""
    times = range(start, NOW, QUARTER)
    for first in range(0, len(times), AT_ONCE):
        with engine.begin() as connection:
            rows.lock(connection, owner)
            for ordinal, at in enumerate(times[first : first + AT_ONCE], first + 1):
                text = source.synced(at)
                version = Version(
                    owner=owner,
                    ordinal=ordinal,
                    version=state.version(state.parse(text)),
                    first_seen=at,
                    last_seen=at,
                    seen_by=SeenBy.SYNC,
                    workflow_id=None,
                    content_id=seals.content_id(owner, text),
                    mark=secrets.token_hex(8),
                    previous=mark,
                )
                content = seals.sealed_content(owner, version.content_id, text)
                rows.add_content(connection, owner, version.content_id, content)
                rows.add(connection, version)
                mark = version.mark
    return len(text)


def used_bytes(engine: sa.Engine) -> int:
    """Bytes of the tables and indexes, without the pages that wait to be used again."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            one = "SELECT (SELECT page_count FROM pragma_page_count) - "
            free = "(SELECT freelist_count FROM pragma_freelist_count)"
            size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
            pages = connection.exec_driver_sql(one + free).scalar_one()
            return int(size * pages)
        connection.commit()
        connection.execution_options(isolation_level="AUTOCOMMIT")
        names = ("versions", "contents", "connections")
        total = 0
        for name in names:
            # PostgreSQL gives pages back only to this.
            connection.exec_driver_sql(f"VACUUM FULL fivetran_state_{name}")
            total += connection.exec_driver_sql(
                f"SELECT pg_total_relation_size('fivetran_state_{name}')"
            ).scalar_one()
        return int(total)


async def measured(stores: dict[str, HistoryStore]) -> dict[str, dict[str, float]]:
    """The median milliseconds of each look back, in each store; the stores take turns."""
    taken: dict[str, dict[str, list[float]]] = {}
    chance = random.Random(1)
    for _ in range(ROUNDS):
        for name, store in stores.items():
            start = NOW - (DAY if name == "day" else YEAR)
            moment = chance.randrange(start, NOW)
            for what, action in (
                ("at, with the state", _look_back(store, moment)),
                ("page of 50", store.page(OWNER, limit=50)),
                ("page of 20, from the middle", store.page(OWNER, until=moment, limit=20)),
            ):
                begun = time.perf_counter()
                await action
                taken.setdefault(what, {}).setdefault(name, []).append(time.perf_counter() - begun)
    return {
        what: {name: statistics.median(each) * 1000 for name, each in by_name.items()}
        for what, by_name in taken.items()
    }


async def _look_back(store: HistoryStore, moment: int) -> str:
    found = await store.at(OWNER, moment)
    assert found is not None
    return await store.document(found.version)


def in_bytes(count: float) -> str:
    return f"{count / 1e6:,.1f} MB"


async def run(urls: dict[str, str], connections: int) -> None:
    engines = {name: engine_of(url) for name, url in urls.items()}
    stores = {name: store_of(engine, clock=lambda: NOW) for name, engine in engines.items()}
    starts = {"day": NOW - DAY, "year": NOW - YEAR}
    size = 0
    for name, engine in engines.items():
        empty = used_bytes(engine)
        for number in range(connections):
            size = fill(engine, f"connection_{number}", Source(number), starts[name])
        one = (used_bytes(engine) - empty) / connections
        print(f"a {name} of one connection: {in_bytes(one)}; of 100: {in_bytes(one * 100)}")
    print(f"a state: {size:,} bytes")

    whole = await measured(stores)
    begun = time.perf_counter()
    removed = [
        await stores["year"].thin(f"connection_{number}", retention_days=365)
        for number in range(connections)
    ]
    seconds = (time.perf_counter() - begun) / connections
    thinned = await measured(stores)
    left = used_bytes(engines["year"]) / connections
    kept = YEAR // QUARTER - removed[0]
    print(
        f"thinned, it has {kept:,} of {YEAR // QUARTER:,} versions and {in_bytes(left)}; "
        f"of 100: {in_bytes(left * 100)}; {seconds:.1f} s for the first time"
    )
    again = time.perf_counter()
    await stores["year"].thin(OWNER, retention_days=365)
    print(f"thinning what is thin: {time.perf_counter() - again:.2f} s")
    print(f"\n{'milliseconds':42}{'a day':>8}{'a year':>8}{'ratio':>7}")
    for state_of_year, figures in (("whole", whole), ("thinned", thinned)):
        for what, of in figures.items():
            print(
                f"{f'{what} ({state_of_year})':42}{of['day']:8.2f}{of['year']:8.2f}"
                f"{of['year'] / of['day']:7.2f}"
            )
    start = time.perf_counter()
    source = Source(99)
    for number in range(100):
        text = source.synced(NOW + number)
        version = state.version(state.parse(text))
        await stores["year"].remember(OWNER, text, version, SeenBy.SYNC, NOW + number)
    print(f"\nremembering one more: {(time.perf_counter() - start) * 10:.2f} ms")
    for engine in engines.values():
        engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2)
    parser.add_argument("--postgres", action="store_true")
    arguments = parser.parse_args()
    if arguments.postgres:
        server = Postgres()
        try:
            urls = {name: server.new_database() for name in ("day", "year")}
            for url in urls.values():
                create_database(url)
            asyncio.run(run(urls, arguments.connections))
        finally:
            server.close()
        return
    with tempfile.TemporaryDirectory() as folder:
        urls = {name: f"sqlite:///{Path(folder) / name}.db" for name in ("day", "year")}
        asyncio.run(run(urls, arguments.connections))


if __name__ == "__main__":
    main()
