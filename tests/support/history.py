"""Stores of the state history, on either database."""

import sqlite3
import time
from collections.abc import Callable

import psycopg
import sqlalchemy as sa

from fivetran_state import state, vault
from fivetran_state.history import migrations
from fivetran_state.history.store import HistoryStore
from fivetran_state.history.versions import SeenBy, Version

ACCOUNT = "fivetran-state-acme"
OWNER = "speak_inexpensive"
[KEY] = vault.keys_from_environment("a key that is long enough")


def create_database(url: str) -> None:
    """Make PostgreSQL's database; a SQLite file makes itself."""
    if url.startswith("sqlite"):
        return
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
        session.execute(f'CREATE DATABASE "{name}"'.encode())


def engine_of(url: str) -> sa.Engine:
    """An engine as DBOS makes it."""
    if not url.startswith("sqlite"):
        return sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def _as_dbos(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA busy_timeout=30000")
        connection.execute("PRAGMA journal_mode=WAL")

    return engine


def store_of(
    engine: sa.Engine,
    account: str = ACCOUNT,
    *,
    keys: list[bytes] | None = None,
    clock: Callable[[], int] = lambda: int(time.time() * 1000),
) -> HistoryStore:
    """A store whose tables are there."""
    migrations.upgrade(engine)
    serializer = vault.SealingSerializer(keys or [KEY], account)
    sealer = vault.Sealer(keys or [KEY], f"history of {account}")
    return HistoryStore(engine, sealer, serializer.digest, account, clock=clock)


async def remember(
    store: HistoryStore,
    text: str,
    at: int,
    seen_by: SeenBy = SeenBy.SYNC,
    *,
    owner: str = OWNER,
    workflow_id: str | None = None,
) -> Version:
    """Remember a state with the version that it has."""
    version = state.version(state.document(text))
    return await store.remember(owner, text, version, seen_by, at, workflow_id)
