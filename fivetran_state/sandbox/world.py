"""The simulated account: connections that sync as time passes, in one SQLite file or in memory.

Nothing runs in the background. A connection is a value at one moment; whoever looks at it later
first lets it live through the time between (`Connection.advanced`).
"""

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fivetran_state import state

HOUR = 3600.0

_TIME_KEYS = frozenset({"cursor", "last_sync", "updated_at"})
_COUNT_KEYS = frozenset({"cursor", "offset", "page"})
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d[\d:.]*(Z|[+-]\d\d:?\d\d)?)?")
_INTEGER = re.compile(r"-?\d{1,1000}")


@dataclass(frozen=True)
class Connection:
    """One connection at one moment. Times are seconds since the epoch, durations seconds."""

    id: str
    service: str = "connector_sdk"
    schema: str = "api"
    group_id: str = "warehouse"
    paused: bool = False
    state: str | None = None
    """The state document as JSON text, exactly as it was written."""
    setup_state: str = "connected"
    sync_frequency: int = 360
    """Minutes; only shown. `sync_every` is what happens."""
    created_at: float = 0.0
    succeeded_at: float | None = None
    failed_at: float | None = None
    sync_seconds: float = 60.0
    sync_every: float | None = None
    """From the end of a sync to the start of the next; None: no sync starts by itself."""
    drain_seconds: float = 0.0
    """How long a running sync takes to stop after a pause."""
    stopped_sync_counts: bool = True
    """Whether a sync that a pause cut short moves the cursors all the same."""
    sync_on_resume: bool = False
    rescheduled: bool = False
    """The source's rate limit postponed the sync: none runs, and a pause does not show."""
    forbidden: bool = False
    """The API key's role may not touch this connection."""
    sync_started_at: float | None = None
    sync_ends_at: float | None = None
    next_sync_at: float | None = None

    def __post_init__(self) -> None:
        if self.sync_every is not None and self.sync_every <= 0:
            raise ValueError("sync_every must be positive")

    @property
    def syncing(self) -> bool:
        return self.sync_ends_at is not None

    @property
    def sync_state(self) -> str:
        """`status.sync_state` as Fivetran shows it."""
        if self.syncing:
            return "syncing"
        if self.rescheduled:
            return "rescheduled"
        return "paused" if self.paused else "scheduled"

    def advanced(self, now: float) -> "Connection":
        """The connection after every sync that ended or started by `now`."""
        if self.sync_ends_at is not None:
            if self.sync_ends_at > now:
                return self
            return self.finished(self.sync_ends_at).advanced(now)
        due = self.next_sync_at
        if due is None or due > now or self.paused or self.rescheduled or self.sync_every is None:
            return self
        # Only the last of the syncs that nobody watched leaves a trace.
        period = self.sync_seconds + self.sync_every
        return self.started(due + (now - due) // period * period).advanced(now)

    def started(self, at: float) -> "Connection":
        """A sync starts, whatever held it back; a running one goes on."""
        if self.syncing:
            return self
        ends_at = at + self.sync_seconds
        return replace(self, rescheduled=False, sync_started_at=at, sync_ends_at=ends_at)

    def finished(self, at: float) -> "Connection":
        """A sync ends: the cursors move."""
        moves = self.state is not None and (self.stopped_sync_counts or not self.paused)
        return replace(
            self,
            state=_moved_on(self.state or "", at) if moves else self.state,
            succeeded_at=self.succeeded_at if self.paused else at,
            sync_started_at=None,
            sync_ends_at=None,
            next_sync_at=None if self.sync_every is None else at + self.sync_every,
        )

    def with_paused(self, paused: bool, now: float) -> "Connection":
        """Paused or resumed at `now`; no change if it is so already."""
        if paused == self.paused:
            return self
        changed = replace(self, paused=paused)
        if paused and self.sync_ends_at is not None:
            drained_at = min(self.sync_ends_at, now + self.drain_seconds)
            return replace(changed, sync_ends_at=drained_at).advanced(now)
        if not paused and self.sync_on_resume and not self.rescheduled:
            return changed.started(now)
        if not paused and self.sync_every is not None:
            return replace(changed, next_sync_at=now + self.sync_every)
        return changed


def iso(seconds: float) -> str:
    """A moment as Fivetran writes it: UTC with microseconds."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _moved_on(document: str, at: float) -> str:
    try:
        return state.dump(_moved(state.parse(document), at))
    except state.InvalidState:
        return document


def _moved(value: Any, at: float, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _moved(member, at, name) for name, member in value.items()}
    if isinstance(value, list):
        return [_moved(member, at) for member in value]
    if key in _TIME_KEYS and isinstance(value, str) and _TIME.fullmatch(value):
        return iso(at)
    if key in _COUNT_KEYS and _INTEGER.fullmatch(spelling := state.dump(value)):
        return state.parse_value(str(int(spelling) + 1))
    return value


_COLUMNS = [column.name for column in fields(Connection)]
_FLAGS = [column.name for column in fields(Connection) if column.type is bool]


class World:
    """The account's data; threads may share the object, processes the file.

    Every method is one transaction. Inside `with world.transaction():` they join that one.
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
            self._db.execute("CREATE TABLE IF NOT EXISTS requests (at REAL)")
            self._db.execute("CREATE INDEX IF NOT EXISTS requests_at ON requests (at)")
            self._db.execute("CREATE TABLE IF NOT EXISTS clock (ahead REAL)")

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
        """Seconds since the epoch on the world's own clock, which `advance` puts forward."""
        with self.transaction():
            (ahead,) = self._db.execute("SELECT total(ahead) FROM clock").fetchone()
        return time.time() + float(ahead)

    def advance(self, seconds: float) -> None:
        with self.transaction():
            self._db.execute("INSERT INTO clock VALUES (?)", (seconds,))

    def connections(self) -> list[Connection]:
        """All of them, in the order of their ids."""
        with self.transaction():
            rows = self._db.execute("SELECT * FROM connections ORDER BY id").fetchall()
            return [self._advanced(row) for row in rows]

    def get(self, connection_id: str) -> Connection:
        """The connection now; raises `KeyError` if there is none."""
        with self.transaction():
            found = self._db.execute("SELECT * FROM connections WHERE id = ?", (connection_id,))
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
                f"INSERT OR REPLACE INTO connections VALUES ({', '.join('?' * len(_COLUMNS))})",
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

    def admit(self, limit: int) -> tuple[int, float]:
        """Counts a request into the rolling hour: how many are left, seconds to wait if refused."""
        with self.transaction():
            now = self.now()
            self._db.execute("DELETE FROM requests WHERE at <= ?", (now - HOUR,))
            used, oldest = self._db.execute("SELECT count(*), min(at) FROM requests").fetchone()
            if used >= limit:
                return 0, HOUR if oldest is None else oldest + HOUR - now
            self._db.execute("INSERT INTO requests VALUES (?)", (now,))
            return limit - used - 1, 0.0
