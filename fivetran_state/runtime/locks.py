"""Which executors are alive, without heartbeats and without clocks.

Every executor holds a lock on its id for as long as its process lives: a file lock beside the
SQLite file, a session's advisory lock on Postgres. The kernel, or the server, frees it at death.
If a process can take an executor's lock, that executor is dead.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from fivetran_state import database, private
from fivetran_state.config import Settings
from fivetran_state.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from psycopg import Connection


_PROBE_AS_WE_DO = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
)
"""Notice a vanished machine soon: by default Postgres takes two hours, and keeps its locks."""


class Locks(Protocol):
    """The locks of the executors that share a database. The methods block: call them in threads."""

    def hold(self, executor_id: str) -> None:
        """Take this process's own lock, and keep it; raises `DatabaseUnavailable`."""

    def is_held(self) -> bool:
        """True if this process has held its own lock without a break since `hold`."""

    def take(self, executor_id: str) -> AbstractContextManager[bool]:
        """A context that holds a dead executor's lock; it yields false if the executor is alive."""

    def tidy(self) -> None:
        """Remove the files of dead executors."""

    def release(self) -> None:
        """Give up this process's own lock."""


def locks_for(settings: Settings) -> Locks:
    """The locks that go with the database of the settings."""
    if settings.database_url is None:
        return FileLocks(settings.home / "executors")
    return AdvisoryLocks(settings.database_url)


class FileLocks:
    """For processes of one machine that share a SQLite file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._own: FileLock | None = None

    def hold(self, executor_id: str) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._own = self._lock(executor_id)
        self._own.acquire(timeout=5)  # Another process may hold it for a moment, to tidy up.

    def is_held(self) -> bool:
        # The kernel takes it away only together with the process.
        return self._own is not None

    @contextmanager
    def take(self, executor_id: str) -> Iterator[bool]:
        lock = self._lock(executor_id)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            self._remove(lock)

    def tidy(self) -> None:
        for path in self._directory.glob("*.lock"):
            with self.take(path.stem):
                pass

    def release(self) -> None:
        if self._own is not None:
            self._remove(self._own)
            self._own = None

    def _lock(self, executor_id: str) -> FileLock:
        return private.lock(self._directory / f"{executor_id}.lock")

    @staticmethod
    def _remove(lock: FileLock) -> None:
        with suppress(OSError):  # Windows cannot remove an open file.
            Path(lock.lock_file).unlink()
        lock.release()


class AdvisoryLocks:
    """For processes of any machine that share a Postgres database.

    The lock belongs to the session of one connection. When that is lost, the lock is free, and
    another process may have taken over: `is_held` is false until `hold` has succeeded again.
    """

    def __init__(self, url: str) -> None:
        self._url = database.libpq_url(url)
        self._session: Connection | None = None
        self._one_at_a_time = threading.Lock()

    def hold(self, executor_id: str) -> None:
        import psycopg  # Import it here, so that SQLite users do not pay for it.

        with self._one_at_a_time:
            self._close()
            try:
                session = psycopg.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=5,
                    application_name="fivetran-state executor",
                    keepalives_idle=5,
                    keepalives_interval=2,
                    keepalives_count=3,
                    tcp_user_timeout=10_000,
                )
                session.execute(_PROBE_AS_WE_DO)
                locked = _try_lock(session, executor_id)
            except psycopg.Error as error:
                raise database.unavailable(error) from None  # The error's text may show the URL.
            if not locked:
                session.close()
                raise DatabaseUnavailable("Another process is recovering this one's updates.")
            self._session = session

    def is_held(self) -> bool:
        import psycopg

        with self._one_at_a_time:
            if self._session is None:
                return False
            try:
                self._session.execute("SELECT 1")
            except psycopg.Error:
                self._close()
                return False
            return True

    @contextmanager
    def take(self, executor_id: str) -> Iterator[bool]:
        import psycopg

        with self._one_at_a_time:
            session = self._session
            try:
                is_ours = session is not None and _try_lock(session, executor_id)
            except psycopg.Error:
                is_ours = False
            try:
                yield is_ours
            finally:
                if session is not None and is_ours:
                    _unlock(session, executor_id)

    def tidy(self) -> None:
        """Nothing to do: the server keeps no trace of a free lock."""

    def release(self) -> None:
        with self._one_at_a_time:
            self._close()

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _try_lock(session: "Connection", executor_id: str) -> bool:
    row = session.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [executor_id]
    ).fetchone()
    return row is not None and bool(row[0])


def _unlock(session: "Connection", executor_id: str) -> None:
    import psycopg

    with suppress(psycopg.Error):  # With the session, the lock is gone too.
        session.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [executor_id])
