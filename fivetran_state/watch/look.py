"""One look: lists the account's connections and reads the states that syncs have moved since the last one.

A DBOS workflow: list → read, 20 connections at a time → forget. Each look returns a mark for every
connection whose state is remembered: the times at which Fivetran says that its last syncs ended. The
next look reads the connections whose times differ, beginning with those that were not read the longest:
if there are more of them than calls, each has its turn. A state is remembered before its mark is recorded,
so a look that is killed anywhere leaves no gap: at worst a state is read twice.
"""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Container
from dataclasses import asdict
from typing import Any

from dbos import DBOS
from typing_extensions import TypedDict

from fivetran_state import large, state
from fivetran_state.config import Settings
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    FivetranUnavailable,
    MissingCredentials,
    NoStateYet,
    RateLimited,
    Tampered,
    Unauthorized,
    UnusableKey,
)
from fivetran_state.events import Event, Events, Name
from fivetran_state.fivetran import Fivetran
from fivetran_state.fivetran_answers import Connection
from fivetran_state.history.recorder import has_synced
from fivetran_state.history.store import HistoryStore
from fivetran_state.history.versions import SeenBy
from fivetran_state.updates import binding, statuses
from fivetran_state.updates.background import Background
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.series import Series, number
from fivetran_state.vault import Bound

logger = logging.getLogger(__name__)

NAME = "look"
PAGE = 1000
"""Connections on a page of Fivetran's list: its maximum."""
BATCH = 20
"""Connections that one step reads: so many are read again if the process dies."""
AT_ONCE = 4
"""States that are read at the same time."""
MAX_FORGOTTEN = 20
"""Deleted connections whose history one look forgets: each takes a call."""

_ID = re.compile("watch:[0-9a-f]{16}:[0-9]+")
_DAY = 86_400_000
_FAILED = ""
"""A mark that no connection has, so that the next look tries again."""


class Looked(TypedDict):
    """What a look leaves for the next one."""

    marks: dict[str, str]
    """Connection id → the ends of its last syncs, for each state that is remembered; `_FAILED` for one
    that could not be read. In the order in which they were last read or tried."""
    troubles: dict[str, str]
    """Connection id → the code of the error that kept its state from being remembered."""
    absent: list[str]
    """Connections with an old history that Fivetran does not list, but may still have."""
    keeping: int
    """Connections that keep a state, as far as they were listed."""
    read: int
    """States that were read."""
    stopped_by: str | None
    """What ended the look early. The next one goes on."""


class Listing(TypedDict):
    """What the step `list` records."""

    moved: list[dict[str, Any]]
    """`fivetran_answers.Connection` of each one whose syncs' ends differ from its mark."""
    gone: list[str]
    """Connections with a mark that Fivetran does not list any more."""
    absent: list[str]
    """Connections that are not listed, and were last seen before the retention."""
    keeping: int
    stopped_by: str | None


class Batch(TypedDict):
    """What the step `read` records."""

    read: list[str]
    troubles: dict[str, str]
    stopped_by: str | None


_NOTHING = Looked(marks={}, troubles={}, absent=[], keeping=0, read=0, stopped_by=None)


def series_name(application: str, settings: Settings) -> str:
    """The name of the series of looks of one account at the connections that the operator allows.

    Processes that may use other connections look for themselves.
    """
    scope = f"{application}\n{settings.allowed_connections}"
    return f"watch:{hashlib.sha256(scope.encode()).hexdigest()[:16]}"


def is_look(workflow_id: str) -> bool:
    return _ID.fullmatch(workflow_id) is not None


