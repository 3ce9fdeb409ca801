"""One account's rows of the history: SQL in, opened versions out, within the caller's transaction."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fivetran_state.history.tables import connections, contents, versions
from fivetran_state.history.versions import Seals, Version

_OLDEST_FIRST = (versions.c.first_seen, versions.c.ordinal)
_NEWEST_FIRST = (versions.c.first_seen.desc(), versions.c.ordinal.desc())


class Rows:
    """Reads and writes rows. What it opens is checked by `Seals`; what it writes, it seals."""

    def __init__(self, account: str, seals: Seals) -> None:
        self._account = account
        self._seals = seals

    def lock(self, connection: sa.Connection, owner: str) -> None:
        """Let no one else write to this connection's history until the transaction ends.

        It has to be the first statement: SQLite locks for those that write, and reads what was
        there before it locked.
        """
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        row = insert(connections).values(account=self._account, owner=owner)
        connection.execute(
            row.on_conflict_do_update(
                index_elements=[connections.c.account, connections.c.owner],
                set_={"owner": row.excluded.owner},
            )
        )

    def owners(self, connection: sa.Connection) -> list[str]:
        of_account = sa.select(connections.c.owner).where(connections.c.account == self._account)
        return list(connection.scalars(of_account.order_by(connections.c.owner)))

    def around(
        self, connection: sa.Connection, owner: str, moment: int
    ) -> tuple[Version | None, Version | None]:
        """The last version first seen at the moment or before, and the first one after it."""
        rows = self._of(owner)
        earlier = rows.where(versions.c.first_seen <= moment).order_by(*_NEWEST_FIRST).limit(1)
        later = rows.where(versions.c.first_seen > moment).order_by(*_OLDEST_FIRST).limit(1)
        # One statement, so that nobody writes in between.
        both = sa.union_all(
            sa.select(earlier.subquery("earlier")), sa.select(later.subquery("later"))
        )
        there = following = None
        for row in connection.execute(both).all():
            if row.first_seen <= moment:
                there = self._opened(owner, row)
            else:
                following = self._opened(owner, row)
        return there, following

    def newest(
        self,
        connection: sa.Connection,
        owner: str,
        limit: int,
        before: tuple[int, int] | None = None,
    ) -> list[Version]:
        """The newest versions, or the newest before this position."""
        rows = self._of(owner).order_by(*_NEWEST_FIRST).limit(limit)
        if before is not None:
            rows = rows.where(sa.tuple_(*_OLDEST_FIRST) < sa.tuple_(*before))
        return [self._opened(owner, row) for row in connection.execute(rows)]

    def numbered(
        self, connection: sa.Connection, owner: str, ordinals: Collection[int]
    ) -> list[Version]:
        """The versions with these ordinals, as far as they are there."""
        rows = self._of(owner).where(versions.c.ordinal.in_(ordinals))
        return [self._opened(owner, row) for row in connection.execute(rows)]

    def ordinals(self, connection: sa.Connection, owner: str) -> set[int]:
        all_ = sa.select(versions.c.ordinal).where(*self._is_of(versions, owner))
        return set(connection.scalars(all_))

    def last_ordinal(self, connection: sa.Connection, owner: str) -> int:
        """The last one that was given; 0 if there is none."""
        last = sa.select(sa.func.max(versions.c.ordinal)).where(*self._is_of(versions, owner))
        return connection.execute(last).scalar() or 0

    def add(self, connection: sa.Connection, version: Version) -> None:
        connection.execute(
            sa.insert(versions).values(
                account=self._account,
                owner=version.owner,
                ordinal=version.ordinal,
                first_seen=version.first_seen,
                sealed=self._seals.sealed_version(version),
            )
        )

    def put(self, connection: sa.Connection, version: Version) -> None:
        """Seal a version again, in its row."""
        connection.execute(
            sa.update(versions)
            .where(*self._is_of(versions, version.owner))
            .where(versions.c.ordinal == version.ordinal)
            .values(
                first_seen=version.first_seen,
                sealed=self._seals.sealed_version(version),
            )
        )

    def remove(self, connection: sa.Connection, removed: Sequence[Version]) -> None:
        """Remove versions of one connection."""
        connection.execute(
            sa.delete(versions)
            .where(*self._is_of(versions, removed[0].owner))
            .where(versions.c.ordinal.in_([each.ordinal for each in removed]))
        )

    def has_content(self, connection: sa.Connection, owner: str, content_id: str) -> bool:
        found = (
            sa.select(contents.c.content_id)
            .where(*self._is_of(contents, owner))
            .where(contents.c.content_id == content_id)
        )
        return connection.execute(found).first() is not None

    def add_content(
        self, connection: sa.Connection, owner: str, content_id: str, sealed: str
    ) -> None:
        connection.execute(
            sa.insert(contents).values(
                account=self._account, owner=owner, content_id=content_id, sealed=sealed
            )
        )

    def content(self, connection: sa.Connection, version: Version) -> str | None:
        """The version's text, if it is there."""
        row = connection.execute(
            sa.select(contents.c.sealed)
            .where(*self._is_of(contents, version.owner))
            .where(contents.c.content_id == version.content_id)
        ).first()
        return None if row is None else self._seals.opened_content(version, row.sealed)

    def remove_contents(
        self, connection: sa.Connection, owner: str, content_ids: Collection[str]
    ) -> None:
        connection.execute(
            sa.delete(contents)
            .where(*self._is_of(contents, owner))
            .where(contents.c.content_id.in_(content_ids))
        )

    def forget(self, connection: sa.Connection, owner: str) -> None:
        for table in (contents, versions, connections):
            connection.execute(sa.delete(table).where(*self._is_of(table, owner)))

    def _is_of(self, table: sa.Table, owner: str) -> list[sa.ColumnElement[bool]]:
        return [table.c.account == self._account, table.c.owner == owner]

    def _of(self, owner: str) -> sa.Select[tuple[int, int, str]]:
        columns = versions.c.ordinal, versions.c.first_seen, versions.c.sealed
        return sa.select(*columns).where(*self._is_of(versions, owner))

    def _opened(self, owner: str, row: sa.Row[tuple[int, int, str]]) -> Version:
        return self._seals.opened_version(owner, row.ordinal, row.first_seen, row.sealed)
