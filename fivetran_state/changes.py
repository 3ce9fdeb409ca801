"""A requested change of one state or of several. Each surface parses it once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from fivetran_state import large, state
from fivetran_state.errors import InvalidRequest
from fivetran_state.models import Mode
from fivetran_state.text import shown

KINDS = ("new_state", "merge_patch", "json_patch", "restore_from", "copy_from")
MAX_CONNECTIONS = 1000
"""Connections that are changed together."""
_TAKES = f"a change takes connection_id, only, and one of {', '.join(KINDS)}"


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
class Filter:
    """Chooses the connections that keep a state and fit all that is given."""

    name: str | None = None
    """A glob on the id or the name."""
    group: str | None = None
    """A group's id or name."""
    service: str | None = None


@dataclass(frozen=True)
class Fitting:
    """The same change for all connections that fit a filter."""

    filter: Filter
    change: Change


@dataclass(frozen=True)
class Undo:
    """Undoes a group: each connection that it changed gets back the state from before."""

    workflow_id: str


GroupChange: TypeAlias = Mapping[str, Change] | Fitting | Undo
"""The change of each connection by its id, or how to find these."""


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
    _refuse_twice("connection_ids", connection_ids)
    return dict.fromkeys(connection_ids, change)


async def parse_each(each: Sequence[object] | str) -> dict[str, Change]:
    """The changes of several connections: objects with `connection_id`, one kind of change, and `only`.

    JSON text of all of them is taken exactly. Raises `InvalidRequest`.
    """
    objects = await large.run(_array, each) if isinstance(each, str) else each
    found: list[tuple[str, Change]] = []
    for at, given in enumerate(objects):
        try:
            found.append(await _of_one(given, exact=isinstance(each, str)))
        except InvalidRequest as error:
            raise InvalidRequest(f"changes[{at}]: {error.message}") from error
    _refuse_twice("changes", [connection_id for connection_id, _ in found])
    return dict(found)


def _array(text: str) -> list[state.JsonValue]:
    try:
        value = state.parse_value(text)
    except state.InvalidState as error:
        raise InvalidRequest(f"changes: {error}") from error
    if not isinstance(value, list):
        raise InvalidRequest("changes must be a JSON array.")
    return value


async def _of_one(given: object, *, exact: bool) -> tuple[str, Change]:
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"it must be a JSON object; {_TAKES}.")
    said = {name: value for name, value in given.items() if value is not None and value != ""}
    unknown = [name for name in said if name not in ("connection_id", "only", *KINDS)]
    if unknown:
        raise InvalidRequest(f"'{shown(unknown[0])}' is not known; {_TAKES}.")
    connection_id, only = said.pop("connection_id", None), said.pop("only", None)
    if not isinstance(connection_id, str) or not isinstance(only, str | None):
        raise InvalidRequest(f"connection_id and only must be text; {_TAKES}.")
    if exact:
        said = {
            kind: value if isinstance(value, str) else await large.run(state.dump, value)
            for kind, value in said.items()
        }
    return connection_id, await parse(dict.fromkeys(KINDS) | said, only)


def the_one_choice(choices: Mapping[str, object]) -> str:
    """The name of the only way to choose connections that is given; the others are empty."""
    given = [name for name, value in choices.items() if value]
    if len(given) != 1:
        raise InvalidRequest(
            f"Choose the connections in exactly one way: {'; '.join(choices)}. Given: "
            f"{'; '.join(given) or 'none'}."
        )
    return given[0]


def fitting(filter_: Filter, change: Change) -> Fitting:
    """Raises `InvalidRequest` for a filter that would choose everything."""
    if not any((filter_.name, filter_.group, filter_.service)):
        raise InvalidRequest("A filter needs name, group or service; name * chooses everything.")
    return Fitting(filter_, change)


def refuse_another(choice: str, given: Mapping[str, object], only: str | None) -> None:
    """Raise `InvalidRequest` if there is a change besides those that the choice has."""
    more = [kind for kind, value in {**given, "only": only}.items() if value is not None]
    if more:
        raise InvalidRequest(f"{', '.join(more)} cannot go with {choice}, which has the changes.")


def refuse_cursor(cursor: str | None) -> None:
    """Raise `InvalidRequest` if only a part of a group is named, which has no plan to agree to."""
    if cursor is not None:
        raise InvalidRequest("cursor goes with dry_run: it shows a further part of a plan.")


def _refuse_twice(what: str, connection_ids: Sequence[str]) -> None:
    twice = [each for each, count in Counter(connection_ids).items() if count > 1]
    if twice:
        raise InvalidRequest(f"{what} must name each connection once: {shown(twice[0])}.")


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