class LookWorkflow:
    """The DBOS workflow that looks once."""

    def __init__(
        self,
        series: Series,
        reader: Reader,
        history: HistoryStore,
        fivetran: Fivetran | None,
        settings: Settings,
        series_name: str,
        background: Background,
        events: Events,
        taken_up: Container[str],
    ) -> None:
        """Register the workflow with DBOS, which must not have been launched."""
        self._series = series
        self._reader = reader
        self._history = history
        self._fivetran = fivetran
        self._settings = settings
        self._series_name = series_name
        self._events = events
        self._taken_up = taken_up
        self.is_key_refused = False
        """Whether Fivetran refused this process's key at the last look that it ran."""

        @DBOS.workflow(name=NAME, max_recovery_attempts=None)
        async def look(asked: Bound) -> Bound:
            workflow_id = DBOS.workflow_id or ""
            place = binding.output_of(workflow_id)
            with background.here(workflow_id), binding.bound_errors(place):
                binding.opened(asked, binding.input_of(workflow_id, NAME))
                return Bound(place, dict(await self._look(workflow_id)))

        self.registered = look
        """Returns a `Looked`."""

    async def _look(self, workflow_id: str) -> Looked:
        began = time.monotonic()
        before = await self.last_before(workflow_id)
        listing = await self._list(before)
        gone = set(listing["gone"])
        marks = {id_: mark for id_, mark in before["marks"].items() if id_ not in gone}
        troubles = {id_: code for id_, code in before["troubles"].items() if id_ not in gone}
        looked = Looked(
            marks=marks,
            troubles=troubles,
            absent=before["absent"],
            keeping=listing["keeping"],
            read=0,
            stopped_by=listing["stopped_by"],
        )
        self._log_cost(listing, before)
        turns = {id_: turn for turn, id_ in enumerate(before["marks"])}
        # Those that failed have their turn like the others, so neither keeps the other from being read.
        moved = sorted(listing["moved"], key=lambda each: turns.get(each["id"], -1))
        for start in range(0, len(moved), BATCH):
            if looked["stopped_by"] is not None:
                break
            batch = await self._read(moved[start : start + BATCH])
            _add(looked, batch, {each["id"]: _mark(each) for each in moved})
            _log_troubles(batch["troubles"], before["troubles"])
        if looked["stopped_by"] is None:
            looked["absent"] = await self._forget(listing["absent"], before["absent"])
        _log(looked, before)
        self._tell(looked, workflow_id, time.monotonic() - began)
        return looked

    def _tell(self, looked: Looked, workflow_id: str, seconds: float) -> None:
        self._events.record(
            Event(
                Name.LOOKED,
                workflow_id=workflow_id,
                outcome="complete" if looked["stopped_by"] is None else "stopped",
                seconds=seconds,
                count=looked["read"],
                replayed=workflow_id in self._taken_up,
            )
        )

    async def last_before(self, workflow_id: str) -> Looked:
        """What the last look before this one left.

        Nothing if that cannot be read: then every state is read again, and none is missed.
        """
        ended = [
            row.workflow_id
            for row in await self._series.newest(self._series_name)
            if row.name == NAME
            and statuses.succeeded(row)
            and number(row.workflow_id) < number(workflow_id)
        ]
        rows = await self._reader.find(workflow_ids=ended[:1], load_output=True) if ended else []
        if not rows:
            return _NOTHING
        [last] = rows
        try:
            found: Looked = binding.opened(last.output, binding.output_of(last.workflow_id))
            return found
        except (Tampered, UnusableKey) as error:
            logger.warning("Every state is read again: %s", error)
            return _NOTHING

    @binding.step("list")
    async def _list(self, before: Looked) -> Listing:
        """Page through the list. It is listed anew if the process dies: that takes few calls."""
        found: list[Connection] = []
        listed: set[str] = set()
        cursor: str | None = None
        stopped_by: str | None = None
        try:
            fivetran = self._client()
            while True:
                page, cursor = await fivetran.list_connections(cursor=cursor, limit=PAGE)
                listed |= {each.id for each in page}
                found += [
                    each for each in page if each.keeps_state and self._settings.allows(each.id)
                ]
                stopped_by = self._reason_to_give_way()
                if cursor is None or stopped_by is not None:
                    break
            self.is_key_refused = False
        except (FivetranError, MissingCredentials) as error:
            self.is_key_refused = isinstance(error, Unauthorized)
            stopped_by = str(error)
        is_complete = cursor is None and bool(listed)
        marks = before["marks"]
        mine = {id_ for id_ in marks.keys() | before["troubles"] if self._settings.allows(id_)}
        moved = [asdict(each) for each in found]
        return Listing(
            moved=[each for each in moved if marks.get(each["id"]) != _mark(each)],
            gone=sorted(mine - listed) if is_complete else [],
            absent=await self._absent(listed) if is_complete else [],
            keeping=len(found),
            stopped_by=stopped_by,
        )

    def _log_cost(self, listing: Listing, before: Looked) -> None:
        """Log how many calls the look is going to take, at most."""
        if listing["stopped_by"] is not None:
            return
        new = len([each for each in listing["absent"] if each not in before["absent"]])
        limit = None if self._fivetran is None else self._fivetran.limit
        logger.info(
            "Looking at the states of %d of %d connections. It takes %d more calls at most%s",
            len(listing["moved"]),
            listing["keeping"],
            len(listing["moved"]) + min(new, MAX_FORGOTTEN),
            "" if limit is None else f" of the {limit.remaining} that are left in this hour",
        )

    def _client(self) -> Fivetran:
        if self._fivetran is None:
            raise MissingCredentials("This server has no API key of its own.")
        return self._fivetran

    def _reason_to_give_way(self) -> str | None:
        limit = self._client().limit
        if limit is None or not limit.is_low:
            return None
        return f"only {limit.remaining} of {limit.limit} calls an hour are left for updates"

    async def _absent(self, listed: set[str]) -> list[str]:
        """Connections that are not listed, and were last seen before the retention."""
        days = self._settings.retention_days
        if not days:
            return []
        kept_from = _now() - days * _DAY
        absent = []
        for owner in await self._history.owners():
            # A guest's owner has a slash.
            if "/" in owner or owner in listed or not self._settings.allows(owner):
                continue
            try:
                latest = await self._history.latest(owner)
            except (Tampered, UnusableKey):
                continue
            if latest is not None and latest.last_seen < kept_from:
                absent.append(owner)
        return absent

    @binding.step("read")
    async def _read(self, connections: list[dict[str, Any]]) -> Batch:
        """Read the states and remember them."""
        batch = Batch(read=[], troubles={}, stopped_by=None)
        few = asyncio.Semaphore(AT_ONCE)

        async def read(connection: Connection) -> None:
            async with few:
                batch["stopped_by"] = batch["stopped_by"] or self._reason_to_give_way()
                if batch["stopped_by"] is not None:
                    return
                try:
                    await self._remember(connection)
                    batch["read"].append(connection.id)
                except (RateLimited, Unauthorized) as error:
                    batch["stopped_by"] = str(error)
                except FivetranStateError as error:
                    batch["troubles"][connection.id] = error.code
                    is_down = isinstance(error, FivetranUnavailable) and not batch["read"]
                    if is_down and len(batch["troubles"]) == BATCH:
                        batch["stopped_by"] = str(error)

        await asyncio.gather(*(read(Connection(**each)) for each in connections))
        return batch

    async def _remember(self, connection: Connection) -> None:
        """Remember the state that the connection has now, if it has one."""
        try:
            document = await self._client().get_state(connection.id)
        except NoStateYet:
            return
        at = _now()
        text = await large.run(state.dump, document)
        version = await large.run(state.version, document)
        latest = await self._history.latest(connection.id)
        since = 0 if latest is None else latest.last_seen
        seen_by = SeenBy.SYNC if has_synced(connection, since) else SeenBy.OTHERS
        await self._history.remember(connection.id, text, version, seen_by, at)

    @binding.step("forget")
    async def _forget(self, absent: list[str], known: list[str]) -> list[str]:
        """Forget the history of deleted connections; returns those that are not deleted.

        A key may see only some connections, so one that is not listed is asked for, once.
        """
        kept = [each for each in known if each in absent]
        for connection_id in [each for each in absent if each not in known][:MAX_FORGOTTEN]:
            try:
                await self._client().get_connection(connection_id)
            except ConnectionNotFound:
                await self._history.forget(connection_id)
                logger.info("%s was deleted: its history is forgotten", connection_id)
                continue
            except (RateLimited, Unauthorized, FivetranUnavailable):
                break
            except FivetranError:
                pass
            kept.append(connection_id)
        return kept


