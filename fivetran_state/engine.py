"""DBOS in this process: launch, executor lock, recovery of dead executors.

The engine comes up in the background; `Engine.ready` is where callers wait for it.

Liveness needs no clock: every executor holds a lock for as long as its process lives, and the
kernel frees it at death. Whoever can take an executor's lock knows that it is dead.
"""

import asyncio
import hashlib
import logging
import os
import re
import sqlite3
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
from dbos import DBOS, DBOSConfig
from filelock import FileLock, Timeout

from fivetran_state import vault, workflow
from fivetran_state.config import Settings
from fivetran_state.errors import (
    EngineNotReady,
    FivetranStateError,
    FivetranUnavailable,
    MissingCredentials,
    RateLimited,
)
from fivetran_state.fivetran import Fivetran

if TYPE_CHECKING:
    from fivetran_state.sandbox import Sandbox

logger = logging.getLogger(__name__)

WORKFLOW_VERSION = 1
"""Raised only when the workflow's steps change in a way that an older checkpoint cannot follow."""

RECOVERY_INTERVAL = 2.0
START_RETRY = 5.0
START_PATIENCE = 20.0
"""Seconds that a call waits for the engine."""


class Engine:
    """One per process. `start` it on the event loop that shall run the workflows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.data_dir / "sandbox" if settings.sandbox else settings.data_dir
        self._executor_id = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._is_up = False
        self._trouble: FivetranStateError | None = None
        self._lock: FileLock | None = None
        self._fivetran: Fivetran | None = None
        self._sandbox: Sandbox | None = None
        self._launched = False

    def start(self) -> None:
        """Begin to come up, in the background."""
        self._tasks.append(asyncio.create_task(self._come_up()))

    async def ready(self) -> Fivetran:
        """Wait until workflows can run; the client of this process's account.

        Raises `MissingCredentials`, or what keeps the engine from coming up.
        """
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), START_PATIENCE)
        if self._is_up and self._fivetran is not None:
            return self._fivetran
        raise self._trouble or EngineNotReady("The workflow engine is still starting.")

    async def close(self) -> None:
        """Stop working; updates in flight stay in the database and are recovered."""
        for task in self._tasks:
            task.cancel()
        if self._launched:
            await asyncio.to_thread(DBOS.destroy)
        if self._fivetran is not None:
            await self._fivetran.aclose()
        if self._sandbox is not None:
            self._sandbox.close()
        if self._lock is not None:
            self._release(self._lock)

    async def _come_up(self) -> None:
        try:
            self._fivetran = self._connect()
            await asyncio.to_thread(self._prepare_home)
            self._launch(self._fivetran, await self._account(self._fivetran))
        except FivetranStateError as error:
            self._trouble = error
        except Exception as error:
            logger.exception("The workflow engine did not start")
            self._trouble = EngineNotReady(
                f"The workflow engine did not start ({type(error).__name__})."
            )
        else:
            self._is_up = True
            self._tasks.append(asyncio.create_task(self._recover_the_dead()))
        self._news.set()

    def _connect(self) -> Fivetran:
        settings = self._settings
        if settings.sandbox:
            from fivetran_state.sandbox import Sandbox  # Nobody else needs it.

            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sandbox = Sandbox(self._home / "world.db")
            transport = httpx.ASGITransport(self._sandbox.app)
            return Fivetran("http://sandbox", "sandbox", "sandbox", transport=transport)
        if settings.api_key is None or settings.api_secret is None:
            raise MissingCredentials("FIVETRAN_API_KEY and FIVETRAN_API_SECRET are not both set.")
        return Fivetran(
            settings.api_url,
            settings.api_key,
            settings.api_secret.get_secret_value(),
            timeout=settings.http_timeout,
        )

    def _prepare_home(self) -> None:
        """The data directory, private; in it the key, the database in WAL mode, our lock."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            self._home.chmod(0o700)
        self._executors.mkdir(mode=0o700, exist_ok=True)
        with FileLock(self._home / "setup.lock", mode=0o600):
            self._key = vault.load_or_make_key(self._home / "key")
            if self._settings.database_url is None:
                os.close(os.open(self._database, os.O_RDWR | os.O_CREAT, 0o600))
                connection = sqlite3.connect(self._database)
                connection.execute("PRAGMA journal_mode=WAL")
                connection.close()
        self._lock = self._lock_of(self._executor_id)
        self._lock.acquire(blocking=False)

    @property
    def _database(self) -> Path:
        return self._home / "state.db"

    @property
    def _executors(self) -> Path:
        return self._home / "executors"

    def _lock_of(self, executor_id: str) -> FileLock:
        return FileLock(self._executors / f"{executor_id}.lock", mode=0o600, thread_local=False)

    @staticmethod
    def _release(lock: FileLock) -> None:
        with suppress(OSError):  # Windows does not remove what is open.
            Path(lock.lock_file).unlink()
        lock.release()

    async def _account(self, fivetran: Fivetran) -> str:
        """Fivetran's own account id, remembered so that a start without Fivetran works.

        A key that may not ask stands for an account of its own.
        """
        if self._settings.sandbox:
            return "sandbox"
        fingerprint = self._settings.key_fingerprint
        remembered = self._home / "accounts" / fingerprint
        with suppress(FileNotFoundError):
            return remembered.read_text()
        while True:
            try:
                account = await fivetran.get_account_id()
                break
            except (FivetranUnavailable, RateLimited) as error:
                self._trouble = EngineNotReady(
                    "Fivetran has to be asked once which account the API key belongs to: "
                    + error.message
                )
                self._news.set()
                logger.warning("Cannot learn the account yet: %s", error.message)
                await asyncio.sleep(START_RETRY)
            except FivetranStateError as error:
                logger.warning("Fivetran does not tell the account: %s", error.message)
                return f"key-{fingerprint}"
        remembered.parent.mkdir(mode=0o700, exist_ok=True)
        partial = remembered.with_suffix(f".{os.getpid()}")
        partial.touch(mode=0o600)
        partial.write_text(account)
        partial.replace(remembered)
        return account

    def _launch(self, fivetran: Fivetran, account: str) -> None:
        """On the event loop itself: DBOS runs recovered workflows on the loop that launched it."""
        application = _application_name(account)
        workflow.bind(fivetran, application)
        DBOS(config=self._dbos_config(application, vault.SealingSerializer(self._key)))
        DBOS.launch()
        self._launched = True

    def _dbos_config(self, application: str, serializer: Any) -> DBOSConfig:
        conductor_key = self._settings.conductor_key
        return cast(
            DBOSConfig,
            {
                "name": application,
                "application_version": f"{application}-{WORKFLOW_VERSION}",
                "executor_id": self._executor_id,
                "system_database_url": self._settings.database_url
                or f"sqlite:///{self._database.absolute()}",
                "serializer": serializer,
                "log_level": "WARNING",
                "conductor_key": conductor_key and conductor_key.get_secret_value(),
            },
        )

    async def _recover_the_dead(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._recover_once)
            except Exception:
                logger.exception("Looking for dead executors failed; trying again")
            await asyncio.sleep(RECOVERY_INTERVAL)

    def _recover_once(self) -> None:
        pending = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        owners = {row.executor_id for row in pending if row.executor_id} - {self._executor_id}
        for executor_id in owners:
            lock = self._lock_of(executor_id)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                logger.warning("Recovering the updates of executor %s, which died", executor_id)
                _recover(executor_id)
            finally:
                self._release(lock)


def _application_name(account: str) -> str:
    """DBOS allows 3 to 256 of a-z, 0-9, - and _; other account ids go in as their hash."""
    if re.fullmatch(r"[a-z0-9_-]{1,200}", account) is None:
        account = hashlib.sha256(account.encode()).hexdigest()[:16]
    return f"fivetran-state-{account}"


def _recover(executor_id: str) -> None:
    # Private, and the only way there is: DBOS itself recovers nobody else's executors.
    DBOS._recover_pending_workflows([executor_id])
