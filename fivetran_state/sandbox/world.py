"""The simulated account: connections that sync as time passes, in one SQLite file or in memory.

Nothing runs in the background. A stored connection is a value at one moment. Each read first moves
it forward to the current time (`Connection.advanced`).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fivetran_state.sandbox.connection import Connection

HOUR = 3600.0

_COLUMNS = [column.name for column in fields(Connection)]
_FLAGS = [column.name for column in fields(Connection) if column.type is bool]
_DEFAULTS = {column.name: column.default for column in fields(Connection)}


@dataclass(frozen=True)
class Group:
    """A group of connections. `created_at`: seconds since the epoch."""

    id: str
    name: str
    created_at: float


class World:
    """The account's data. Threads may share the object, and processes the file.

    Every method is one transaction. Inside `with world.transaction():` methods join that
    transaction.
    """

    def __init__(self, path: Path | None = None) -> None:
        if path is not None:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._lock = threading.RLock()
        self._db = sqlite3.connect(
            path or ":memory:", timeout=30, isolation_level=None, check_same_thread=False
        )
        # A killed process loses nothing by this; only a crash of the machine could.
        self._db.execute("PRAGMA synchronous = OFF")
        with self.transaction():
            self._db.execute(
                f"CREATE TABLE IF NOT EXISTS connections ({', '.join(_COLUMNS)}, PRIMARY KEY (id))"
            )
            self._add_missing_columns()
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS groups (id PRIMARY KEY, name, created_at REAL)"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS requests (at REAL)")
            self._db.execute("CREATE INDEX IF NOT EXISTS requests_at ON requests (at)")
            self._db.execute("CREATE TABLE IF NOT EXISTS clock (ahead REAL)")

    def _add_missing_columns(self) -> None:
        """Adds missing columns to the file of an older sandbox."""
        rows = self._db.execute("SELECT name FROM pragma_table_info('connections')")
        present = {name for (name,) in rows}
        for name in _COLUMNS:
            if name not in present:
                (default,) = self._db.execute("SELECT quote(?)", (_DEFAULTS[name],)).fetchone()
                self._db.execute(f"ALTER TABLE connections ADD COLUMN {name} DEFAULT {default}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield

    def now(self) -> float:
        """Seconds since the epoch on the world's own clock; `advance` moves it forward."""
        with self.transaction():
            (ahead,) = self._db.execute("SELECT total(ahead) FROM clock").fetchone()
        return time.time() + float(ahead)

    def advance(self, seconds: float) -> None:
        with self.transaction():
            self._db.execute("INSERT INTO clock VALUES (?)", (seconds,))

    def connections(self) -> list[Connection]:
        """All connections, sorted by id."""
        with self.transaction():
            rows = self._db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM connections ORDER BY id"
            ).fetchall()
            return [self._advanced(row) for row in rows]

    def get(self, connection_id: str) -> Connection:
        """The connection now; raises `KeyError` if there is none."""
        with self.transaction():
            found = self._db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM connections WHERE id = ?", (connection_id,)
            )
            row = found.fetchone()
            if row is None:
                raise KeyError(connection_id)
            return self._advanced(row)

    def _advanced(self, row: tuple[Any, ...]) -> Connection:
        values = dict(zip(_COLUMNS, row, strict=True))
        stored = Connection(**values | {flag: bool(values[flag]) for flag in _FLAGS})
        advanced = stored.advanced(self.now())
        if advanced is not stored:
            self.put(advanced)
        return advanced

    def put(self, connection: Connection) -> None:
        """Adds or replaces the connection."""
        with self.transaction():
            self._db.execute(
                f"INSERT OR REPLACE INTO connections ({', '.join(_COLUMNS)})"
                f" VALUES ({', '.join('?' * len(_COLUMNS))})",
                [getattr(connection, column) for column in _COLUMNS],
            )

    def change(
        self, connection_id: str, change: Callable[[Connection, float], Connection]
    ) -> Connection:
        """Applies `change(connection, now)`; raises `KeyError` if there is no such connection."""
        with self.transaction():
            changed = change(self.get(connection_id), self.now())
            self.put(changed)
        return changed

    def delete(self, connection_id: str) -> None:
        with self.transaction():
            self._db.execute("DELETE FROM connections WHERE id = ?", (connection_id,))

    def add_group(self, group_id: str, name: str) -> None:
        """Adds a group, or renames it."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO groups VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = ?",
                (group_id, name, self.now(), name),
            )

    def groups(self) -> list[Group]:
        """Every group that was added or has a connection, sorted by id.

        The name of a group that was never added is its id.
        """
        with self.transaction():
            rows = self._db.execute(
                "SELECT id, name, created_at FROM groups"
                " UNION SELECT group_id, group_id, min(created_at) FROM connections"
                " WHERE group_id NOT IN (SELECT id FROM groups) GROUP BY group_id ORDER BY id"
            )
            return [Group(*row) for row in rows]

    def admit(self, limit: int, window: float = HOUR) -> tuple[int, float]:
        """Counts a request in the rolling hour: how many are left, seconds to wait if refused."""
        with self.transaction():
            now = self.now()
            self._db.execute("DELETE FROM requests WHERE at <= ?", (now - window,))
            used, oldest = self._db.execute("SELECT count(*), min(at) FROM requests").fetchone()
            if used >= limit:
                return 0, window if oldest is None else oldest + window - now
            self._db.execute("INSERT INTO requests VALUES (?)", (now,))
            return limit - used - 1, 0.0