def _add(looked: Looked, batch: Batch, marks: dict[str, str]) -> None:
    for connection_id in [*batch["read"], *batch["troubles"]]:
        looked["marks"].pop(connection_id, None)  # To put it at the end.
        has_failed = connection_id in batch["troubles"]
        looked["marks"][connection_id] = _FAILED if has_failed else marks[connection_id]
        looked["troubles"].pop(connection_id, None)
    looked["troubles"] |= batch["troubles"]
    looked["read"] += len(batch["read"])
    looked["stopped_by"] = batch["stopped_by"]


def _mark(connection: dict[str, Any]) -> str:
    return f"{connection['succeeded_at'] or '-'} {connection['failed_at'] or '-'}"


def _now() -> int:
    return time.time_ns() // 1_000_000


def _log_troubles(troubles: dict[str, str], before: dict[str, str]) -> None:
    """Log each trouble once, not at each look."""
    for connection_id, code in troubles.items():
        if before.get(connection_id) != code:
            logger.warning(
                "The state of %s was not read (%s); each look tries again", connection_id, code
            )


def _log(looked: Looked, before: Looked) -> None:
    reason = looked["stopped_by"]
    if reason is None:
        logger.info(
            "Looked at %d connections that keep a state, and read %d states",
            looked["keeping"],
            looked["read"],
        )
    elif before["stopped_by"] is None:
        logger.warning(
            "The look ended early, and the next one goes on: %s", reason.removesuffix(".")
        )
