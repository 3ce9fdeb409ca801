"""The store of the state history: what each connection's state was, and when it was seen.

**What is protected.** Everything about a version (its content, its times, its origin) is sealed with
the account, the connection and the row that it belongs to, and with the version before it. Someone
who can write to the database but has no key cannot change, swap, copy, insert or reorder versions, or
take one out from between others, unnoticed: the reader raises `Tampered`, or `UnusableKey` where
nothing can be opened.

**What is not protected.** Someone with write access can delete the newest versions, or all of a
connection's, or put back all of its rows as they were at an earlier time: the history then ends
earlier. They can also put back one version as it was before it was last seen again, or before an
update said that it wrote it: then it was "seen until" an earlier time, or seen by somebody else.

Someone with read access learns the ids of accounts and connections, when each version was first seen,
whether its text was new to the connection, and roughly how large each text is. They cannot learn
whether a state equals one that they know, or one of another connection.
"""

import asyncio
import itertools
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from fivetran_state import database, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.history import migrations, thinning
from fivetran_state.history.rows import Rows
from fivetran_state.history.thinner import Thinner
from fivetran_state.history.versions import (
    AtMoment,
    Entry,
    Page,
    Sealer,
    Seals,
    SeenBy,
    Version,
    check_link,
    tampered,
)
from fivetran_state.history.warnings import MAX_KNOWN, Known, chosen
from fivetran_state.history.writer import Writer
from fivetran_state.text import shown

MAX_PAGE = 200
"""Versions on a page."""
MAX_KNOWN_SIZE = 10_000_000
"""Characters of the states that warnings are based on: they are held in memory at once."""
MIN_PREFIX = 8
"""Hex digits that a version has to be named with."""

_READ_AT_ONCE = 200

_CURSOR = re.compile("([0-9]{1,15}):([0-9]{1,15})", re.ASCII)
_VERSION = re.compile(f"[0-9a-f]{{{MIN_PREFIX},32}}", re.ASCII)

Given = ParamSpec("Given")
Result = TypeVar("Result")


