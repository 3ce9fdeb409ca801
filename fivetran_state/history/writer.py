"""Writes the history: a state that was seen becomes a version, or was seen once more."""

import secrets
from dataclasses import replace

import sqlalchemy as sa

from fivetran_state.history.rows import Rows
from fivetran_state.history.versions import Seals, SeenBy, Version


class Writer:
    """What `HistoryStore.remember` and `forget` do, each in one transaction that holds the lock."""

    def __init__(self, engine: sa.Engine, rows: Rows, seals: Seals) -> None:
        self._engine = engine
        self._rows = rows
        self._seals = seals

    def remember(
        self,
        owner: str,
        text: str,
        version: str,
        seen_by: SeenBy,
        at: int,
        workflow_id: str | None,
    ) -> Version:
        content_id = self._seals.content_id(owner, text)
        with self._engine.connect() as connection:
            is_known = self._rows.has_content(connection, owner, content_id)
        # A large text takes a while, so seal it before the lock is taken.
        sealed = None if is_known else self._seals.sealed_content(owner, content_id, text)
        with self._engine.begin() as connection:
            self._rows.lock(connection, owner)
            there, following = self._rows.around(connection, owner, at)
            if there is not None and there.version == version:
                again = replace(there, last_seen=max(there.last_seen, at))
                return self._seen_again(connection, there, again, workflow_id)
            is_between = False
            if there is not None and at < there.last_seen:
                # It was there again afterwards, unless the following version came at that moment.
                is_between = following is None or there.last_seen < following.first_seen
                self._rows.put(connection, replace(there, last_seen=at))
            if following is not None and following.version == version and not is_between:
                # At the very moment of the version before, it might come first by its ordinal.
                earliest = at if there is None else max(at, there.first_seen + 1)
                again = replace(following, first_seen=earliest)
                return self._seen_again(connection, following, again, workflow_id)
            if there is None and following is None and seen_by is not SeenBy.UPDATE:
                seen_by = SeenBy.FIRST_LOOK
            added = Version(
                owner=owner,
                ordinal=self._rows.last_ordinal(connection, owner) + 1,
                version=version,
                first_seen=at,
                last_seen=at,
                seen_by=seen_by,
                workflow_id=workflow_id,
                content_id=content_id,
                mark=_mark(),
                previous=None if there is None else there.mark,
            )
            if not self._rows.has_content(connection, owner, content_id):
                sealed = sealed or self._seals.sealed_content(owner, content_id, text)
                self._rows.add_content(connection, owner, content_id, sealed)
            self._rows.add(connection, added)
            last = self._begin_again(connection, there, added) if there and is_between else added
            if following is not None:
                self._rows.put(connection, replace(following, previous=last.mark))
            return added

    def _begin_again(self, connection: sa.Connection, there: Version, added: Version) -> Version:
        """A version that was seen before and after another was added: it was there once more."""
        again = replace(
            there,
            ordinal=added.ordinal + 1,
            first_seen=there.last_seen,
            seen_by=SeenBy.OTHERS,
            workflow_id=None,
            mark=_mark(),
            previous=added.mark,
        )
        self._rows.add(connection, again)
        return again

    def _seen_again(
        self, connection: sa.Connection, known: Version, again: Version, workflow_id: str | None
    ) -> Version:
        if workflow_id is not None and known.workflow_id is None:
            again = replace(again, workflow_id=workflow_id, seen_by=SeenBy.UPDATE)
        if again != known:
            self._rows.put(connection, again)
        return again

    def forget(self, owner: str) -> None:
        with self._engine.begin() as connection:
            self._rows.lock(connection, owner)
            self._rows.forget(connection, owner)


def _mark() -> str:
    return secrets.token_hex(8)
