"""DBOS in this process: launch, proof of life, recovery of dead executors, hand-over.

The engine comes up in the background; callers wait for it in `Engine.ready`.
"""

import asyncio
import errno
import hashlib
import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import httpx
import sqlalchemy
from dbos import DBOS, DBOSClient, DBOSConfig, Serializer
from dbos import error as dbos_error
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from fivetran_state import database, dbos_internals, network, private, vault
from fivetran_state.config import Settings
from fivetran_state.errors import (
    DatabaseUnavailable,
    EngineNotReady,
    FivetranStateError,
    FivetranUnavailable,
    Forbidden,
    InvalidRequest,
    MissingCredentials,
    RateLimited,
    UnusableKey,
    UnusableSettings,
)
from fivetran_state.fivetran import MAX_IDLE, Fivetran
from fivetran_state.ids import UpdateId
from fivetran_state.runtime import migration
from fivetran_state.runtime.locks import AdvisoryLocks, FileLocks, Locks
from fivetran_state.updates import store as updates
from fivetran_state.updates import workflow

if TYPE_CHECKING:
    from fivetran_state.sandbox import Sandbox

logger = logging.getLogger(__name__)

T = TypeVar("T")

WORKFLOW_VERSION = 2
"""Raise it when an older program cannot go on with the records of this one. This program goes on with
all older records, so it may run beside older programs while they are replaced."""

GUESTS = "guests"
"""Stands for the account of a server without its own credentials."""
REMEMBERED_GUESTS = 100
GUEST_MAX_IDLE = 1
"""Idle connections of one guest's client: many guests together must leave descriptors to others."""
GUEST_INTERVAL = 300.0
"""Seconds after which Fivetran is asked again for the account of a guest's credentials."""

RECOVERY_INTERVAL = 2.0
MESSAGE_INTERVAL = 0.2
"""Seconds until a workflow notices a message, if the database does not notify."""
TRANSACTION_TIMEOUT = 10.0
"""Seconds until the rows of a process that is frozen within a transaction are free again."""
MAX_GIVEN_UP_PAUSE = 30.0
"""Seconds, at most, until a process tries its refused key again."""
CLEANING_INTERVAL = 24 * 3600.0
START_RETRY = 5.0
START_PATIENCE = 20.0
"""Seconds that a call waits for the engine."""
LAST_LOOK = 1.0
"""Seconds to wait for the database at the end of the process: are updates in flight?"""


