"""The life of DBOS in this process: it comes up in the background, keeps watch, and ends.

Callers wait for it in `Engine.up`.
"""

import asyncio
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from fivetran_state import database, vault
from fivetran_state.config import Settings
from fivetran_state.errors import (
    DatabaseUnavailable,
    EngineNotReady,
    FivetranStateError,
    UnusableKey,
    UnusableSettings,
)
from fivetran_state.runtime import accounts, launch
from fivetran_state.runtime.hand_over import hand_over
from fivetran_state.runtime.launch import Launched
from fivetran_state.runtime.locks import locks_for
from fivetran_state.runtime.recovery import INTERVAL
from fivetran_state.runtime.storage import unusable_directory
from fivetran_state.updates.records import GROUP, NAME
from fivetran_state.updates.run import PATIENCE

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLEANING_INTERVAL = 24 * 3600.0
START_RETRY = 5.0
START_PATIENCE = 20.0
"""Seconds that a call waits for the engine."""
LAST_LOOK = 1.0
"""Seconds to wait for the database at the end of the process: are updates in flight?"""


def tell_time_in_milliseconds() -> None:
    """Give SQLite below 3.42 (such as Debian 12's) the time in milliseconds.

    From Python 3.12 on, DBOS asks for it as unixepoch('subsec'), which an older SQLite answers with NULL.
    """
    if sqlite3.sqlite_version_info < (3, 42) and not event.contains(
        sqlalchemy.Engine, "connect", _add_unixepoch
    ):
        event.listen(sqlalchemy.Engine, "connect", _add_unixepoch)


