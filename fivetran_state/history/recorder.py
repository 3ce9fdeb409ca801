"""Remembers the states that pass through this process, without making anybody wait."""

import asyncio
import logging
from collections import OrderedDict
from datetime import datetime

from fivetran_state import large, state
from fivetran_state.errors import FivetranStateError
from fivetran_state.fivetran_answers import Connection
from fivetran_state.history.store import HistoryStore
from fivetran_state.history.versions import SeenBy

logger = logging.getLogger(__name__)

AGAIN_AFTER = 60_000
"""Milliseconds until the same version is written down once more."""
MAX_REMEMBERED = 10_000
"""Connections whose last version a process keeps in mind."""
LARGE_AT_ONCE = 2
"""Large states of readers that are held until they are written down."""
LAST_WORDS = 2.0
"""Seconds that the end of the process waits for what is still to be written down."""


class Recorder:
    """One per process. If it cannot write something down, it logs that and tries at the next look."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._last: OrderedDict[str, tuple[str, int]] = OrderedDict()
        """By owner: the version that was noted last, and when."""
        self._places = asyncio.Semaphore(LARGE_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(
        self, owner: str, document: state.Document, version: str, at: int, connection: Connection
    ) -> None:
        """Note what a reader saw. It waits only for a place, and only with a large state."""
        if self._is_fresh(owner, version, at):
            return
        if not large.is_any(document):
            self._start(owner, document, version, at, connection=connection)
            return
        await self._places.acquire()
        task = self._start(owner, document, version, at, connection=connection)
        task.add_done_callback(lambda _: self._places.release())

    def saw(
        self, owner: str, document: state.Document, version: str, at: int, connection: Connection
    ) -> "asyncio.Task[None] | None":
        """Note what an update found; the task ends when it is written down."""
        if self._is_fresh(owner, version, at):
            return None
        return self._start(owner, document, version, at, connection=connection)

    def wrote(
        self, owner: str, document: state.Document, version: str, at: int, workflow_id: str
    ) -> "asyncio.Task[None]":
        """Note what an update wrote; the task ends when it is written down."""
        return self._start(owner, document, version, at, workflow_id=workflow_id)

    def _is_fresh(self, owner: str, version: str, at: int) -> bool:
        """True if this version was noted a moment ago."""
        last = self._last.get(owner)
        return last is not None and last[0] == version and at - last[1] < AGAIN_AFTER

    def _start(
        self,
        owner: str,
        document: state.Document,
        version: str,
        at: int,
        *,
        connection: Connection | None = None,
        workflow_id: str | None = None,
    ) -> "asyncio.Task[None]":
        self._last[owner] = version, at
        self._last.move_to_end(owner)
        if len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        task = asyncio.create_task(
            self._remember(owner, document, version, at, connection, workflow_id)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _remember(
        self,
        owner: str,
        document: state.Document,
        version: str,
        at: int,
        connection: Connection | None,
        workflow_id: str | None,
    ) -> None:
        try:
            seen_by = SeenBy.UPDATE
            if connection is not None:
                latest = await self._store.latest(owner)
                since = 0 if latest is None else latest.last_seen
                seen_by = SeenBy.SYNC if has_synced(connection, since) else SeenBy.OTHERS
            text = await large.run(state.dump, document)
            del document
            await self._store.remember(owner, text, version, seen_by, at, workflow_id)
        except FivetranStateError as error:
            self._last.pop(owner, None)
            logger.warning("A version of %s was not remembered: %s", owner, error)
        except Exception:
            self._last.pop(owner, None)
            logger.exception("A version of a state was not remembered")

    async def close(self) -> None:
        """Wait a moment for what is still to be written down."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=LAST_WORDS)


def has_synced(connection: Connection, since: int) -> bool:
    """True if a sync is running, or has ended since this time (milliseconds since 1970)."""
    ends = [_milliseconds(each) for each in (connection.succeeded_at, connection.failed_at)]
    since -= since % 1000  # Fivetran's times may have no parts of a second.
    return connection.sync_state == "syncing" or any(end >= since for end in ends)


def _milliseconds(time: str | None) -> float:
    """Fivetran's time, ISO 8601 in UTC; 0 without one."""
    if time is None:
        return 0
    try:
        return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() * 1000
    except ValueError:
        return 0
