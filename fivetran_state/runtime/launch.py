"""DBOS, launched on the event loop that runs this process's updates."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

from dbos import DBOS, DBOSConfig, Serializer

from fivetran_state import database
from fivetran_state.approvers import Approvers
from fivetran_state.config import Settings
from fivetran_state.errors import UnusableSettings
from fivetran_state.events import Events
from fivetran_state.history.recorder import Recorder
from fivetran_state.pages import Pages
from fivetran_state.runtime.accounts import Accounts, Own
from fivetran_state.runtime.announcer import Announcer
from fivetran_state.runtime.lease import Lease, Refusals
from fivetran_state.runtime.locks import Locks
from fivetran_state.runtime.recovery import Recovery, versions
from fivetran_state.runtime.storage import TRANSACTION_TIMEOUT, Storage, open_storage
from fivetran_state.updates import records
from fivetran_state.updates.background import Background
from fivetran_state.updates.decisions import Decisions
from fivetran_state.updates.notices import Notices
from fivetran_state.updates.running import Running
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.series import Series
from fivetran_state.updates.slots import Slots
from fivetran_state.updates.store import Store
from fivetran_state.updates.updates import Updates
from fivetran_state.watch import look
from fivetran_state.watch.look import LookWorkflow, series_name
from fivetran_state.watch.watcher import Watcher
from fivetran_state.webhook import Webhook

MESSAGE_INTERVAL = 0.2
"""Seconds until a workflow notices a message, if the database does not notify."""


@dataclass(frozen=True)
class Launched:
    """What runs in this process once DBOS is launched."""

    storage: Storage
    accounts: Accounts
    lease: Lease
    updates: Updates
    recovery: Recovery
    background: Background
    watcher: Watcher
    announcer: Announcer

    async def stop(self) -> None:
        self.background.end()
        await self.updates.runtime.recorder.close()
        await _destroy()
        self.storage.close()


async def launch(
    settings: Settings,
    own: Own,
    own_id: str,
    application: str,
    executor_id: str,
    locks: Locks,
    events: Events,
) -> Launched:
    """Prepare the database and launch DBOS: it runs recovered workflows on the loop that launched it.

    Raises `UnusableKey`, `UnusableSettings`, `DatabaseUnavailable`, `OSError` or `SQLAlchemyError`.
    """
    conductor_key = settings.conductor_key
    if conductor_key and find_spec("dbos_enterprise") is None:
        raise UnusableSettings(
            "DBOS_CONDUCTOR_KEY is set, but the package that it needs is not installed: "
            "pip install 'dbos[enterprise]'."
        )
    storage = await asyncio.to_thread(open_storage, settings, application)
    try:
        series = Series(storage.reader, storage.marks)
        store = Store(storage.reader, series, application)
        refusals = Refusals()
        looks_series = series_name(application, settings)
        background = Background()
        has_address = settings.notify_url is not None
        notices = Notices(storage.reader, Webhook(settings), background, has_address)
        lease = Lease(executor_id, settings, locks, store, notices, refusals, looks_series, events)
        accounts = Accounts(settings, events, own, own_id, storage.texts, refusals.has_given_up)
        recorder = Recorder(storage.history)
        running = Running()
        runtime = Runtime(
            application,
            accounts,
            lease,
            running,
            store,
            Slots(settings.concurrency),
            Decisions(store, running),
            recorder,
            events,
        )
        updates = Updates(
            runtime,
            storage.reader,
            storage.marks,
            storage.history,
            storage.texts,
            storage.serializer.digest,
            Approvers(settings),
            notices,
            Pages(settings.public_url),
        )
        looks = LookWorkflow(
            series,
            storage.reader,
            storage.history,
            own.fivetran,
            settings,
            looks_series,
            background,
            events,
            running.taken_up,
        )
        watcher = Watcher(series, storage.reader, own.fivetran, settings, looks, looks_series)
        await storage.history.prepare()
        await asyncio.to_thread(storage.marks.prepare, (records.NAME, look.NAME))
        await asyncio.to_thread(locks.hold, executor_id)
        is_open = await asyncio.to_thread(_take_over_0_1, storage, updates, locks)
        DBOS(config=_config(settings, storage, application, executor_id))
        DBOS.launch()
        if DBOS.executor_id != lease.executor_id:
            # With a Conductor, DBOS names its executor itself.
            lease.executor_id = DBOS.executor_id
            await asyncio.to_thread(locks.hold, lease.executor_id)
    except BaseException:
        await _destroy()  # DBOS can be launched only once.
        storage.close()
        raise
    recovery = Recovery(
        updates,
        lease,
        locks,
        refusals,
        own.fivetran,
        storage.migration if is_open else None,
        asyncio.get_running_loop(),
        background.running,
    )
    announcer = Announcer(settings, accounts, updates)
    return Launched(storage, accounts, lease, updates, recovery, background, watcher, announcer)


def _take_over_0_1(storage: Storage, updates: Updates, locks: Locks) -> bool:
    """Take over the updates of 0.1 that no server of 0.1 is running; true if some are left."""
    with database.answering():
        if not storage.migration.is_open():
            storage.canary.check()
            storage.migration.close()
            return False
        storage.migration.take_ended()
        for row in updates.unfinished.rows():
            with locks.take(row.executor_id or "unknown") as is_dead:
                if is_dead:
                    storage.migration.take(row.workflow_id)
        return True


def _config(settings: Settings, storage: Storage, application: str, executor_id: str) -> DBOSConfig:
    key = settings.conductor_key
    return {
        "name": application,
        "application_version": versions(application)[0],
        "executor_id": executor_id,
        "system_database_url": storage.url,
        "serializer": cast(Serializer, storage.serializer),
        "log_level": "WARNING",
        # For SQLite, which cannot notify. DBOS polls only while a workflow waits.
        "notification_listener_polling_interval_sec": MESSAGE_INTERVAL,
        "sys_db_idle_transaction_timeout_sec": TRANSACTION_TIMEOUT,  # The default of DBOS is 60.
        "conductor_key": None if key is None else key.get_secret_value(),
    }


async def _destroy() -> None:
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
    # DBOS leaves its closed thread pool behind as the loop's.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
