"""Carries out a thinning in small transactions, beside any number of others that remember or thin."""

from collections.abc import Sequence

import sqlalchemy as sa

from fivetran_state.history.rows import Rows
from fivetran_state.history.thinning import Removal, removal
from fivetran_state.history.versions import Version

REMOVED_AT_ONCE = 500
"""Versions that are removed in one transaction: nobody else can write to SQLite meanwhile."""


class Thinner:
    """Removes versions, and contents that no version uses any more."""

    def __init__(self, engine: sa.Engine, rows: Rows) -> None:
        self._engine = engine
        self._rows = rows

    def remove(self, versions: Sequence[Version], removable: Sequence[Version]) -> int:
        """Remove some of a connection's versions, all of which are given; returns how many.

        What has changed since they were read is left for the next time.
        """
        # The one that was remembered last stays, so that no ordinal is given twice.
        last = max((each.ordinal for each in versions), default=0)
        wanted = [each for each in removable if each.ordinal != last]
        removed = 0
        for start in range(0, len(wanted), REMOVED_AT_ONCE):
            planned = removal(versions, wanted[start : start + REMOVED_AT_ONCE])
            if self._is_done(planned):
                removed += len(planned.removed)
                versions = planned.left
        return removed

    def _is_done(self, planned: Removal) -> bool:
        """Carry it out; false, and nothing is done, if something about it has changed."""
        owner = planned.removed[0].owner
        known = {each.ordinal: each for each in [*planned.removed, *planned.relinked]}
        relinked = {each.ordinal for each in planned.relinked}
        with self._engine.connect() as connection:
            self._rows.lock(connection, owner)
            found = self._rows.numbered(connection, owner, known)
            if {each.ordinal: each for each in found} != known:
                return False  # Without a commit: locking a forgotten connection adds its row.
            self._rows.remove(connection, planned.removed)
            for version in planned.left:
                if version.ordinal in relinked:
                    self._rows.put(connection, version)
            unused = {each.content_id for each in planned.removed} - self._used(connection, planned)
            self._rows.remove_contents(connection, owner, unused)
            connection.commit()
        return True

    def _used(self, connection: sa.Connection, planned: Removal) -> set[str]:
        """The contents of all versions that are there, opening only those that are new."""
        owner = planned.removed[0].owner
        known = {each.ordinal: each.content_id for each in planned.left}
        there = self._rows.ordinals(connection, owner)
        new = self._rows.numbered(connection, owner, there - known.keys())
        kept = {known[ordinal] for ordinal in there & known.keys()}
        return kept | {each.content_id for each in new}
