"""Deletes old updates, and guests' credentials once their update has ended."""

import asyncio
import time
from collections.abc import Sequence

from fivetran_state import database, dbos_internals
from fivetran_state.errors import Tampered, UnusableKey
from fivetran_state.history.store import HistoryStore
from fivetran_state.ids import UpdateId
from fivetran_state.updates import binding, records, statuses
from fivetran_state.updates.listings import Listings
from fivetran_state.updates.marks import Marks
from fivetran_state.updates.notices import notice_of
from fivetran_state.updates.proposal import NAME as PROPOSAL
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.records import GROUP, UpdateRequest
from fivetran_state.updates.store import Store
from fivetran_state.vault import Bound

KEPT = 10
"""Updates of each connection that are kept, whatever their age."""
_AT_ONCE = 500
_DAY = 86_400_000
_NOT_AGAIN_FOR = 23 * 3_600_000
"""Milliseconds."""
_CHECKED = ":credentials"
"""The mark of the time up to which no ended update has a guest's credentials any more."""
_CHECKED_AGAIN = 2 * _DAY
"""Milliseconds that are looked through again: the process may have died before it came to erase them."""


class Retention:
    """Deletes for one account."""

    def __init__(
        self, reader: Reader, marks: Marks, store: Store, listings: Listings, history: HistoryStore
    ) -> None:
        self._reader = reader
        self._marks = marks
        self._store = store
        self._listings = listings
        self._history = history

    async def once_a_day(self, days: float) -> None:
        """Forget old updates and thin the history, unless some process did so in the last hours.

        It looks at everything, so it must not happen at each start of a server.
        """
        # Another setting has to take effect at once.
        name, now = f":retention {days:g}", _now()
        if not 0 <= now - await asyncio.to_thread(self._marks.get, name) < _NOT_AGAIN_FOR:
            await self.forget(days)
            await self.thin(days)
            await asyncio.to_thread(self._marks.put, {name: now})

    async def forget(self, days: float) -> int:
        """Delete updates that ended more than `days` ago, but never a connection's latest ones.

        What they have sent notices of is not told again: a notice goes only with its update. Returns
        how many updates were deleted.
        """
        before = _now() - int(days * _DAY)
        # What they have started is an update of its own.
        groups = await asyncio.to_thread(self._reader.completed_before, [GROUP, PROPOSAL], before)
        for at in range(0, len(groups), _AT_ONCE):
            some = groups[at : at + _AT_ONCE]
            await self._reader.delete([*some, *map(notice_of, some)])
        old = await asyncio.to_thread(self._reader.completed_before, [records.NAME], before)
        by_owner: dict[str, list[int]] = {}
        for update in map(UpdateId.parse, old):
            by_owner.setdefault(update.owner, []).append(update.number)
        forgotten = []
        for owner, numbers in by_owner.items():
            latest = await self._store.latest(owner, load_input=False)
            kept_from = 0 if latest is None else statuses.number(latest.workflow_id) - KEPT + 1
            forgotten += [
                str(UpdateId(owner, number)) for number in sorted(numbers) if number < kept_from
            ]
        for at in range(0, len(forgotten), _AT_ONCE):
            some = forgotten[at : at + _AT_ONCE]
            await self._reader.delete(list(map(notice_of, some)))
            await self._reader.delete(some, children=True)
        return len(forgotten)

    async def thin(self, days: float) -> None:
        """Thin the history of every connection; a state that an update names is kept as long as that."""
        for owner in await self._history.owners():
            if not await self._history.can_be_thinned(owner, retention_days=days):
                continue
            named: set[str] = set()
            below: int | None = None
            while page := await self._listings.history(owner, below, _AT_ONCE):
                outcomes = [update.outcome for update in page if update.outcome is not None]
                named |= {each["version_before"] for each in outcomes}
                named |= {each["version_after"] for each in outcomes}
                below = statuses.number(page[-1].workflow_id)
            await self._history.thin(owner, retention_days=days, named=named)

    def erase_credentials(self, workflow_id: str) -> str | None:
        """Remove a guest's credentials from the input of an ended workflow; return its group."""
        rows = self._reader.find_now(workflow_ids=[workflow_id], load_input=True)
        try:
            asked = statuses.input_of(rows[0]) if rows else None
        except (Tampered, UnusableKey):
            return None
        if asked is None:
            return None
        requests: list[UpdateRequest] = (
            records.members_of(asked) if rows[0].name == GROUP else [asked]
        )
        for request in requests:
            request.pop("credentials", None)
        with database.answering():
            place = binding.input_of(workflow_id, rows[0].name)
            dbos_internals.replace_input(
                workflow_id, (Bound(place, asked),), drop_attribute=records.GUEST
            )
        return requests[0].get("part_of")

    def with_credentials(self, versions: Sequence[str]) -> list[str]:
        """Ended workflows with a guest's credentials in their input.

        Older `versions` did not mark them, so all of theirs are included. Those that ended long before
        the last call are left out: they were returned then, and erased.
        """
        until = _now() - _CHECKED_AGAIN
        # The mark is not sealed: one in the future must not keep credentials from being erased.
        checked = min(self._marks.get(_CHECKED), until)
        with database.answering():
            found = dbos_internals.ended(
                (records.NAME, GROUP),
                attribute=records.GUEST,
                or_versions=versions,
                after=checked,
            )
        self._marks.put({_CHECKED: until})
        return found


def _now() -> int:
    return time.time_ns() // 1_000_000
