"""Looks at the set-up and the database without starting, changing or taking over anything.

The engine creates tables, and takes over the updates of dead processes. A look must do neither.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dbos import DBOSClient, Serializer

from fivetran_state import database, dbos_internals, private, vault
from fivetran_state.config import Settings
from fivetran_state.errors import DatabaseUnavailable
from fivetran_state.history import migrations
from fivetran_state.runtime.locks import AdvisoryLocks, locks_for
from fivetran_state.runtime.storage import unusable_directory
from fivetran_state.updates.canary import Canary
from fivetran_state.updates.marks import Marks
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.series import Series
from fivetran_state.updates.store import Store
from fivetran_state.updates.unfinished import UnfinishedUpdates

if TYPE_CHECKING:
    from psycopg import Connection

ROOM = 1 << 20
"""Bytes that must fit into the data directory: less is too little for an update of a large state."""
CONNECT_TIMEOUT = 5
"""Seconds."""


def directory(settings: Settings) -> str:
    """The data directory and its free space, in words.

    Raises `UnusableSettings`, or `DatabaseUnavailable` if the disk is full.
    """
    found = settings.home
    try:
        found = next(each for each in (found, *found.parents) if os.path.lexists(each))
        if not found.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if found == settings.home:
            private.make_directories(settings.data_dir, settings.home)
        private.try_to_write(found, ROOM)
        free = shutil.disk_usage(found).free
    except OSError as error:
        error.filename = str(found)  # It may be that of a temporary file.
        raise unusable_directory(settings, error) from None
    missing = "" if found == settings.home else "; it does not exist yet, the first start makes it"
    return f"{settings.home}, {free / 1e9:,.1f} GB free{missing}"


@dataclass(frozen=True)
class Tables:
    """The database in words, and whether its tables are there, and are those of this program."""

    detail: str
    exist: bool
    are_current: bool


def tables(settings: Settings) -> Tables:
    """Connect to the database and look at its tables.

    Raises `UnusableSettings`, `DatabaseUnavailable`, or an error of SQLAlchemy, psycopg or sqlite3.
    """
    if settings.database_url is None:
        path = database.path_of(settings)
        if not path.exists():
            return Tables(f"{path}; it does not exist yet, the first start makes it", False, False)
        url = _for_reading(path)
    else:
        url = database.check_url(settings.database_url)
        missing = _missing_in_postgres(url)
        if missing is not None:
            return Tables(f"{database.described(settings)}; {missing}", False, False)
    client = DBOSClient(system_database_url=url, retry_connection_errors=False)
    try:
        are_current = (
            dbos_internals.is_migrated(client)
            and migrations.is_current(
                dbos_internals.tables(client)[0], dbos_internals.schema(client)
            )
            and Marks(client, "").is_prepared()
        )
    finally:
        client.destroy()
    older = "" if are_current else "; its tables are those of an earlier version"
    return Tables(f"{database.described(settings)}{older}", True, are_current)


def _for_reading(path: Path) -> str:
    return database.sqlite_url(path, mode="ro")


def _missing_in_postgres(url: str) -> str | None:
    """What the next start will create, in words. Raises `DatabaseUnavailable` if it may not."""
    import psycopg  # Import it here, so that SQLite users do not pay for it.

    try:
        with _session(url) as session:
            return _check_privileges(session)
    except psycopg.OperationalError as error:
        # While it connects, libpq gives no code of an error.
        if error.sqlstate is not None or "does not exist" not in str(error):
            raise
        if "role " in str(error).partition("FATAL:")[2] or not _may_create_database(url):
            raise
    return "it does not exist yet, the first start creates it"


def _session(url: str, name: str | None = None) -> "Connection":
    """A session with the database of the URL, or another one of the same server."""
    import psycopg

    options = {"dbname": name} if name is not None else {}
    where = psycopg.conninfo.make_conninfo(database.libpq_url(url), **options)
    return psycopg.connect(where, autocommit=True, connect_timeout=CONNECT_TIMEOUT)


def _may_create_database(url: str) -> bool:
    import psycopg

    may = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
    try:
        with _session(url, "postgres") as session:
            found = session.execute(may).fetchone()
    except psycopg.Error:
        return False
    return found is not None and bool(found[0])


_PRIVILEGES = """
    SELECT current_setting('transaction_read_only') = 'on',
           has_database_privilege(current_database(), 'CREATE'),
           count(c.oid),
           coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE')), true),
           coalesce(bool_and(
               has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
               AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
           ), true)
    FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r'
    WHERE n.nspname = 'dbos'
"""


def _check_privileges(session: "Connection") -> str | None:
    found = session.execute(_PRIVILEGES).fetchone()
    assert found is not None, "an aggregate has a row"
    is_read_only, may_create, number, may_enter, may_use = found
    problem = None
    if is_read_only:
        problem = f"the server in {database.VARIABLE} is read-only"
    elif not number and not may_create:
        problem = f"the user in {database.VARIABLE} may not create the schema dbos in it"
    elif not (may_enter and may_use):
        problem = (
            f"the user in {database.VARIABLE} may not read and change the tables in the schema dbos"
        )
    if problem is not None:
        raise DatabaseUnavailable(f"The database cannot be used: {problem}.")
    return None if number else "it has no tables yet, the first start creates them"


class Survey:
    """Reads one account's updates. Close it at the end."""

    def __init__(self, settings: Settings, application: str, keys: Sequence[bytes]) -> None:
        """For a database whose `tables` are current. Raises as they do."""
        dbos_internals.read_only_what_is_sealed()
        url = settings.database_url or _for_reading(database.path_of(settings))
        # Without a key nothing can be opened, and `canary` says so.
        keys = keys or [secrets.token_bytes(32)]
        self._client = DBOSClient(
            system_database_url=url,
            application_name=application,
            serializer=cast(Serializer, vault.SealingSerializer(keys, application)),
            retry_connection_errors=False,
        )
        reader = Reader(self._client)
        self.texts = vault.Texts(keys, application)
        self.canary = Canary(reader, application)
        self.store = Store(reader, Series(reader, Marks(self._client, application)), application)
        self.unfinished = UnfinishedUpdates(reader, self.store)
        self._locks = locks_for(settings)
        if isinstance(self._locks, AdvisoryLocks):
            self._locks.hold(
                f"survey-{secrets.token_hex(16)}"
            )  # Its session looks for the others'.

    def is_alive(self, executor_id: str | None) -> bool:
        """True if the process of this executor lives."""
        try:
            with self._locks.take(executor_id or "unknown") as is_dead:
                return not is_dead
        except FileNotFoundError:  # No process has made the folder of the locks.
            return False

    def close(self) -> None:
        self._locks.release()
        self._client.destroy()
