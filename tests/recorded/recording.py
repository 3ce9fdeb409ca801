"""One recording: the database that a killed server left behind, and Fivetran's state at that time.

A recording is a folder. `scenario.json` describes it, `key` is the encryption key, and the database
is in `state.db.gz` (SQLite) or `dump.sql.gz` (PostgreSQL).
"""

import gzip
import json
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import psycopg
from pydantic import BaseModel

from tests.support.postgres import Postgres

RECORDED = Path(__file__).parent

SCENARIO = "scenario.json"
KEY_FILE = "key"
SQLITE = "state.db.gz"
POSTGRES = "dump.sql.gz"

Status = Literal["updated", "unchanged", "cancelled", "failed"]


class Connection(BaseModel):
    """One connection: its condition when the server was killed, and its final condition."""

    paused: bool
    state: str
    was_paused: bool
    """The connection was paused before the update, and must be paused afterwards."""
    wanted: str
    """The state afterwards, as JSON text."""


class Guest(BaseModel):
    """The account of the connections, if it is not the server's own."""

    account_id: str
    api_key: str
    api_secret: str


class Scenario(BaseModel):
    """The content of a recording, and the results that it must lead to."""

    account_id: str
    """The server's own account."""
    connections: dict[str, Connection]
    updates: dict[str, Status] = {}
    """Each update in flight, and its final status."""
    from_outside: str | None = None
    """The update whose workflow an operator cancelled; nobody has resumed its connection."""
    requests: dict[str, dict[str, Any]] = {}
    """Requests, by the workflow that each one started. Repeated, they must return the same
    workflow.

    They are arguments of `update_state`; for a group or a guest, they are bodies for REST.
    """
    group: str | None = None
    guest: Guest | None = None
    told: dict[str, dict[str, Any]] = {}
    """The `workflow_status` of each ended update, as the recording version answered it."""
    before: dict[str, str] = {}
    """Ended updates, and the state before each one: an undo must restore it."""
    listed: list[dict[str, Any]] = []
    """The list of these updates, newest first, as the recording version answered it."""


def load(folder: Path) -> Scenario:
    text = (folder / SCENARIO).read_text()
    found: dict[str, Any] = json.loads(text)
    if "connections" in found:
        return Scenario.model_validate_json(text)
    # The first two recordings have another format.
    wanted = json.loads(found["state_before"]) | {"cursor": "2020"}
    connection = Connection(
        paused=found["paused"],
        state=found["state"],
        was_paused=False,
        wanted=json.dumps(wanted),
    )
    return Scenario(
        account_id="sandbox_account",
        connections={found["connection_id"]: connection},
        updates={found["workflow_id"]: "updated"},
    )


def save(folder: Path, scenario: Scenario, key: str, name: str, database: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(gzip.compress(database, mtime=0))
    (folder / KEY_FILE).write_text(key)
    text = scenario.model_dump_json(indent=2, exclude_defaults=True)
    (folder / SCENARIO).write_text(text + "\n")


def sqlite_file(path: Path) -> bytes:
    """The database without its free pages and its write-ahead log."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def dump(postgres: Postgres, url: str) -> bytes:
    """The database as plain SQL that any client can run."""
    [(binaries,)] = postgres.query(url, "SELECT setting FROM pg_config WHERE name = 'BINDIR'")
    command = [f"{binaries}/pg_dump", "--inserts", "--no-owner", "--no-comments", url]
    lines = subprocess.check_output(command).splitlines(keepends=True)
    # Only psql understands commands that begin with a backslash.
    return b"".join(line for line in lines if not line.startswith(b"\\"))


def restore_sqlite(folder: Path, data: Path) -> None:
    """Fills a new data directory."""
    data.mkdir()
    (data / "state.db").write_bytes(gzip.decompress((folder / SQLITE).read_bytes()))
    shutil.copyfile(folder / KEY_FILE, data / "key")
    (data / "key").chmod(0o600)


def restore_postgres(folder: Path, postgres: Postgres, url: str) -> None:
    """Makes the database at `url`, which must not exist yet."""
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
        session.execute(f"CREATE DATABASE {name}".encode())
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(gzip.decompress((folder / POSTGRES).read_bytes()))
