"""What a connection's state was, and what moved it."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any

from fivetran_state import large, state
from fivetran_state.errors import FivetranStateError, InvalidRequest, NotRemembered
from fivetran_state.history import timeline
from fivetran_state.history.timeline import Move
from fivetran_state.history.versions import Page, SeenBy, Version
from fivetran_state.history.warnings import warnings_for
from fivetran_state.ids import UpdateId, is_update_number
from fivetran_state.models import Change, Difference, HistoryEntry, HistoryPage, Seen
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.refusals import not_a_cursor
from fivetran_state.service.times import milliseconds
from fivetran_state.text import literal, quoted, shown
from fivetran_state.updates import records
from fivetran_state.updates.updates import Updates

SHOWN_WARNINGS = 5
_VERSIONS_OF_UPDATE = 5
"""Read at once: an update makes two at most, and others may make some within a second of it."""

_SHOWN = {
    "workflow_id",
    "part_of",
    "status",
    "change",
    "reason",
    "asked_by",
    "agreed_by",
    "error",
}
"""What an entry says of its update."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_VERSION = re.compile("[0-9a-fA-F]{8,32}")


@dataclass(frozen=True)
class Past:
    """A state that a connection had."""

    document: state.Document
    version: str
    seen: Seen | None
    """None for the present state."""


