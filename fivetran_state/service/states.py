"""The state of a connection: now, or in the past."""

import asyncio
from typing import Any

from fivetran_state import large, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.models import StateView
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.history import History
from fivetran_state.text import visible

DEFAULT_MAX_BYTES = 20_000
LIMIT_OF_MAX_BYTES = 1_000_000
AHEAD = 0.01
"""Seconds of head start for Fivetran, which takes longer than the database."""


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
        at: str | None = None,
    ) -> StateView:
        """The state, or the value at `path` (a JSON Pointer), or its outline if it is too large.

        `exact` returns the whole value, for `to_json(exactly=True)`. `at`: the state at a time, a
        version, or the state before an update, without asking Fivetran.
        """
        if at is not None:
            past = await self._history.at(connection_id, at)
            text, content = await large.run(_content, past.document, path or "", max_bytes, exact)
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
        text, content = await large.run(_content, document, path or "", max_bytes, exact)
        return StateView(
            connection_id=connection_id,
            version=version,
            path=None if path is None else state.shown_path(path),
            bytes=len(text),
            update_in_progress=running,
            **views.facts(connection, group_names),
            **content,
        )


def _content(
    document: state.Document, path: str, max_bytes: int, exact: bool
) -> tuple[str, dict[str, Any]]:
    """The value at the path as JSON text, and the fields of `models.StateView` that show it.

    Raises `InvalidRequest`.
    """
    if isinstance(document, state.RawDocument):
        if path:
            raise InvalidRequest(f"path: what is there is not a usable state ({document.problem}).")
        shown_text = visible(document.text)
        fields: dict[str, Any] = {"problem": document.problem}
        if exact or len(shown_text) <= max_bytes:
            return document.text, fields | {"state_json": shown_text}
        return document.text, fields | {
            "state_json": shown_text[:max_bytes],
            "hint": _larger(len(shown_text), "This is only its beginning."),
        }
    try:
        value = state.at(document, path)
    except state.NotThere as error:
        raise InvalidRequest(f"path: {error}") from error
    text = state.dump(value)
    if exact:
        return text, {"state": value}
    if len(text) > max_bytes:
        if isinstance(value, dict | list):
            outline = views.outline(value, path, max_bytes) if max_bytes else None
            return text, {"outline": outline}
        return text, {"hint": _larger(len(text), "The value is longer than max_bytes.")}
    if state.hides(value):
        return text, {"state_json": visible(text)}
    return text, {"state": state.plain(value), "exact_numbers": state.inexact(value) or None}


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging an error that nobody waits for."""
    if not task.cancelled():
        task.exception()


def _larger(size: int, why: str) -> str:
    if size > LIMIT_OF_MAX_BYTES:
        return f"{why} It has {size:,} bytes: REST's POST /state/get returns it whole."
    return f"{why} Call again with max_bytes {size}."
