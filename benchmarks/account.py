"""A simulated Fivetran account, the servers' databases, and Fivetran's calls made by hand."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx
import psycopg

from fivetran_state.sandbox import Sandbox
from tests.support.postgres import KEY, SECRET_KEY, URL, Postgres

LATENCY = 0.05
"""Seconds that the simulated Fivetran takes for each call."""
DATABASES = ("SQLite", "Postgres")
ERRORS_ONLY = {"FIVETRAN_STATE_LOG_LEVEL": "ERROR"}


def variables(url: str, home: str) -> dict[str, str]:
    """The environment of a server in front of the simulated Fivetran at `url`."""
    return {
        "FIVETRAN_API_KEY": "sandbox",
        "FIVETRAN_API_SECRET": "sandbox",
        "FIVETRAN_API_URL": url,
        "FIVETRAN_STATE_DATA_DIR": home,
        "FIVETRAN_STATE_RATE_LIMIT": "0",
    }


def sandbox_of(names: Iterable[str], state: str, *, latency: float = LATENCY) -> Sandbox:
    """A simulated Fivetran with these connections, which do not sync, and no limit of calls."""
    sandbox = Sandbox(seed=False, latency=latency)
    sandbox.api.requests_per_hour = 100_000_000
    for name in names:
        sandbox.add_connection(name, state=state)
    return sandbox


@contextmanager
def postgres_for(database: str) -> Iterator[Postgres | None]:
    """A PostgreSQL as installed, or None for SQLite."""
    if database == "SQLite":
        yield None
        return
    server = Postgres()
    try:
        # Tests run without fsync. An operator's server has it.
        everywhere = server.new_database().rpartition("/")[0] + "/postgres"
        with psycopg.connect(everywhere, autocommit=True) as session:
            session.execute("ALTER SYSTEM SET fsync = on")
            session.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        server.close()


def new_database(postgres: Postgres | None) -> dict[str, str]:
    """The environment for a new database; with SQLite, that is the data directory's."""
    return {} if postgres is None else {URL: postgres.new_database(), KEY: SECRET_KEY}


def client_of(url: str) -> httpx.AsyncClient:
    """A plain client of the simulated Fivetran."""
    return httpx.AsyncClient(
        base_url=url,
        auth=("sandbox", "sandbox"),
        headers={"Accept": "application/json"},
        timeout=60,
    )


async def read_by_hand(http: httpx.AsyncClient, name: str) -> float:
    """One call for the state: its seconds."""
    start = time.perf_counter()
    answer = await http.get(f"/v1/connections/{name}/state")
    answer.raise_for_status().json()
    return time.perf_counter() - start


async def update_by_hand(
    http: httpx.AsyncClient, name: str, document: object
) -> tuple[float, float]:
    """The six calls of an update, one after the other: seconds in total, and from pause to resume."""
    connection = f"/v1/connections/{name}"
    start = time.perf_counter()
    (await http.get(connection)).raise_for_status()
    paused = time.perf_counter()
    await _pause(http, connection, True)
    await read_by_hand(http, name)
    answer = await http.patch(f"{connection}/state", json={"state": document})
    answer.raise_for_status()
    await read_by_hand(http, name)
    await _pause(http, connection, False)
    end = time.perf_counter()
    return end - start, end - paused


async def _pause(http: httpx.AsyncClient, connection: str, paused: bool) -> None:
    answer = await http.patch(connection, json={"paused": paused, "run_setup_tests": False})
    answer.raise_for_status()