class History:
    """Reads the history of one account's connections, deleted ones too."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def at(self, connection_id: str, at: str, *, what: str = "at") -> Past:
        """The state at a time, a version, or the state before an update.

        Raises `InvalidRequest` for anything else, and `NotRemembered` if that state is not known.
        """
        updates = await self._caller.updates()
        await self._caller.fivetran_for(connection_id)  # It checks the id.
        owner = await self._caller.owner(connection_id)
        if _TIME.match(at):
            return await self._at_time(updates, owner, connection_id, milliseconds(at, what))
        if _VERSION.fullmatch(at):
            found = await updates.history.by_version(owner, at.lower())
            if found is None:
                raise NotRemembered(f"{connection_id} had no version {at} that was seen.")
            return await _past(updates, found, _seen(found))
        return await self._before_update(updates, connection_id, at, what)

    async def _at_time(self, updates: Updates, owner: str, connection_id: str, moment: int) -> Past:
        found = await updates.history.at(owner, moment)
        if found is None:
            raise NotRemembered(
                f"Nobody had looked at {connection_id} by {views.time_text(moment)}."
            )
        seen = _seen(found.version, found.next_seen, is_certain=found.is_certain)
        return await _past(updates, found.version, seen)

    async def _before_update(
        self, updates: Updates, connection_id: str, workflow_id: str, what: str
    ) -> Past:
        try:
            owner = UpdateId.parse(workflow_id).owner
        except InvalidRequest:
            owner = None
        if owner != await self._caller.owner(connection_id):
            raise InvalidRequest(
                f"{what} '{shown(workflow_id)}' is not a time with a zone, such as "
                f"2026-11-24T08:00Z, not a version, and not an update of {connection_id}."
            )
        update = await updates.store.get(workflow_id)
        document = await large.run(state.document, await updates.store.state_before(update))
        # The update found it when it began, and nobody knows for how long it had been there.
        started = views.time_text(_began(update))
        seen = Seen(seen_from=started, seen_until=started)
        return Past(document, await large.run(state.version, document), seen)

    async def warnings(
        self, connection_id: str, before: state.Document, after: state.State
    ) -> tuple[str, ...]:
        """Sentences on what is unusual about the change, by the states that the connection had."""
        updates = await self._caller.updates()
        now = time.time_ns() // 1_000_000
        try:
            known = await updates.history.known(await self._caller.owner(connection_id))
        except FivetranStateError as error:
            return (
                f"The state history cannot be read, so nothing unusual is named: {error.message}",
            )
        odd = await large.run(warnings_for, before, after, known, now)
        told = [
            f"Unusual: {quoted(each.path)} becomes {literal(each.new)}, {each.kind.value}; usual: "
            f"{literal(each.usual)}."
            for each in odd.first[:SHOWN_WARNINGS]
        ]
        more = odd.total - len(told)
        return (*told, f"{more} more values are unusual.") if more else tuple(told)

    async def difference(
        self, connection_id: str, from_: str, to: str | None = None, *, path: str | None = None
    ) -> Difference:
        """The differences between two states, at or below the path; without `to`, to the present one."""
        before, after = await self.pair(connection_id, from_, to)
        try:
            changes, total = await large.run(
                timeline.between, before.document, after.document, path
            )
        except state.NotThere as error:
            raise InvalidRequest(f"path: {error}") from error
        return Difference(
            connection_id=connection_id,
            version_before=before.version,
            version_after=after.version,
            seen_before=before.seen,
            seen_after=after.seen,
            changes=changes,
            changes_total=total,
        )

    async def pair(
        self, connection_id: str, from_: str, to: str | None = None
    ) -> tuple[Past, Past]:
        """Two states in full; without `to`, the second is the present one."""
        before = await self.at(connection_id, from_, what="from")
        if to is not None:
            return before, await self.at(connection_id, to, what="to")
        fivetran = await self._caller.fivetran_for(connection_id)
        _, document, version = await self._caller.read(fivetran, connection_id)
        return before, Past(document, version, None)

    async def time_line(
        self,
        connection_id: str,
        *,
        kind: str | None = None,
        since: str | None = None,
        until: str | None = None,
        path: str | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> HistoryPage:
        """The versions that the state had, and the updates that made none, newest first.

        With `path`, a JSON Pointer, only versions in which the value there moved: a page may then
        have fewer entries than `limit`, and still a `next_cursor`. Raises `InvalidRequest`.
        """
        updates = await self._caller.updates()
        await self._caller.fivetran_for(connection_id)  # It checks the id.
        owner = await self._caller.owner(connection_id)
        before, below = _positions(cursor)
        wanted = set(SeenBy) if kind is None else {_kind(kind)}
        start = None if since is None else milliseconds(since, "since")
        end = None if until is None else milliseconds(until, "until")
        page = await updates.history.page(
            owner, before=before, limit=limit, kinds=wanted, since=start, until=end
        )
        found = await self._versions(updates, page, path)
        floor = start or 0
        if page.next_cursor is not None:
            floor = page.entries[-1].version.first_seen
        has_all = True
        if path is None and SeenBy.UPDATE in wanted:
            others, has_all = await _without_version(updates, owner, below, floor, end, limit)
            found += others
        found.sort(key=lambda each: each.at, reverse=True)
        shown = found[:limit]
        has_more = page.next_cursor is not None or not has_all or len(found) > limit
        for each in shown:
            before, below = each.position or before, each.number or below
        if path is not None:
            before = page.next_cursor
        return HistoryPage(
            entries=[each.entry for each in shown],
            next_cursor=f"{before or ''}/{below or ''}" if has_more else None,
            message=None if shown or has_more else await self._nothing(connection_id, path),
        )

    async def _versions(self, updates: Updates, page: Page, path: str | None) -> list["_Placed"]:
        try:
            moves = await asyncio.to_thread(
                timeline.moves, page.entries, updates.history.read, path
            )
        except state.NotThere as error:
            raise InvalidRequest(f"path: {error}") from error
        made_by = {each.version.workflow_id for each in moves if each.version.workflow_id}
        by_id = {each.workflow_id: each for each in await updates.listings.by_ids(list(made_by))}
        return [_version(move, by_id.get(move.version.workflow_id or "")) for move in moves]

    async def _nothing(self, connection_id: str, path: str | None) -> str:
        if path is not None:
            return f"Nothing is known to have moved at this path of {connection_id}."
        fivetran = await self._caller.fivetran_for(connection_id)
        await fivetran.get_connection(connection_id)
        days = self._caller.settings.retention_days
        kept = f" of the last {days:g} days" if days else ""
        return (
            f"Nothing{kept} is known. A state is remembered when it is read, planned or changed "
            "through this server."
        )


@dataclass(frozen=True)
class _Placed:
    """An entry and its place: in the order of versions, or of updates."""

    at: int
    entry: HistoryEntry
    position: str | None = None
    number: int | None = None


def _version(move: Move, update: records.Update | None) -> _Placed:
    version = move.version
    entry = HistoryEntry(
        at=views.time_text(version.first_seen),
        kind=version.seen_by.value,
        version=version.version,
        seen_until=views.time_text(version.last_seen),
        changes=None if move.is_oldest else move.changes,
        changes_total=None if move.is_oldest else move.total,
        **({"workflow_id": version.workflow_id} if update is None else _about(update)),
    )
    first_seen, ordinal = version.position
    return _Placed(version.first_seen, entry, position=f"{first_seen}:{ordinal}")


def _update(update: records.Update) -> _Placed:
    outcome = update.outcome
    entry = HistoryEntry(
        at=views.time_text(_began(update)),
        kind="update",
        version=None if outcome is None else outcome["version_after"],
        changes=None if outcome is None else [Change(**each) for each in outcome["changes"]],
        changes_total=None if outcome is None else outcome["changes_total"],
        **_about(update),
    )
    return _Placed(_began(update), entry, number=UpdateId.parse(update.workflow_id).number)


def _began(update: records.Update) -> int:
    """When, in milliseconds since 1970. SQLite's own times may have no parts of a second."""
    asked_at = update.request.get("asked_at")
    return update.created_at if asked_at is None else int(asked_at * 1000)


