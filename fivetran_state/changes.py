"""A requested change of a state, of one of three kinds. Each surface parses it once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from fivetran_state import large, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.models import Mode
from fivetran_state.text import shown


@dataclass(frozen=True)
class Inline:
    """The caller gives the change itself."""

    change: state.Change


@dataclass(frozen=True)
class _From:
    only: str | None
    """JSON Pointer to the part that is taken; None takes the whole state."""

    def _named(self, kind: str, source: str) -> str:
        return f"{kind} {source}" if self.only is None else f"{kind} {source} only {self.only}"


@dataclass(frozen=True)
class RestoreFrom(_From):
    """An earlier state of the connection: before an update, at a time, or by its version."""

    at: str
    """A workflow id, a time or a version."""

    @property
    def source(self) -> str:
        """The name of the source, as the history keeps it."""
        return self._named("restore_from", self.at)


@dataclass(frozen=True)
class CopyFrom(_From):
    """The state that another connection has now, or had at a time or as a version."""

    connection_id: str
    at: str | None = None

    @classmethod
    def of(cls, text: str, only: str | None) -> "CopyFrom":
        """From a connection's id, or `id@` and a time or version."""
        connection_id, _, at = text.partition("@")
        return cls(only, connection_id, at or None)

    @property
    def source(self) -> str:
        """The name of the source, as the history keeps it."""
        source = self.connection_id if self.at is None else f"{self.connection_id}@{self.at}"
        return self._named("copy_from", source)


Change: TypeAlias = Inline | RestoreFrom | CopyFrom


@dataclass(frozen=True)
class GroupOptions:
    """The options of a change of several connections."""

    mode: Mode = "all_or_nothing"
    expected_version: str | None = None
    """Of the group's plan. None: whatever states are there."""
    waits: bool = False
    """Wait for a connection's running update, instead of counting that as a failure."""
    then_sync: bool = False
    allow_resync: bool = False
    reason: str | None = None


def for_each(connection_ids: Sequence[str], change: Change) -> dict[str, Change]:
    """The same change for several connections; raises `InvalidRequest` for one that is named twice."""
    twice = [each for each, count in Counter(connection_ids).items() if count > 1]
    if twice:
        raise InvalidRequest(f"connection_ids must name each connection once: {shown(twice[0])}.")
    return dict.fromkeys(connection_ids, change)


async def parse(given: Mapping[str, object], only: str | None = None) -> Change:
    """The one change of a call; the other kinds are None.

    A value is what a JSON parser made of it (its numbers may have been rounded), or JSON text,
    which is taken exactly. Raises `InvalidRequest`.
    """
    kind, value = _the_one(given)
    if kind == "restore_from":
        return RestoreFrom(only, str(value))
    if kind == "copy_from":
        return CopyFrom.of(str(value), only)
    if only is not None:
        raise InvalidRequest("only goes with restore_from or copy_from.")
    return Inline(await large.run(_inline, kind, value))


def _the_one(given: Mapping[str, object]) -> tuple[str, object]:
    present = {kind: value for kind, value in given.items() if value is not None}
    if len(present) != 1:
        raise InvalidRequest(
            f"Give exactly one of {', '.join(given)}; given: {', '.join(present) or 'none'}."
        )
    ((kind, value),) = present.items()
    return kind, value


def _inline(kind: str, value: object) -> state.Change:
    try:
        exact = isinstance(value, str)
        parsed = state.parse_value(value) if isinstance(value, str) else state.adopt(value)
    except state.InvalidState as error:
        raise InvalidRequest(f"{kind}: {error}") from error
    change = state.Change(cast(Any, kind), parsed, exact=exact)
    try:
        state.check(change)
    except state.InvalidChange as error:
        raise InvalidRequest(f"{kind}: {error}") from error
    return change