def _add_unixepoch(connection: object, _: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.create_function("unixepoch", 1, lambda _: round(time.time(), 3))


class Engine:
    """One per process. `start` it on the event loop that shall run the workflows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executor_id = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._locks = locks_for(settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._trouble: FivetranStateError | None = None
        self._own: accounts.Own | None = None
        self._launched: Launched | None = None
        self._is_up = False
        self._is_closing = False

    def start(self, watch_interval: float) -> None:
        """Begin to come up, in the background; then watch every so many seconds, unless it is 0."""
        self._tasks.append(asyncio.create_task(self._come_up(watch_interval)))

    async def up(self) -> Launched:
        """Wait until workflows can run; raises the error that keeps the engine from coming up."""
        if not self._news.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), START_PATIENCE)
        if not self._is_up or self._launched is None:
            raise self._trouble or EngineNotReady("The workflow engine is still starting.")
        return self._launched

    async def close(self) -> None:
        """Stop working, and leave the process as it was before `start`."""
        await self.leave()
        while tasks := [task for task in self._tasks if not task.done()]:
            for task in tasks:  # On Python 3.10 a task may miss the cancel, and start another.
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._launched is not None:
            await self._launched.stop()
            await self._launched.accounts.aclose()
            self._launched = None
        if self._own is not None:
            await self._own.aclose()
        self._locks.release()

    async def leave(self) -> None:
        """Change nothing any more; start a process that finishes the updates in flight."""
        if self._is_closing:
            return
        self._is_closing = True
        launched = self._launched
        if launched is None:
            return
        self._end(launched)
        if await self._has_updates(launched):
            hand_over(launched.lease.executor_id, self._settings)
        if launched.updates.runtime.running.with_credentials:
            with suppress(FivetranStateError):
                await asyncio.to_thread(launched.recovery.erase_credentials)

    @staticmethod
    def _end(launched: Launched) -> None:
        launched.lease.end()
        launched.recovery.end()
        launched.background.end()

    async def _has_updates(self, launched: Launched) -> bool:
        """True if this process has updates to finish, or if the database cannot tell."""
        if launched.updates.runtime.running.progress or launched.recovery.is_taking_up:
            return True
        try:
            return bool(await asyncio.wait_for(self._unfinished_here(launched), LAST_LOOK))
        except (FivetranStateError, asyncio.TimeoutError):
            return True

    async def _unfinished_here(self, launched: Launched) -> list[str]:
        """The updates that this process has to complete."""
        lease = launched.lease
        ids = await launched.updates.unfinished.ids(lease.executor_id)
        return [id_ for id_ in ids if await asyncio.to_thread(lease.may_change, id_)]

    async def idle(self) -> None:
        """Wait until this process runs no update."""
        with suppress(FivetranStateError):
            while self._launched is not None:
                if not await self._unfinished_here(self._launched):
                    return
                await asyncio.sleep(INTERVAL / 8)

    async def finish(self, after: str | None) -> None:
        """Wait until no update is left that this process, or a dead one, has to finish.

        `after` is an executor that is about to die: its updates are waited for too.
        """
        if after is not None:
            # Nobody starts `finish` again: wait for the database and for Fivetran.
            await asyncio.wait(self._tasks[:1], timeout=PATIENCE)
        launched = await self.up()
        patience_ends = time.monotonic() + PATIENCE
        while time.monotonic() < patience_ends:
            await asyncio.to_thread(launched.recovery.once)
            rows = await asyncio.to_thread(launched.updates.unfinished.rows)
            closing = after is not None and any(
                row.executor_id == after for row in rows if row.name in (NAME, GROUP)
            )
            if not closing and not await self._unfinished_here(launched):
                return
            await asyncio.sleep(INTERVAL / 8)

    async def _come_up(self, watch_interval: float) -> None:
        settings = self._settings
        tell_time_in_milliseconds()
        try:
            own = self._own = await self._patiently(self._connect)
            own_id = await self._patiently(
                lambda: accounts.own_id(settings, own.fivetran, self._wait_for)
            )
            application = f"fivetran-state-{accounts.safe(own_id)}"
            self._launched = launched = await self._patiently(
                lambda: launch.launch(
                    settings, own, own_id, application, self._executor_id, self._locks
                )
            )
            if self._is_closing:
                self._end(launched)
            if launched.recovery.migration is None:
                anew = len(vault.keys(settings)) > 1
                await self._patiently(
                    lambda: launched.storage.canary.leave(launched.updates.keys, anew=anew)
                )
        except UnusableKey as error:
            self._trouble = error
            if self._launched is not None:
                await self._launched.stop()  # DBOS must not touch rows that it cannot open.
                self._launched = None
        except FivetranStateError as error:
            self._trouble = error
        except Exception as error:
            logger.exception("The workflow engine did not start")
            self._trouble = EngineNotReady(
                f"The workflow engine did not start ({type(error).__name__})."
            )
        else:
            self._is_up = True
            self._tasks.append(asyncio.create_task(self._keep_watch(launched)))
            self._tasks.append(asyncio.create_task(launched.announcer.watch()))
            if watch_interval:
                watching = launched.watcher.watch(watch_interval)
                self._tasks.append(asyncio.create_task(watching))
        self._news.set()

    async def _connect(self) -> accounts.Own:
        return accounts.connect(self._settings)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until the database and the settings can be used; return the result."""
        while True:
            try:
                return await attempt()
            except (DatabaseUnavailable, UnusableSettings) as error:
                self._wait_for(error)
            except (SQLAlchemyError, sqlite3.Error) as error:
                self._wait_for(database.unavailable(error))
            except OSError as error:
                self._wait_for(unusable_directory(self._settings, error))
            await asyncio.sleep(START_RETRY)

    def _wait_for(self, trouble: FivetranStateError) -> None:
        """Tell callers why the engine is not up. It goes on trying."""
        if self._trouble is None or self._trouble.message != trouble.message:
            logger.warning("Not up yet: %s", trouble)
        self._trouble = trouble
        self._news.set()

    async def _keep_watch(self, launched: Launched) -> None:
        """Recover updates of dead executors, again and again; delete old ones once a day."""
        next_cleaning = 0.0
        while True:
            try:
                await asyncio.to_thread(launched.recovery.once)
                await self._close_to_0_1(launched)
                if time.monotonic() >= next_cleaning:
                    next_cleaning = time.monotonic() + CLEANING_INTERVAL
                    await self._clean(launched)
            except DatabaseUnavailable as error:
                logger.warning("Keeping watch: %s", error)
            except SQLAlchemyError as error:
                logger.warning("Keeping watch: %s", database.unavailable(error))
            except Exception:
                logger.exception("Keeping watch failed; trying again")
            await asyncio.sleep(INTERVAL)

    async def _clean(self, launched: Launched) -> None:
        await asyncio.to_thread(self._locks.tidy)
        await asyncio.to_thread(launched.recovery.find_credentials)
        if self._settings.retention_days:
            await launched.updates.retention.once_a_day(self._settings.retention_days)

    async def _close_to_0_1(self, launched: Launched) -> None:
        """When no update of 0.1 is in flight any more, read none of its values again."""
        migration = launched.recovery.migration
        if migration is None:
            return
        with database.answering():
            is_last = await asyncio.to_thread(migration.take_ended)
        if is_last:
            await launched.storage.canary.leave(launched.updates.keys, anew=True)
            migration.close()
            launched.recovery.migration = None