if sqlite3.sqlite_version_info < (3, 42):
    # From Python 3.12 on, DBOS asks for the time as unixepoch('subsec'), which an older SQLite
    # (such as Debian 12's) answers with NULL.

    @event.listens_for(sqlalchemy.Engine, "connect")
    def _tell_time_in_milliseconds(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.create_function("unixepoch", 1, lambda _: round(time.time(), 3))


@dataclass(frozen=True)
class Account:
    """A Fivetran account: this server's own, or a guest's."""

    fivetran: Fivetran
    id: str | None = None
    """The guest's, if it is not this server's own account."""
    credentials: str | None = None
    """The guest's, sealed."""

    def in_request(self) -> dict[str, str]:
        """The request fields that name the account; empty for our own."""
        fields = {"account": self.id, "credentials": self.credentials}
        return {name: value for name, value in fields.items() if value is not None}


class Engine:
    """One per process. `start` it on the event loop that shall run the workflows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.home
        self._executor_id = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._is_up = False
        self._trouble: FivetranStateError | None = None
        self._locks: Locks = (
            FileLocks(self._home / "executors")
            if settings.database_url is None
            else AdvisoryLocks(settings.database_url)
        )
        self._fivetran: Fivetran | None = None
        self._account_id = GUESTS
        self._guests: OrderedDict[tuple[str, str], tuple[Account, float]] = OrderedDict()
        self._serializer: vault.SealingSerializer | None = None
        self._texts: vault.Sealer | None = None
        """Seals what leaves the database, or lies in a request by itself."""
        self._migration: migration.Migration | None = None
        """While values of 0.1 are accepted."""
        self._sandbox: Sandbox | None = None
        self._reader: DBOSClient | None = None
        self._launched = False
        self._is_closing = False
        self._is_taking_up = False
        self._one_recovery_at_a_time = threading.Lock()
        self._stopped_before: set[str] = set()
        self._missing_before: set[str] = set()
        self._given_up: dict[str, tuple[int, float]] = {}
        """How often this process gave an update up, and when it may try again."""
        self._refusals = 0
        """How often in a row Fivetran has refused the key of this process's own account."""
        self._ask_again_at = 0.0
        self._superseded: set[str] = set()
        self._to_erase: set[str] = set()
        """Guests' updates that have run here, whose credentials are erased when they have ended."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to come up, in the background."""
        self._tasks.append(asyncio.create_task(self._come_up()))

    async def ready(self) -> Fivetran:
        """Wait until workflows can run; return the client of this process's account.

        Raises `MissingCredentials`, or the error that keeps the engine from coming up.
        """
        await self.up()
        if self._fivetran is None:
            raise _no_credentials()
        return self._fivetran

    async def up(self) -> None:
        """Wait until workflows can run; raises the error that keeps the engine from coming up."""
        if not self._news.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), START_PATIENCE)
        if not self._is_up:
            raise self._trouble or EngineNotReady("The workflow engine is still starting.")

    async def guest(self, key: str, secret: str) -> Account:
        """The account of the credentials in a request; the sandbox takes any credentials.

        Raises `Unauthorized`, or the error of Fivetran's look-up.
        """
        await self.up()
        if self._sandbox is not None and self._fivetran is not None:
            return Account(self._fivetran)
        known, asked_at = self._guests.get((key, secret), (None, 0.0))
        if known is not None and time.monotonic() < asked_at + GUEST_INTERVAL:
            self._guests.move_to_end((key, secret))
            return known
        assert self._texts is not None, "it is up"
        fivetran = self._client(key, secret, max_idle=GUEST_MAX_IDLE)
        try:
            account_id = await fivetran.get_account_id()
        except Forbidden:
            account_id = _stand_in(self._settings.fingerprint_of(key))
        except FivetranStateError:
            await fivetran.aclose()
            raise
        guest = Account(
            fivetran,
            id=None if account_id == self._account_id else _safe(account_id),
            credentials=self._texts.serialize({"key": key, "secret": secret}),
        )
        replaced = self._guests.pop((key, secret), None)
        self._guests[key, secret] = guest, time.monotonic()
        if replaced is None and len(self._guests) > REMEMBERED_GUESTS:
            _, replaced = self._guests.popitem(last=False)
        if replaced is not None:
            await replaced[0].fivetran.retire()  # Don't close it: a request may still be using it.
        return guest

    def client_of(
        self, account: str | None, sealed: str | None, workflow_id: str | None
    ) -> Fivetran:
        """A client of a guest's account, with these credentials.

        If they have been erased, or Fivetran has refused them for this update: with the newest ones
        the account came with. Raises `MissingCredentials` if there are none.
        """
        assert self._texts is not None, "it is up"
        newest = max(
            (each for each in self._guests.values() if each[0].id == account),
            key=lambda each: each[1],
            default=None,
        )
        if workflow_id is not None:
            self._to_erase.add(workflow_id)
        is_unusable = sealed is None or workflow_id in self._given_up
        if is_unusable and newest is not None and newest[0].credentials is not None:
            sealed = newest[0].credentials
        if sealed is None:
            raise MissingCredentials("The credentials of this guest were erased after its update.")
        credentials = self._texts.deserialize(sealed)
        return self._client(credentials["key"], credentials["secret"], max_idle=GUEST_MAX_IDLE)

    def seal(self, value: object) -> str:
        """URL-safe text that only the key opens."""
        assert self._texts is not None, "it is up"
        return self._texts.serialize(value).replace("+", "-").replace("/", "_")

    def unseal(self, text: str) -> object:
        """Open sealed text; raises `UnusableKey` if it was not sealed with one of the keys."""
        assert self._texts is not None, "it is up"
        try:
            return self._texts.deserialize(text.replace("-", "+").replace("_", "/"))
        except ValueError as error:
            raise UnusableKey("This was not sealed here.") from error

    def _client(self, key: str, secret: str, max_idle: int = MAX_IDLE) -> Fivetran:
        settings = self._settings
        return Fivetran(
            settings.api_url, key, secret, timeout=settings.http_timeout, max_idle=max_idle
        )

    async def close(self) -> None:
        """Stop working, and leave the process as it was before `start`."""
        await self.leave()
        while tasks := [task for task in self._tasks if not task.done()]:
            for task in tasks:  # On Python 3.10 a task may miss the cancel, and start another.
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._launched:
            await self._stop_dbos()
        workflow.unsettled.clear()  # The next engine may have another database.
        if self._reader is not None:
            self._reader.destroy()
        guests = (guest.fivetran for guest, _ in self._guests.values())
        for client in (self._fivetran, *guests):
            if client is not None:
                await client.aclose()
        if self._sandbox is not None:
            self._sandbox.close()
        self._locks.release()

    async def _stop_dbos(self) -> None:
        self._launched = False
        await asyncio.to_thread(DBOS.destroy)
        # DBOS leaves its closed thread pool behind as the loop's.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    async def leave(self) -> None:
        """Change nothing any more; start a process that finishes the updates in flight."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._launched and await self._has_updates():
            self._hand_over()
        if self._launched and self._to_erase:
            with suppress(FivetranStateError):
                await asyncio.to_thread(self._erase_credentials)

    async def _has_updates(self) -> bool:
        """True if this process has updates to finish, or if the database cannot tell."""
        if workflow.running or self._is_taking_up:
            return True
        try:
            return bool(await asyncio.wait_for(self._unfinished_here(), LAST_LOOK))
        except (FivetranStateError, asyncio.TimeoutError):
            return True

    @property
    def database(self) -> str:
        """The database's URL or path, without a password."""
        return database.where(self._settings)

    async def idle(self) -> None:
        """Wait until this process runs no update."""
        with suppress(FivetranStateError):
            while self._launched:
                if not await self._unfinished_here():
                    return
                await asyncio.sleep(RECOVERY_INTERVAL / 8)

    async def finish(self, after: str | None) -> None:
        """Wait until no update is left that this process, or a dead one, has to finish.

        `after` is an executor that is about to die: its updates are waited for too.
        """
        if after is not None:
            # Nobody starts `finish` again: wait for the database and for Fivetran.
            await asyncio.wait(self._tasks[:1], timeout=workflow.PATIENCE)
        await self.up()
        patience_ends = time.monotonic() + workflow.PATIENCE
        while time.monotonic() < patience_ends:
            await asyncio.to_thread(self._recover_once)
            rows = await asyncio.to_thread(updates.unfinished_rows)
            closing = after is not None and after in (row.executor_id for row in rows)
            if not closing and not await self._unfinished_here():
                return
            await asyncio.sleep(RECOVERY_INTERVAL / 8)

    def _hand_over(self) -> None:
        """Start `fivetran-state finish`, which outlives this process and its terminal."""
        command = [sys.executable, "-m", "fivetran_state", "finish", "--after", self._executor_id]
        if self._settings.sandbox:
            command.append("--sandbox")
        if self._settings.takes_guests:
            command.append("--guests")
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Python imports from the working directory first, so it must not be one that others may write to.
            cwd=Path(sys.executable).parent,
            env=os.environ
            | network.absolute_certificates()
            | {"FIVETRAN_STATE_DATA_DIR": str(self._settings.data_dir)},
            start_new_session=True,
            creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
        )
        logger.warning("Handed the updates in flight over to a process of their own")

    async def _come_up(self) -> None:
        try:
            self._fivetran = fivetran = await self._patiently(self._connect)
            if fivetran is not None:
                self._account_id = await self._patiently(lambda: self._account(fivetran))
            application = f"fivetran-state-{_safe(self._account_id)}"
            self._loop = asyncio.get_running_loop()
            workflow.bind(
                self._fivetran,
                application,
                self.client_of,
                self._prove,
                updates.is_cancelled,
                self._release,
            )
            await self._patiently(lambda: self._prepare_and_launch(application))
            if self._migration is None:
                await self._patiently(
                    lambda: updates.leave_canary(anew=len(vault.keys(self._settings)) > 1)
                )
        except UnusableKey as error:
            self._trouble = error
            if self._launched:
                await self._stop_dbos()  # DBOS must not touch rows that it cannot open.
        except FivetranStateError as error:
            self._trouble = error
        except Exception as error:
            logger.exception("The workflow engine did not start")
            self._trouble = EngineNotReady(
                f"The workflow engine did not start ({type(error).__name__})."
            )
        else:
            self._is_up = True
            self._tasks.append(asyncio.create_task(self._keep_watch()))
        self._news.set()

    async def _connect(self) -> Fivetran | None:
        settings = self._settings
        if settings.sandbox:
            from fivetran_state.sandbox import Sandbox  # Only the sandbox needs this import.

            self._make_private()
            self._sandbox = Sandbox(self._home / "world.db")
            transport = httpx.ASGITransport(self._sandbox.app)
            return Fivetran("http://sandbox", "sandbox", "sandbox", transport=transport)
        if settings.api_key is not None and settings.api_secret is not None:
            return self._client(settings.api_key, settings.api_secret.get_secret_value())
        if settings.takes_guests:
            network.check(settings.api_url)  # Now, rather than within a guest's update.
            return None
        raise _no_credentials()

    async def _account(self, fivetran: Fivetran) -> str:
        """Fivetran's own account id, remembered so that a start without Fivetran works.

        A key that may not ask stands for an account of its own.
        """
        if self._settings.sandbox:
            return "sandbox"
        fingerprint = self._settings.key_fingerprint
        remembered = self._home / "accounts" / fingerprint
        with suppress(FileNotFoundError):
            return private.read(remembered).decode()
        while True:
            try:
                account = await fivetran.get_account_id()
                break
            except (FivetranUnavailable, RateLimited) as error:
                why = "Fivetran has to be asked once which account the API key belongs to: "
                self._wait_for(type(error)(why + error.message, **error.details))
                await asyncio.sleep(START_RETRY)
            except FivetranStateError as error:
                logger.warning("Fivetran does not tell the account: %s", error)
                return _stand_in(fingerprint)
        self._make_private()
        remembered.parent.mkdir(mode=0o700, exist_ok=True)
        private.write(remembered, account)
        return account

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
                self._wait_for(self._unusable(error))
            await asyncio.sleep(START_RETRY)

    def _unusable(self, error: OSError) -> FivetranStateError:
        if isinstance(error, private.NotPrivate):
            return UnusableSettings(str(error))
        path, why = error.filename or self._home, error.strerror or type(error).__name__
        text = f"{path}, in FIVETRAN_STATE_DATA_DIR, cannot be used: {why}."
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        return DatabaseUnavailable(text) if is_full else UnusableSettings(text)

    async def _prepare_and_launch(self, application: str) -> None:
        config = await asyncio.to_thread(self._prepare, application)
        try:
            self._launch(config)
        except SQLAlchemyError:
            await self._stop_dbos()  # DBOS can be launched only once.
            raise

    def _wait_for(self, trouble: FivetranStateError) -> None:
        """Tell callers why the engine is not up. It goes on trying."""
        if self._trouble is None or self._trouble.message != trouble.message:
            logger.warning("Not up yet: %s", trouble)
        self._trouble = trouble
        self._news.set()

    def _prepare(self, application: str) -> DBOSConfig:
        """Prepare the data directory, the keys, the database and our lock, before DBOS may run anything."""
        if self._settings.conductor_key and find_spec("dbos_enterprise") is None:
            raise UnusableSettings(
                "DBOS_CONDUCTOR_KEY is set, but the package that it needs is not installed: "
                "pip install 'dbos[enterprise]'."
            )
        self._make_private()
        if self._reader is not None:  # Close the reader of an earlier attempt.
            self._reader.destroy()
            self._reader = None
        dbos_internals.read_only_what_is_sealed()
        with private.lock(self._home / "setup.lock"):
            keys = vault.keys(self._settings) or [vault.key_from_file(self._home / vault.KEY_FILE)]
            self._serializer = vault.SealingSerializer(keys, application)
            self._texts = vault.Sealer(keys, f"text of {application}")
            serializer = cast(Serializer, self._serializer)
            try:
                url = database.url_of(self._settings)
                DBOS.migrate(url)
                self._reader = DBOSClient(
                    system_database_url=url,
                    application_name=application,
                    serializer=serializer,
                    retry_connection_errors=False,
                    sys_db_idle_transaction_timeout_sec=TRANSACTION_TIMEOUT,
                )
            except (SQLAlchemyError, sqlite3.Error) as error:
                # The error's own text may show the URL with its password.
                raise database.unavailable(error) from None
        updates.bind(self._reader, self._serializer.digest, self.seal, self.unseal)
        self._locks.hold(self._executor_id)
        found = migration.Migration(
            self._reader,
            application,
            updates.canary_id(),
            vault.FirstSerializer(keys),
            self._serializer,
            self._texts,
            migration.marker(self._home / "closed", self.database, application),
        )
        with database.answering():
            if found.is_open():
                self._migration = found
                self._migrate(found)
            else:
                updates.check_key()
                found.close()
        conductor_key = self._settings.conductor_key
        return {
            "name": application,
            "application_version": f"{application}-{WORKFLOW_VERSION}",
            "executor_id": self._executor_id,
            "system_database_url": url,
            "serializer": serializer,
            "log_level": "WARNING",
            # For SQLite, which cannot notify. DBOS polls only while a workflow waits.
            "notification_listener_polling_interval_sec": MESSAGE_INTERVAL,
            "sys_db_idle_transaction_timeout_sec": TRANSACTION_TIMEOUT,  # The default of DBOS is 60.
            "conductor_key": None if conductor_key is None else conductor_key.get_secret_value(),
        }

    def _migrate(self, found: migration.Migration) -> None:
        """Take over the updates of 0.1 that no server of 0.1 is running."""
        found.take_ended()
        for row in updates.unfinished_rows():
            with self._locks.take(row.executor_id or "unknown") as is_dead:
                if is_dead:
                    found.take(row.workflow_id)

    def _make_private(self) -> None:
        for directory in (self._settings.data_dir, self._home):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.name == "posix":
                directory.chmod(0o700)

    def _launch(self, config: DBOSConfig) -> None:
        """Launch DBOS on the event loop: it runs recovered workflows on the loop that launched it."""
        DBOS(config=config)
        DBOS.launch()
        self._launched = True
        if DBOS.executor_id != self._executor_id:
            # With a Conductor, DBOS names its executor itself.
            self._executor_id = DBOS.executor_id
            self._locks.hold(self._executor_id)

    async def _keep_watch(self) -> None:
        """Recover updates of dead executors, again and again; delete old ones once a day."""
        next_cleaning = 0.0
        while True:
            try:
                await asyncio.to_thread(self._recover_once)
                await self._close_to_0_1()
                if time.monotonic() >= next_cleaning:
                    next_cleaning = time.monotonic() + CLEANING_INTERVAL
                    await asyncio.to_thread(self._locks.tidy)
                    # Those as well whose process died before it came to it.
                    older = self._versions()[1:]
                    self._to_erase |= set(await asyncio.to_thread(updates.with_credentials, older))
                    if self._settings.retention_days:
                        await updates.forget(self._settings.retention_days)
            except DatabaseUnavailable as error:
                logger.warning("Keeping watch: %s", error)
            except SQLAlchemyError as error:
                logger.warning("Keeping watch: %s", database.unavailable(error))
            except Exception:
                logger.exception("Keeping watch failed; trying again")
            await asyncio.sleep(RECOVERY_INTERVAL)

    async def _close_to_0_1(self) -> None:
        """When no update of 0.1 is in flight any more, read none of its values again."""
        if self._migration is None:
            return
        with database.answering():
            is_last = await asyncio.to_thread(self._migration.take_ended)
        if is_last:
            await updates.leave_canary(anew=True)
            self._migration.close()
            self._migration = None

    def _recover_once(self) -> None:
        """Keep our own lock; take up the updates of dead executors, and our own that have stopped."""
        with self._one_recovery_at_a_time:
            if not self._locks.is_held():
                self._take_lock_again()
            by_executor: dict[str | None, list[updates.Unfinished]] = {}
            rows = self._erase_credentials()
            self._break_off_deleted({row.workflow_id for row in rows})
            rows = [
                row for row in rows if self._may_take_up(row) and self.may_change(row.workflow_id)
            ]
            if not self._may_use_key_for(rows):
                rows = [row for row in rows if _is_guests(row.workflow_id)]
            for row in rows:
                by_executor.setdefault(row.executor_id, []).append(row)
            mine = by_executor.pop(self._executor_id, [])
            for executor_id, rows in by_executor.items():
                with self._locks.take(executor_id or "unknown") as is_dead:
                    if is_dead:
                        ids = [row.workflow_id for row in rows]
                        logger.warning("Executor %s died: recovering %s", executor_id, ids)
                        for row in rows:
                            self._take_up(row)
            self._take_up_stopped(mine)
            self._settle()

    def may_change(self, workflow_id: str) -> bool:
        """True if the settings let this process go on with the update, or with the whole group."""
        settings = self._settings
        if not _is_update(workflow_id):
            return True
        if settings.read_only:
            return False
        if settings.allowed_connections == "*":
            return True
        try:
            return settings.allows(UpdateId.parse(workflow_id).connection_id)
        except InvalidRequest:  # This is the id of a group.
            return all(map(settings.allows, updates.connections_of(workflow_id)))

    def left_to_others(self) -> list[str]:
        """The updates of dead processes that this one may not change."""
        found = []
        for row in updates.unfinished_rows():
            if self.may_change(row.workflow_id) or not self._may_take_up(row):
                continue
            if row.executor_id == self._executor_id:
                continue
            with self._locks.take(row.executor_id or "unknown") as is_dead:
                if is_dead:
                    found.append(row.workflow_id)
        return found

    async def _unfinished_here(self) -> list[str]:
        """The updates that this process has to complete."""
        rows = await updates.unfinished(self._executor_id)
        return [id_ for id_ in rows if await asyncio.to_thread(self.may_change, id_)]

    def _may_take_up(self, row: updates.Unfinished) -> bool:
        if row.status == updates.ENQUEUED:
            # DBOS runs updates of this version itself. Older programs may be gone for good.
            return row.version in self._versions()[1:]
        if row.was_ended_from_outside:
            return not self._is_superseded(row)
        if row.status != updates.PENDING:
            return False
        _, not_before = self._given_up.get(row.workflow_id, (0, 0.0))
        return row.version in self._versions() and time.monotonic() >= not_before

    def _erase_credentials(self) -> list[updates.Unfinished]:
        """Erase guests' credentials from ended updates.

        Returns the unfinished ones.
        """
        known = set(self._to_erase)  # Before the look: one that is added later may be running.
        rows = updates.unfinished_rows()
        unfinished = {row.workflow_id for row in rows} - self._superseded
        for workflow_id in known - unfinished:
            group = updates.erase_credentials(workflow_id)
            if group is not None:
                self._to_erase.add(group)
            self._to_erase.discard(workflow_id)
        return rows

    def _may_use_key_for(self, rows: list[updates.Unfinished]) -> bool:
        """True if Fivetran accepts the key. It is asked only after a refusal, here or elsewhere.

        A process with a refused key must not take updates from processes with a better one.
        """
        was_refused = self._refusals or any(row.is_released for row in rows)
        if not rows or not was_refused or self._fivetran is None or self._loop is None:
            return True
        if time.monotonic() < self._ask_again_at:
            return False
        asking = asyncio.run_coroutine_threadsafe(self._fivetran.accepts_key(), self._loop)
        if asking.result():
            self._refusals = 0
            return True
        self._note_refusal()
        return False

    def _note_refusal(self) -> None:
        self._refusals += 1
        self._ask_again_at = time.monotonic() + min(2.0**self._refusals, MAX_GIVEN_UP_PAUSE)

    def _is_superseded(self, row: updates.Unfinished) -> bool:
        if row.workflow_id not in self._superseded and updates.is_superseded(row):
            self._superseded.add(row.workflow_id)
            self._to_erase.add(row.workflow_id)
        return row.workflow_id in self._superseded

    def _take_up(self, row: updates.Unfinished) -> None:
        # In this order, `leave` sees one of the two: an update being taken up, or its row.
        self._is_taking_up = True
        try:
            if self._is_closing:
                return
            if self._migration is not None:
                self._migration.take(row.workflow_id)
            if row.was_ended_from_outside:
                logger.error("%s was ended from outside (%s)", row.workflow_id, row.status)
                updates.note_outside_end(row.workflow_id)
            dbos_internals.claim(
                row.workflow_id,
                executor_id=row.executor_id,
                status=row.status,
                versions=self._versions(),
            )
        finally:
            self._is_taking_up = False

    def _take_up_stopped(self, mine: list[updates.Unfinished]) -> None:
        """Go on with updates that stopped because the database was away, or was changed by hand."""
        for row in mine:
            if row.was_ended_from_outside and row.workflow_id not in workflow.changing:
                self._break_off(row.workflow_id)
        stopped = {
            row.workflow_id: row
            for row in mine
            if _is_update(row.workflow_id) and row.workflow_id not in workflow.running
        }
        # Look twice: an update that was just started is not running yet.
        for workflow_id in stopped.keys() & self._stopped_before:
            logger.warning("Going on with %s", workflow_id)
            self._take_up(stopped.pop(workflow_id))
        self._stopped_before = set(stopped)

    def _break_off_deleted(self, unfinished: set[str]) -> None:
        """End runs whose rows were deleted. Look twice: a run may just be ending."""
        missing = set(workflow.running) - unfinished
        for workflow_id in missing & self._missing_before:
            if workflow_id not in workflow.changing and not updates.exists(workflow_id):
                self._break_off(workflow_id)
        self._missing_before = missing

    def _break_off(self, workflow_id: str) -> None:
        """Cancel a run that must not go on. It may be asleep for minutes."""
        task = workflow.tasks.get(workflow_id)
        if task is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(task.cancel)

    def _settle(self) -> None:
        """Resume the connection of a run whose row is gone, or was ended in the database."""
        for workflow_id, request in list(workflow.unsettled.items()):
            is_settled = updates.is_settled(workflow_id)
            del workflow.unsettled[workflow_id]
            if self._loop is not None and not is_settled:
                logger.error("%s was ended in the database: resuming its connection", workflow_id)
                asyncio.run_coroutine_threadsafe(workflow.mend(request), self._loop)

    def _versions(self) -> list[str]:
        """The application versions whose updates this program can go on with, its own first."""
        return [
            f"{workflow.application_name}-{number}" for number in range(WORKFLOW_VERSION, 0, -1)
        ]

    async def _release(self, workflow_id: str) -> None:
        """Release the update to any process with an accepted key; later also to this one."""
        times, _ = self._given_up.get(workflow_id, (0, 0.0))
        not_before = time.monotonic() + min(2.0**times, MAX_GIVEN_UP_PAUSE)
        self._given_up[workflow_id] = times + 1, not_before
        logger.warning("Giving %s up: Fivetran refuses the API key", workflow_id)
        if not _is_guests(workflow_id):
            self._note_refusal()
        await _leave_to_others(workflow_id)

    def _take_lock_again(self) -> None:
        logger.error("The lock of executor %s was lost: taking it again", self._executor_id)
        self._locks.hold(self._executor_id)

    async def _prove(self, workflow_id: str) -> None:
        """Prove before each change that this process still owns the workflow.

        While the lock was lost another process may have recovered the workflow. Raises DBOS's own
        exception for that, upon which DBOS waits for the other's outcome.
        """
        if self._is_closing:
            raise asyncio.CancelledError
        if not await asyncio.to_thread(self.may_change, workflow_id):
            # DBOS has started it here, because somebody put it into DBOS's queue.
            logger.warning("Leaving %s to others: this server may not change it", workflow_id)
            await _leave_to_others(workflow_id)
            raise asyncio.CancelledError
        while not await asyncio.to_thread(self._locks.is_held):
            with suppress(DatabaseUnavailable):
                await asyncio.to_thread(self._take_lock_again)
                break
            await asyncio.sleep(RECOVERY_INTERVAL)
        if isinstance(self._locks, AdvisoryLocks):
            await self._prove_ownership(workflow_id)

    async def _prove_ownership(self, workflow_id: str) -> None:
        while True:
            with suppress(DatabaseUnavailable):
                is_ours = await updates.is_run_by(self._executor_id, workflow_id)
                break
            await asyncio.sleep(RECOVERY_INTERVAL)
        if not is_ours:
            logger.error("Another process has taken over %s: this one stops", workflow_id)
            raise dbos_error.DBOSWorkflowConflictIDError(workflow_id)


async def _leave_to_others(workflow_id: str) -> None:
    """Give the row to an executor that does not exist, so that any process may take it over."""
    to = f"{updates.RELEASED}-{uuid.uuid4().hex}"
    await asyncio.to_thread(dbos_internals.release, workflow_id, to)


def _safe(account: str) -> str:
    """The account id as a part of application names and ids.

    DBOS allows 3 to 256 of a-z, 0-9, - and _. Any other account id is replaced by its hash.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,127}", account) is None:
        return hashlib.sha256(account.encode()).hexdigest()[:16]
    return account


def _stand_in(fingerprint: str) -> str:
    """An account id for a key that may not read its account's id."""
    return f"key-{fingerprint}"


def _no_credentials() -> MissingCredentials:
    return MissingCredentials("FIVETRAN_API_KEY and FIVETRAN_API_SECRET are not both set.")


def _is_guests(workflow_id: str) -> bool:
    """True if the update belongs to a guest's account and brings its own credentials."""
    return "/" in workflow_id


def _is_update(workflow_id: str) -> bool:
    return not workflow_id.startswith("key:")