def _about(update: records.Update) -> dict[str, Any]:
    summary = views.summary(update)
    return summary.model_dump(include=_SHOWN)


async def _without_version(
    updates: Updates, owner: str, below: int | None, floor: int, end: int | None, limit: int
) -> tuple[list[_Placed], bool]:
    """Updates that made no version that is remembered, from `floor` on; true if there are no earlier ones."""
    found: list[_Placed] = []
    while page := await updates.listings.history(owner, below, limit):
        for update in page:
            if _began(update) < floor or len(found) > limit:
                return found, False
            is_in_time = end is None or _began(update) < end
            if is_in_time and not await _has_version(updates, owner, update):
                found.append(_update(update))
        below = UpdateId.parse(page[-1].workflow_id).number
    return found, True


async def _has_version(updates: Updates, owner: str, update: records.Update) -> bool:
    """True if the history shows the update as what made a version, also while it runs or if it failed."""
    if update.outcome is not None and update.outcome["outcome"] == "unchanged":
        return False
    until = None if update.completed_at is None else update.completed_at + 1000
    cursor = None
    while True:
        page = await updates.history.page(
            owner,
            before=cursor,
            since=update.created_at,
            until=until,
            kinds={SeenBy.UPDATE},
            limit=_VERSIONS_OF_UPDATE,
        )
        if any(each.version.workflow_id == update.workflow_id for each in page.entries):
            return True
        if (cursor := page.next_cursor) is None:
            return False


def _kind(text: str) -> SeenBy:
    try:
        return SeenBy(text)
    except ValueError:
        known = ", ".join(kind.value for kind in SeenBy)
        raise InvalidRequest(f"kind '{shown(text)}' is not one of: {known}.") from None


def _positions(cursor: str | None) -> tuple[str | None, int | None]:
    """The last version and the last update that were shown."""
    if cursor is None:
        return None, None
    version, slash, number = cursor.partition("/")
    if not slash or (number and not is_update_number(number)):
        raise not_a_cursor(cursor)
    return version or None, int(number) if number else None


async def _past(updates: Updates, version: Version, seen: Seen) -> Past:
    text = await updates.history.document(version)
    return Past(await large.run(state.document, text), version.version, seen)


def _seen(
    version: Version, next_seen: int | None = None, *, is_certain: bool | None = None
) -> Seen:
    return Seen(
        seen_from=views.time_text(version.first_seen),
        seen_until=views.time_text(version.last_seen),
        next_seen=None if next_seen is None else views.time_text(next_seen),
        is_certain=is_certain,
        kind=version.seen_by.value,
        workflow_id=version.workflow_id,
    )
