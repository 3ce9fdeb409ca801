"""Finds the newest workflows of a numbered series without a search through everybody's.

The updates of a connection are a series, and so are the looks of a watcher: their ids are
`{series}:{n}`, n counting up from 1. No index of DBOS's finds ids by their beginning: the primary key
has the database's collation, and SQLite's LIKE ignores case. Exact ids it finds at once. So a mark
says about how far each series has come, and the ids around it are looked up.

A mark is believed only if there are rows around it. If it lags behind, the rows lead on from there:
numbers follow each other, and retention leaves the newest. If there are none, because somebody has
deleted them or changed the mark, all rows are searched. Without a mark, the series counts as new, unless
one of its workflows has not ended: no update may be started beside it.
"""

import asyncio
from collections.abc import Mapping

from dbos import WorkflowStatus

from fivetran_state.updates.marks import Marks
from fivetran_state.updates.reader import Reader
from fivetran_state.updates.records import UNFINISHED

RECENT = 50
"""Workflows that `newest` returns at least, if the series has so many."""
MARKED_EVERY = 16
"""The mark may lag behind by so many."""
_AHEAD = 2 * MARKED_EVERY
_FAR_AHEAD = [2**exponent for exponent in range(6, 31)]
"""For a mark that lags far behind: it was put back, or an older program has counted on."""


class Series:
    """The series of one account. Every method may raise `DatabaseUnavailable`."""

    def __init__(self, reader: Reader, marks: Marks) -> None:
        self._reader = reader
        self._marks = marks

    async def newest(self, series: str) -> list[WorkflowStatus]:
        """The newest workflows, newest first, without input and output.

        Also those of other accounts: they use the same ids.
        """
        return await asyncio.to_thread(self._newest, series)

    async def last(self, series: str) -> int:
        """The number of the newest workflow; 0 if there is none."""
        rows = await self.newest(series)
        return number(rows[0].workflow_id) if rows else 0

    def _newest(self, series: str) -> list[WorkflowStatus]:
        mark = top = self._marks.get(series)
        found: dict[int, WorkflowStatus] = {}
        while True:
            start = top
            # Keep those around the mark: what leads on from there may be another account's.
            found |= {number(row.workflow_id): row for row in self._around(series, start)}
            top = max(found, default=0)
            if top <= start + MARKED_EVERY:
                break
        prefix = f"{series}:"
        if not found and (mark or self._has_unfinished(prefix)):
            rows = self._reader.find_now(workflow_id_prefix=prefix, sort_desc=True, limit=RECENT)
            # SQLite finds `A:1` too if it looks for `a:`.
            found = {
                number(row.workflow_id): row for row in rows if row.workflow_id.startswith(prefix)
            }
        return [found[each] for each in sorted(found, reverse=True)]

    def _has_unfinished(self, prefix: str) -> bool:
        """True if one of them has not ended: then somebody has deleted the mark, or put it back."""
        rows = self._reader.with_status(UNFINISHED)
        return any(workflow_id.startswith(prefix) for workflow_id, *_ in rows)

    def _around(self, series: str, start: int) -> list[WorkflowStatus]:
        first = max(start - RECENT, 0) + 1
        numbers = [*range(first, start + _AHEAD + 1), *(start + each for each in _FAR_AHEAD)]
        return self._reader.find_now(workflow_ids=[f"{series}:{each}" for each in numbers])

    async def mark(self, numbers: Mapping[str, int]) -> None:
        """Say which number of each series is about to start. Only some are written down."""

        def put() -> None:
            marked = self._marks.get_all(numbers)
            new = {
                series: number
                for series, number in numbers.items()
                if not 0 <= number - marked.get(series, -MARKED_EVERY) < MARKED_EVERY
            }
            if new:
                self._marks.put(new)

        await asyncio.to_thread(put)

    async def owners(self, prefix: str, limit: int) -> dict[str, int]:
        """Owners of updates whose names begin so, and about how far their numbers have come."""
        marks = await self._marks.beginning(prefix, limit)
        return {name: number for name, number in marks.items() if ":" not in name}


def number(workflow_id: str) -> int:
    return int(workflow_id.rpartition(":")[2])