class HistoryStore:
    """One account's history. Any number of processes may use the same database at once.

    `engine` is SQLAlchemy's, of SQLite or of PostgreSQL by psycopg; `schema` is PostgreSQL's, None
    for the default one. `sealer` and `digest` have the key, and `account` is what they are for.
    `clock` returns milliseconds since 1970.

    Every method may raise `DatabaseUnavailable`; every one that reads, `Tampered` and `UnusableKey`.
    """

    def __init__(
        self,
        engine: sa.Engine,
        sealer: Sealer,
        digest: Callable[[str], str],
        account: str,
        *,
        clock: Callable[[], int],
        schema: str | None = None,
    ) -> None:
        options: dict[str, Any] = {"schema_translate_map": {None: schema}}
        if engine.dialect.name == "postgresql":
            # After the lock, a statement has to see what the last holder committed.
            options["isolation_level"] = "READ COMMITTED"
        self._original, self._schema = engine, schema
        self._engine = engine.execution_options(**options)
        seals = Seals(sealer, digest, account)
        self._rows = Rows(account, seals)
        self._writer = Writer(self._engine, self._rows, seals)
        self._thinner = Thinner(self._engine, self._rows)
        self._clock = clock

    async def prepare(self) -> None:
        """Create the tables, or change those of an earlier version. Call it before anything else."""
        await asyncio.to_thread(migrations.upgrade, self._original, self._schema)

    async def remember(
        self,
        owner: str,
        document_text: str,
        version: str,
        seen_by: SeenBy,
        at: int,
        workflow_id: str | None = None,
    ) -> Version:
        """Remember that the connection had this state at this time; the version that stands for it.

        If the version that was there at that time is the same, it was only seen once more, and
        keeps its first text. Calling again with the same arguments changes nothing: a step that
        runs again has to pass the time at which it looked. Calls may come late and in any order. A
        version that was seen before and after another one was there before it and after it.

        `seen_by` is how the version came about; what is seen first of all is a `FIRST_LOOK` unless an
        update wrote it. `workflow_id` is the update that wrote it, even if somebody else saw it
        before the update could say so; leave it out for what an update only found.
        """
        return await self._in_thread(
            self._writer.remember, owner, document_text, version, seen_by, at, workflow_id
        )

    async def at(self, owner: str, moment: int) -> AtMoment | None:
        """The version that was there; None if nobody had looked by then."""
        return await self._in_thread(self._at, owner, moment)

    async def latest(self, owner: str) -> Version | None:
        return await self._in_thread(self._latest, owner)

    async def by_version(self, owner: str, version: str) -> Version | None:
        """The newest version with this `state.version`, or whose begins with it.

        Raises `InvalidRequest` if it is malformed, or several begin with it.
        """
        if _VERSION.fullmatch(version) is None:
            raise InvalidRequest(
                f"'{shown(version)}' is not a version, which is 32 hex digits, or at least the first "
                f"{MIN_PREFIX} of them."
            )
        return await self._in_thread(self._by_version, owner, version)

    async def by_workflow(self, owner: str, workflow_id: str) -> list[Entry]:
        """What an update wrote, newest first: one version, or two if it was rolled back."""
        return await self._in_thread(self._by_workflow, owner, workflow_id)

    async def page(
        self,
        owner: str,
        *,
        before: str | None = None,
        limit: int = 50,
        kinds: Collection[SeenBy] | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Page:
        """Versions of these kinds that were first seen from `since` to just before `until`.

        Newest first, at most `MAX_PAGE`. `before` is the `next_cursor` of an earlier page; what is
        remembered or removed meanwhile does not move the pages that follow. Raises `InvalidRequest`.
        """
        positions = [_position(before)] if before is not None else []
        positions += [(until, 0)] if until is not None else []
        start = min(positions, default=None)
        return await self._in_thread(self._page, owner, start, limit, kinds, since)

    async def document(self, version: Version) -> str:
        """The exact JSON text of a version, for `state.document`."""
        return await asyncio.to_thread(self.read, version)

    def read(self, version: Version) -> str:
        """`document`, for callers in a thread. Raises `InvalidRequest` if it has been removed."""
        with database.answering():
            return self._read(version)

    async def known(self, owner: str) -> list[Known]:
        """The states that `warnings_for` looks at, oldest first; fewer of large ones."""
        return await self._in_thread(self._known, owner)

    async def owners(self) -> list[str]:
        """The connections with a history, deleted ones too."""
        return await self._in_thread(self._owners)

    async def thin(self, owner: str, *, retention_days: float, named: Collection[str] = ()) -> int:
        """Remove what `thinning.removable` names, and contents that nothing uses; how many versions.

        `named` are the `state.version`s that updates name. In small transactions, beside any
        number of others that remember or thin. What changes meanwhile is left for the next time.
        """
        return await self._in_thread(self._thin, owner, retention_days, frozenset(named))

    async def can_be_thinned(self, owner: str, *, retention_days: float) -> bool:
        """True if `thin` would remove something, were nothing `named`."""
        return await self._in_thread(lambda: bool(self._removable(owner, retention_days)[1]))

    async def forget(self, owner: str) -> None:
        """Remove all that is known about a connection, without opening any of it."""
        await self._in_thread(self._writer.forget, owner)

    async def _in_thread(
        self, function: Callable[Given, Result], *args: Given.args, **named: Given.kwargs
    ) -> Result:
        def run() -> Result:
            with database.answering():
                return function(*args, **named)

        return await asyncio.to_thread(run)

    def _at(self, owner: str, moment: int) -> AtMoment | None:
        with self._engine.connect() as connection:
            there, following = self._rows.around(connection, owner, moment)
        if following is not None:
            check_link(following, there)
        if there is None:
            return None
        return AtMoment(moment, there, None if following is None else following.first_seen)

    def _latest(self, owner: str) -> Version | None:
        with self._engine.connect() as connection:
            newest = self._rows.newest(connection, owner, 1)
        return newest[0] if newest else None

    def _by_version(self, owner: str, version: str) -> Version | None:
        found = None
        for entry in self._entries(owner):
            if entry.version.version == version:
                return entry.version
            if not entry.version.version.startswith(version):
                continue
            if found is not None and found.version != entry.version.version:
                raise InvalidRequest(f"Several versions begin with {version}: give more of it.")
            found = found or entry.version
        return found

    def _by_workflow(self, owner: str, workflow_id: str) -> list[Entry]:
        return [each for each in self._entries(owner) if each.version.workflow_id == workflow_id]

    def _page(
        self,
        owner: str,
        start: tuple[int, int] | None,
        limit: int,
        kinds: Collection[SeenBy] | None,
        since: int | None,
    ) -> Page:
        limit = max(1, min(limit, MAX_PAGE))
        recent = itertools.takewhile(
            lambda entry: since is None or entry.version.first_seen >= since,
            self._entries(owner, start, at_once=limit + 1),
        )
        wanted = (each for each in recent if kinds is None or each.version.seen_by in kinds)
        entries = list(itertools.islice(wanted, limit + 1))
        if len(entries) <= limit:
            return Page(entries, None)
        first_seen, ordinal = entries[limit - 1].version.position
        return Page(entries[:limit], f"{first_seen}:{ordinal}")

    def _entries(
        self,
        owner: str,
        start: tuple[int, int] | None = None,
        at_once: int = _READ_AT_ONCE,
    ) -> Iterator[Entry]:
        """All versions before this position, newest first; raises `Tampered` where one is missing."""
        while True:
            with self._engine.connect() as connection:
                found = self._rows.newest(connection, owner, at_once + 1, start)
            for version, before in zip(found[:at_once], [*found[1:], None], strict=False):
                check_link(version, before)
                yield Entry(version, before)
            if len(found) <= at_once:
                return
            start = found[at_once - 1].position

    def _read(self, version: Version) -> str:
        with self._engine.connect() as connection:
            text = self._rows.content(connection, version)
            if text is not None:
                return text
            if self._rows.numbered(connection, version.owner, [version.ordinal]):
                raise tampered(version.owner)
        raise InvalidRequest(
            f"Version {version.version} of {shown(version.owner)} is not kept any more."
        )

    def _known(self, owner: str) -> list[Known]:
        versions = [entry.version for entry in self._entries(owner)][::-1]
        if not versions:
            return []
        latest = self._read(versions[-1])
        limit = max(2, min(MAX_KNOWN, MAX_KNOWN_SIZE // (len(latest) + 1)))
        return [
            Known(version.first_seen, state.document(self._read(version)))
            for version in chosen(versions, limit)
        ]

    def _owners(self) -> list[str]:
        with self._engine.connect() as connection:
            return self._rows.owners(connection)

    def _thin(self, owner: str, retention_days: float, named: frozenset[str]) -> int:
        return self._thinner.remove(*self._removable(owner, retention_days, named))

    def _removable(
        self, owner: str, retention_days: float, named: frozenset[str] = frozenset()
    ) -> tuple[list[Version], list[Version]]:
        """The connection's versions, in order, and those of them that need not stay."""
        kept = [entry.version for entry in self._entries(owner)][::-1]
        found = thinning.removable(
            kept, now=self._clock(), retention_days=retention_days, named=named
        )
        return kept, found


def _position(cursor: str) -> tuple[int, int]:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidRequest(
            f"'{shown(cursor)}' is not a cursor: pass a page's next_cursor, or none for the first."
        )
    return int(found[1]), int(found[2])
