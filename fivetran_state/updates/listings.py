"""Lists of updates, newest first, page by page."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, cast

from dbos import WorkflowStatus

from fivetran_state.errors import UnusableKey
from fivetran_state.ids import UpdateId
from fivetran_state.updates import records, statuses
from fivetran_state.updates.reader import ID_BATCH, READ_BATCH, Reader
from fivetran_state.updates.records import ABOUT, Update, UpdateRequest
from fivetran_state.updates.series import MARKED_EVERY, RECENT
from fivetran_state.updates.store import Store
from fivetran_state.vault import Texts

MAX_OWNERS = 1000
"""A guest's connections whose updates are listed."""


class Listings:
    """Pages of one account's updates."""

    def __init__(self, reader: Reader, store: Store, texts: Texts) -> None:
        self._reader = reader
        self._store = store
        self._texts = texts

    async def last_ended(self, owner: str) -> int:
        """The number of the connection's last update that has ended; 0 if none has."""
        latest = await self._store.latest(owner, load_input=False)
        if latest is None:
            return 0
        return statuses.number(latest.workflow_id) - statuses.is_running(latest)

    async def ended_since(self, last_ended: Mapping[str, int]) -> dict[str, int]:
        """The number of each connection's next update, for those where it has ended.

        Numbers are consecutive, so one look-up by primary key serves a thousand connections. A number
        that another account has used counts as ended.
        """
        following = [f"{owner}:{number + 1}" for owner, number in last_ended.items()]
        ended = []
        for at in range(0, len(following), ID_BATCH):
            rows = await self._reader.find(workflow_ids=following[at : at + ID_BATCH])
            ended += [
                row.workflow_id
                for row in rows
                if not (self._store.is_ours(row) and statuses.is_running(row))
            ]
        return {UpdateId.parse(id_).owner: statuses.number(id_) for id_ in ended}

    async def history(self, owner: str, below: int | None, limit: int) -> list[Update]:
        """The connection's updates, newest first, from the one before number `below`.

        Their requests come without the change.
        """
        latest = await self._store.latest(owner, load_input=False)
        newest = 0 if latest is None else statuses.number(latest.workflow_id)
        top = newest if below is None else min(newest, below - 1)
        wanted = [str(UpdateId(owner, n)) for n in range(top, max(top - limit, 0), -1)]
        if not wanted:
            return []
        found = await self._read(wanted, newest)
        return sorted(found, key=lambda update: statuses.number(update.workflow_id), reverse=True)

    async def page(
        self, account: str | None, after: tuple[int, str] | None, limit: int
    ) -> list[Update]:
        """Updates of all connections, newest first; empty if there are no more.

        The page begins after `after`, the start time and id of an update. The requests come without the
        change. With a guest's account, these are the guest's updates; otherwise everybody's.
        """
        if account is not None:
            return await self._page_of_guest(account, after, limit)

        async def rows(**bounds: Any) -> list[WorkflowStatus]:
            return await self._reader.find(
                name=records.NAME, sort_desc=True, load_output=True, **bounds
            )

        async def started_at(moment: int) -> list[WorkflowStatus]:
            # Read all of them: the database returns them in any order.
            around = await rows(start_time=_iso(moment - 1), end_time=_iso(moment + 1))
            same = [row for row in around if statuses.created_at(row) == moment]
            return sorted(same, key=_place_of_row, reverse=True)

        found: list[WorkflowStatus] = []
        older: dict[str, Any] = {}
        if after is not None:
            same = await started_at(after[0])
            found = [row for row in same if _place_of_row(row) < _place(*after)]
            older = {"end_time": _iso(after[0])}
            limit += len(same)  # Which come again.
        following = await rows(limit=limit, **older)
        if after is not None:
            following = [row for row in following if statuses.created_at(row) < after[0]]
        if following:
            last = min(map(statuses.created_at, following))
            following = [row for row in following if statuses.created_at(row) != last]
            following.sort(key=_place_of_row, reverse=True)
            found += following + await started_at(last)
        return [statuses.update(row, None, await self._about(row)) for row in found]

    async def _page_of_guest(
        self, account: str, after: tuple[int, str] | None, limit: int
    ) -> list[Update]:
        # DBOS's list would walk through everybody else's updates to find the guest's.
        owners = await self._store.series.owners(f"{account}/", MAX_OWNERS)
        return await self._in_order(await self._newest_of(owners, after, limit))

    async def _newest_of(
        self, owners: Mapping[str, int], after: tuple[int, str] | None, limit: int
    ) -> list[str]:
        """The ids of these owners' newest updates, newest first, from the one after `after`.

        With each owner comes about how far its numbers have come. It goes down from there, as far as
        some owner may have an update that belongs to the page.
        """
        started: dict[str, int] = {}
        page: list[str] = []
        tops = {owner: number + MARKED_EVERY for owner, number in owners.items()}
        while tops:
            chunks = {
                owner: [str(UpdateId(owner, n)) for n in range(top, max(top - READ_BATCH, 0), -1)]
                for owner, top in tops.items()
            }
            found = await self._started_at([id_ for chunk in chunks.values() for id_ in chunk])
            started |= found
            page = _page(started, after, limit)
            edge = started[page[-1]] if len(page) == limit else 0
            tops = {
                owner: top - READ_BATCH
                for owner, top in tops.items()
                if top > READ_BATCH
                and min((found[id_] for id_ in chunks[owner] if id_ in found), default=-1) >= edge
            }
        return page

    async def _started_at(self, workflow_ids: Sequence[str]) -> dict[str, int]:
        """When these updates were started, as far as they are there."""
        found: dict[str, int] = {}
        for at in range(0, len(workflow_ids), ID_BATCH):
            some = workflow_ids[at : at + ID_BATCH]
            found |= await asyncio.to_thread(self._reader.created_at, some)
        return found

    async def page_of(
        self, workflow_ids: Sequence[str], after: tuple[int, str] | None, limit: int
    ) -> list[Update]:
        """Of these updates, those from the one after `after`, newest first (see `page`)."""
        started = await self._started_at(workflow_ids)
        return await self._in_order(_page(started, after, limit))

    async def _in_order(self, workflow_ids: Sequence[str]) -> list[Update]:
        found = {each.workflow_id: each for each in await self.by_ids(workflow_ids)}
        return [found[id_] for id_ in workflow_ids if id_ in found]

    async def by_ids(self, workflow_ids: Sequence[str]) -> list[Update]:
        """These updates of this account, as far as they are kept; their requests come without the change."""
        return await self._read(workflow_ids) if workflow_ids else []

    async def _read(self, workflow_ids: Sequence[str], newest: int | None = None) -> list[Update]:
        """With the number of their connection's newest update, tells which one is the latest."""
        rows = await self._reader.find(
            workflow_ids=list(workflow_ids), name=records.NAME, load_output=True
        )
        return [
            statuses.update(
                row,
                None,
                await self._about(row),
                is_latest=newest in (None, statuses.number(row.workflow_id)),
            )
            for row in rows
            if self._store.is_ours(row)
        ]

    async def newest(self, prefix: str, limit: int) -> list[str]:
        """The ids of the newest updates with this prefix, newest first; without a prefix, of groups too.

        If more than `limit` connections have it, only the first of them are looked at.
        """
        if not prefix:
            names = [records.NAME, records.GROUP]
            rows = await self._reader.find(name=names, sort_desc=True, limit=limit)
            return [row.workflow_id for row in rows]
        owner, colon, _ = prefix.rpartition(":")
        owners = await self._store.series.owners(owner if colon else prefix, limit)
        if colon:
            owners = {name: number for name, number in owners.items() if name == owner}
            limit = max(limit, RECENT)
        ids = await self._newest_of(owners, None, limit)
        return [id_ for id_ in ids if id_.startswith(prefix)]

    async def newest_groups(self, beginning: str, limit: int) -> list[str]:
        """The ids of the newest groups that begin so (see `groups.id_beginning`), newest first."""
        found = await asyncio.to_thread(self._reader.with_hex_ids, beginning)
        return sorted(found, key=lambda id_: (found[id_], id_), reverse=True)[:limit]

    async def _about(self, status: WorkflowStatus) -> UpdateRequest:
        """The request, without the change.

        Earlier versions and groups store the request only with its change. Then one update is read at a
        time: a whole page of them may not fit into memory.
        """
        sealed = (status.attributes or {}).get(ABOUT)
        if isinstance(sealed, str):
            with suppress(UnusableKey, TypeError, ValueError):
                workflow_id, request = cast(Any, self._texts.unseal(sealed))
                if workflow_id == status.workflow_id:
                    return cast(UpdateRequest, request)
        whole = await self._store.status(status.workflow_id)
        return statuses.without_change(statuses.request(whole or status))


def _page(started: Mapping[str, int], after: tuple[int, str] | None, limit: int) -> list[str]:
    """The ids of the updates that come after `after`, newest first."""
    places = {id_: _place(at, id_) for id_, at in started.items()}
    older = [id_ for id_, place in places.items() if after is None or place < _place(*after)]
    return sorted(older, key=places.__getitem__, reverse=True)[:limit]


def _place_of_row(row: WorkflowStatus) -> tuple[int, int, str]:
    return _place(statuses.created_at(row), row.workflow_id)


def _place(created_at: int, workflow_id: str) -> tuple[int, int, str]:
    """What updates are ordered by: a connection's may have begun in the same second of SQLite's clock."""
    return created_at, len(workflow_id), workflow_id  # A longer one has a higher number.


def _iso(milliseconds: int) -> str:
    # Half a millisecond more, because DBOS cuts what it calculates with floats.
    moment = datetime.fromtimestamp((milliseconds + 0.5) / 1000, tz=timezone.utc)
    return moment.isoformat()
