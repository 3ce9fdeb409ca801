"""The state of a connection: now, or in the past."""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from fivetran_state import large, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.models import StateView
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.history import History
from fivetran_state.service.refusals import not_a_cursor
from fivetran_state.text import visible

DEFAULT_MAX_BYTES = 20_000
LIMIT_OF_MAX_BYTES = 1_000_000
AHEAD = 0.01
"""Seconds of head start for Fivetran, which takes longer than the database."""
_CURSOR = re.compile("([0-9a-f]{32}):([0-9]{1,6}):([0-9a-f]{8})", re.ASCII)


@dataclass(frozen=True)
class _Wanted:
    """What to show of a state. Neither `search` nor `cursor` is empty text."""

    path: str
    max_bytes: int
    exact: bool
    for_people: bool
    search: str | None
    cursor: str | None

    @property
    def is_listing(self) -> bool:
        return self.search is not None or self.cursor is not None

    def start(self, version: str) -> int:
        """The number of entries on earlier pages. Raises `InvalidRequest` if the state has moved."""
        if self.cursor is None:
            return 0
        found = _CURSOR.fullmatch(self.cursor)
        if found is None:
            raise not_a_cursor(self.cursor)
        if found[3] != self._listing:
            raise InvalidRequest(
                "cursor: it goes on with another path or search. Give those that it came from."
            )
        if found[1] != version:
            raise InvalidRequest(
                f"cursor: it is of version {found[1]}, but the state is version {version}. Leave the "
                f"cursor out to begin again, or set at to {found[1]} to go on in that version."
            )
        return int(found[2])

    def next_cursor(self, version: str, start: int) -> str:
        return f"{version}:{start}:{self._listing}"

    @property
    def _listing(self) -> str:
        """Distinguishes the listings of one version."""
        text = state.dump([self.path, self.search])
        return hashlib.sha256(text.encode()).hexdigest()[:8]


class States:
    """Reads the states of one account's connections."""

    def __init__(self, caller: Caller, history: History) -> None:
        self._caller = caller
        self._history = history

    async def get_state(
        self,
        connection_id: str,
        *,
        path: str | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        exact: bool = False,
        for_people: bool = False,
        at: str | None = None,
        search: str | None = None,
        cursor: str | None = None,
    ) -> StateView:
        """The state, or the value at `path` (a JSON Pointer), or its outline if it is too large.

        `exact` returns the whole value, for `to_json(exactly=True)`. `for_people` returns a value that
        fits into `max_bytes` as indented, exact JSON text, in `state_json`. `at`: the state at a time, a
        version, or the state before an update, without asking Fivetran. `search`, a part of a JSON
        Pointer, lists the values whose paths contain it. `cursor` is the `next_cursor` of an
        outline or a search. Raises `InvalidRequest` if the state has moved since that page.
        """
        if search is not None and len(search) > state.MAX_PATH_LENGTH:
            raise InvalidRequest(f"search: give at most {state.MAX_PATH_LENGTH:,} characters.")
        wanted = _Wanted(path or "", max_bytes, exact, for_people, search or None, cursor or None)
        if at is not None:
            past = await self._history.at(connection_id, at)
            text, content = await _shown(past.document, past.version, wanted)
            return StateView(
                connection_id=connection_id,
                version=past.version,
                path=None if path is None else state.shown_path(path),
                bytes=len(text),
                seen=past.seen,
                **content,
            )
        updates = await self._caller.updates()
        fivetran = await self._caller.fivetran_for(connection_id)
        owner = await self._caller.owner(connection_id)
        reading = asyncio.ensure_future(self._caller.read(fivetran, connection_id))
        naming = asyncio.ensure_future(fivetran.group_names())
        try:
            # Send the requests first: the database must not hold them up.
            await asyncio.wait({reading}, timeout=AHEAD)
            running, (connection, document, version), group_names = await asyncio.gather(
                updates.store.running(owner), reading, naming
            )
        finally:
            # The caller may have left, and then nobody waits for them.
            for task in (reading, naming):
                task.cancel()
                task.add_done_callback(_retrieve)
        text, content = await _shown(document, version, wanted)
        return StateView(
            connection_id=connection_id,
            version=version,
            path=None if path is None else state.shown_path(path),
            bytes=len(text),
            update_in_progress=running,
            **views.facts(connection, group_names),
            **content,
        )


async def _shown(
    document: state.Document, version: str, wanted: _Wanted
) -> tuple[str, dict[str, Any]]:
    # A few keys of megabytes take a search as long as many keys do.
    is_large = wanted.is_listing or large.is_any(document)
    return await large.run_if(is_large, _content, document, version, wanted)


def _content(document: state.Document, version: str, wanted: _Wanted) -> tuple[str, dict[str, Any]]:
    """The value at the path as JSON text, and the fields of `models.StateView` that show it.

    Raises `InvalidRequest`.
    """
    start = wanted.start(version)
    if isinstance(document, state.RawDocument):
        return document.text, _raw(document, wanted)
    try:
        value = state.at(document, wanted.path)
    except state.NotThere as error:
        raise InvalidRequest(f"path: {error}") from error
    text = state.dump(value)
    if wanted.is_listing:
        return text, _listed(value, version, wanted, start)
    if wanted.exact:
        return text, {"state": value}
    if len(text) > wanted.max_bytes:
        if isinstance(value, dict | list):
            return text, _listed(value, version, wanted, start)
        return text, {"hint": _larger(len(text), "The value is longer than max_bytes.")}
    if wanted.for_people:
        return text, {"state_json": state.indented(value)}
    if state.hides(value):
        return text, {"state_json": visible(text)}
    return text, {"state": state.plain(value), "exact_numbers": state.inexact(value) or None}


def _raw(document: state.RawDocument, wanted: _Wanted) -> dict[str, Any]:
    for argument in ("path", "search", "cursor"):
        if getattr(wanted, argument):
            raise InvalidRequest(
                f"{argument}: what is there is not a usable state ({document.problem})."
            )
    shown_text = visible(document.text)
    fields: dict[str, Any] = {"problem": document.problem}
    if wanted.exact or len(shown_text) <= wanted.max_bytes:
        return fields | {"state_json": shown_text}
    return fields | {
        "state_json": shown_text[: wanted.max_bytes],
        "hint": _larger(len(shown_text), "This is only its beginning."),
    }


def _listed(value: state.JsonValue, version: str, wanted: _Wanted, start: int) -> dict[str, Any]:
    """A page of the value's outline, or of what matches the search."""
    if wanted.search is None and not wanted.max_bytes:
        return {}
    if wanted.search is None:
        page = state.outline(value, wanted.path, wanted.max_bytes, start)
    else:
        page = state.search(value, wanted.search, wanted.path, wanted.max_bytes, start)
    fields: dict[str, Any] = {"matches_total": page.total}
    if page.total == 0:
        fields["hint"] = "No path contains it. Values are not searched."
    if not wanted.max_bytes:
        return fields
    fields["outline"] = [views.outline_entry(entry) for entry in page.entries]
    if page.next_start == start:
        hint = f"No entry fits. Call again with max_bytes {DEFAULT_MAX_BYTES}."
        return fields | {"hint": hint}
    if page.next_start is not None:
        fields["next_cursor"] = wanted.next_cursor(version, page.next_start)
    return fields


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging an error that nobody waits for."""
    if not task.cancelled():
        task.exception()


def _larger(size: int, why: str) -> str:
    if size > LIMIT_OF_MAX_BYTES:
        return f"{why} It has {size:,} bytes: REST's POST /state/get returns it whole."
    return f"{why} Call again with max_bytes {size}."
