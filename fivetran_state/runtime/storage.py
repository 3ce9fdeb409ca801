"""Opens the database and the keys, before DBOS may run anything."""

import errno
import sqlite3
import time
from dataclasses import dataclass
from typing import cast

from dbos import DBOS, DBOSClient, Serializer
from sqlalchemy.exc import SQLAlchemyError

from fivetran_state import database, dbos_internals, private, vault
from fivetran_state.config import Settings
from fivetran_state.errors import DatabaseUnavailable, FivetranStateError, UnusableSettings
from fivetran_state.history.store import HistoryStore
from fivetran_state.runtime import migration
from fivetran_state.updates.canary import Canary
from fivetran_state.updates.marks import Marks
from fivetran_state.updates.reader import Reader

TRANSACTION_TIMEOUT = 10.0
"""Seconds until the rows of a process that is frozen within a transaction are free again."""


def unusable_directory(settings: Settings, error: OSError) -> FivetranStateError:
    """The error for a caller, made from one of the system about the data directory."""
    if isinstance(error, private.NotPrivate):
        return UnusableSettings(str(error))
    path, why = error.filename or settings.home, error.strerror or type(error).__name__
    text = f"{path}, in FIVETRAN_STATE_DATA_DIR, cannot be used: {why}."
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return DatabaseUnavailable(text) if is_full else UnusableSettings(text)


@dataclass(frozen=True)
class Storage:
    """One account's part of the database."""

    url: str
    reader: Reader
    serializer: vault.SealingSerializer
    texts: vault.Texts
    canary: Canary
    history: HistoryStore
    marks: Marks
    migration: migration.Migration

    def close(self) -> None:
        self.reader.client.destroy()


def open_storage(settings: Settings, application: str) -> Storage:
    """Prepare the data directory, the keys and the tables.

    Raises `UnusableKey`, `UnusableSettings`, `DatabaseUnavailable` or `OSError`.
    """
    private.make_directories(settings.data_dir, settings.home)
    dbos_internals.read_only_what_is_sealed()
    with private.lock(settings.home / vault.SETUP_LOCK):
        keys = vault.keys_under_lock(settings)
        serializer = vault.SealingSerializer(keys, application)
        texts = vault.Texts(keys, application)
        try:
            url = database.url_of(settings)
            DBOS.migrate(url)
            client = DBOSClient(
                system_database_url=url,
                application_name=application,
                serializer=cast(Serializer, serializer),
                retry_connection_errors=False,
                sys_db_idle_transaction_timeout_sec=TRANSACTION_TIMEOUT,
            )
        except (SQLAlchemyError, sqlite3.Error) as error:
            # The error's own text may show the URL with its password.
            raise database.unavailable(error) from None
    reader = Reader(client)
    canary = Canary(reader, application)
    where = database.where(settings)
    return Storage(
        url=url,
        reader=reader,
        serializer=serializer,
        texts=texts,
        canary=canary,
        history=HistoryStore(
            dbos_internals.tables(client)[0],
            vault.Sealer(keys, f"history of {application}"),
            serializer.digest,
            application,
            clock=lambda: time.time_ns() // 1_000_000,
            schema=dbos_internals.schema(client),
        ),
        marks=Marks(client, application),
        migration=migration.Migration(
            client,
            application,
            canary.id,
            vault.FirstSerializer(keys),
            serializer,
            texts,
            migration.marker(settings.home / "closed", where, application),
        ),
    )
