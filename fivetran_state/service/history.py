"""What a connection's state was, and what moved it."""

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from pydantic import AwareDatetime, TypeAdapter, ValidationError

from fivetran_state import large, state
from fivetran_state.errors import InvalidRequest, NotRemembered
from fivetran_state.history import timeline
from fivetran_state.history.timeline import Move
from fivetran_state.history.versions import SeenBy, Version
from fivetran_state.ids import UpdateId
from fivetran_state.models import Difference, HistoryEntry, HistoryPage, Seen
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.text import shown
from fivetran_state.updates import records
from fivetran_state.updates.updates import Updates

Kind = Literal["sync", "update", "others", "first look"]

_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_VERSION = re.compile("[0-9a-fA-F]{8,32}")
_parse_time = TypeAdapter(AwareDatetime).validate_python


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
        await self._caller.account()
        self._caller.check(connection_id)
        owner = await self._caller.owner(connection_id)
        if _TIME.match(at):
            return await self._at_time(updates, owner, connection_id, _milliseconds(at, what))
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
        document = await large.run(state.document, await updates.store.state_before(workflow_id))
        # The update found it when it began, and nobody knows for how long it had been there.
        started = views.time_text(update.created_at)
        seen = Seen(seen_from=started, seen_until=started)
        return Past(document, await large.run(state.version, document), seen)

    async def difference(
        self, connection_id: str, from_: str, to: str | None = None, *, path: str | None = None
    ) -> Difference:
        """The differences between two states, at or below the path; without `to`, to the present one."""
        before = await self.at(connection_id, from_, what="from")
        if to is None:
            fivetran = await self._caller.fivetran_for(connection_id)
            _, document = await self._caller.read(fivetran, connection_id)
            after = Past(document, await large.run(state.version, document), None)
        else:
            after = await self.at(connection_id, to, what="to")
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

    async def time_line(
        self,
        connection_id: str,
        *,
        kinds: Collection[Kind] | None = None,
        since: str | None = None,
        until: str | None = None,
        path: str | None = None,
        cursor: str | None = None,
        limit: int = 20,
    ) -> HistoryPage:
        """The versions that the state had, newest first, each with what moved it and how.

        With `path`, a JSON Pointer, only those in which the value there moved: a page may then have
        fewer entries than `limit`, and still a `next_cursor`. Raises `InvalidRequest`.
        """
        updates = await self._caller.updates()
        await self._caller.account()
        self._caller.check(connection_id)
        page = await updates.history.page(
            await self._caller.owner(connection_id),
            before=cursor,
            limit=limit,
            kinds=None if kinds is None else {SeenBy(kind) for kind in kinds},
            since=None if since is None else _milliseconds(since, "since"),
            until=None if until is None else _milliseconds(until, "until"),
        )
        try:
            moves = await asyncio.to_thread(
                timeline.moves, page.entries, updates.history.read, path
            )
        except state.NotThere as error:
            raise InvalidRequest(f"path: {error}") from error
        made_by = {each.version.workflow_id for each in moves} - {None}
        found = await updates.listings.by_ids([id_ for id_ in made_by if id_ is not None])
        by_id = {update.workflow_id: update for update in found}
        return HistoryPage(
            entries=[_entry(move, by_id.get(move.version.workflow_id or "")) for move in moves],
            next_cursor=page.next_cursor,
            message=None if moves or page.next_cursor else _nothing(connection_id, path),
        )


def _entry(move: Move, update: records.Update | None) -> HistoryEntry:
    version = move.version
    return HistoryEntry(
        kind=version.seen_by.value,
        version=version.version,
        seen_from=views.time_text(version.first_seen),
        seen_until=views.time_text(version.last_seen),
        workflow_id=version.workflow_id,
        reason=None if update is None else views.reason_of(update),
        changes=None if move.is_oldest else move.changes,
        changes_total=None if move.is_oldest else move.total,
    )


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


def _milliseconds(time: str, what: str) -> int:
    try:
        return int(_parse_time(time).timestamp() * 1000)
    except ValidationError:
        raise InvalidRequest(
            f"{what} '{shown(time)}' is not a time with a zone, such as 2026-11-24T08:00Z."
        ) from None


def _nothing(connection_id: str, path: str | None) -> str:
    if path is not None:
        return f"Nothing moved at this path of {connection_id} on this page."
    return (
        f"No state of {connection_id} has been seen yet. States are remembered when they are read, "
        "planned or changed through this server, and when it watches."
    )
