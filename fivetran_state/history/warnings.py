"""Warnings from experience: what is odd about a change, given the states that the connection had.

A warning names what was usual and what is new, and refuses nothing. There is none for what is usual:
a cursor that moves on or is set back to a time that is remembered, a table that begins, a page token
that comes and goes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice, pairwise
from typing import Any, TypeAlias, TypeVar

from fivetran_state import state
from fivetran_state.cursors import (
    DATE,
    DAY,
    EPOCH,
    HOUR,
    MINUTE,
    NAIVE,
    ZONED,
    Time,
    number_of,
    time_of,
)

MAX_WARNINGS = 20
MAX_CHANGES = 2_000
"""Changed values that are looked at."""
MAX_KNOWN = 50
"""States that are looked at; see `chosen`."""
ALWAYS = 5
"""A key was always there if so many states, and every one, had it."""

EXPERIENCED = 3
"""Different values that a cursor must have had before one can be further back than usual."""

_PREVIEW = 60
_MAX_VALUES = 200
"""Of the items of one array."""
_FORWARD = 4
"""A number is a cursor if it went up so many times as often as down."""

_CLOCKS_DIFFER_BY = 5 * MINUTE
_ZONES_DIFFER_BY = 14 * HOUR
_FAR_AHEAD = 400 * DAY
"""A number so far ahead of the clock is not a time."""

_Odd: TypeAlias = tuple["Kind", str, str]
T = TypeVar("T")
# An item of an array has the place None: items come and go, so those of one array are looked at as one.
_Place: TypeAlias = tuple[str | None, ...]


class Kind(str, Enum):
    """The kinds of oddity."""

    ANOTHER_TYPE = "another type than ever before"
    OTHER_UNIT = "another unit of time"
    LOST_ZONE = "a lost time zone"
    FUTURE = "a time in the future"
    FURTHER_BACK = "further back than anything remembered"
    REMOVED = "a key that was always there removed"


@dataclass(frozen=True)
class Known:
    """A state that the connection had, and when it was first seen (milliseconds since 1970)."""

    seen: int
    document: state.Document


@dataclass(frozen=True)
class Oddity:
    """One warning. `usual` and `new` are short texts: what it was, and the JSON of values."""

    kind: Kind
    path: str
    usual: str
    new: str


@dataclass(frozen=True)
class Oddities:
    """The first `MAX_WARNINGS` warnings, and how many there are."""

    first: list[Oddity]
    total: int


def warnings_for(
    before: state.Document, after: state.Document, known: Sequence[Known], now: int
) -> Oddities:
    """The oddities of changing one state to another, at most one for each value.

    `known` are states of the connection, oldest first, of which the `chosen` ones are looked at, and
    the first `MAX_CHANGES` changed values. Of a value that has no history, nothing is odd.
    """
    if isinstance(before, state.RawDocument) or isinstance(after, state.RawDocument):
        return Oddities([], 0)
    states = [
        (each.seen, each.document)
        for each in chosen(known)
        if not isinstance(each.document, state.RawDocument)
    ]
    experience = _Experience([*states, (now, before)], now)
    odd = []
    for change in islice(_changes(before, after, (), ()), MAX_CHANGES):
        found = experience.oddity(change)
        if found is not None:
            odd.append(found)
    return Oddities(odd[:MAX_WARNINGS], len(odd))


def chosen(known: Sequence[T], limit: int = MAX_KNOWN) -> list[T]:
    """The latest ones, and as many from all of those before, the oldest included."""
    if len(known) <= limit:
        return list(known)
    spread = limit // 2
    older = len(known) - (limit - spread)
    return [*(known[index * older // spread] for index in range(spread)), *known[older:]]


class _Gone:
    """Where a value was removed."""


_GONE = _Gone()


@dataclass(frozen=True)
class _Change:
    path: tuple[str | int, ...]
    place: _Place
    new: Any


def _changes(
    before: Any, after: Any, path: tuple[str | int, ...], place: _Place
) -> Iterator[_Change]:
    """What was removed, and every value that is new, with those inside."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before:
            if key not in after:
                yield _Change((*path, key), (*place, key), _GONE)
        for key, value in after.items():
            yield from _changes(before.get(key, _GONE), value, (*path, key), (*place, key))
        return
    if isinstance(before, list) and isinstance(after, list):
        for index, value in enumerate(after):
            old = before[index] if index < len(before) else _GONE
            yield from _changes(old, value, (*path, index), (*place, None))
        return
    if not isinstance(before, _Gone) and state.same(before, after):
        return
    yield _Change(path, place, after)
    if isinstance(after, dict):
        for key, value in after.items():
            yield from _changes(_GONE, value, (*path, key), (*place, key))
    elif isinstance(after, list):
        for index, value in enumerate(after):
            yield from _changes(_GONE, value, (*path, index), (*place, None))


def _type(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value if len(value) <= _PREVIEW else f"{value[:_PREVIEW]}…"
    return state.preview(value, _PREVIEW)


class _Usual:
    """The values at one place of the states that are known, each with when it was seen."""

    def __init__(self, place: _Place, found: list[tuple[int, Any]]) -> None:
        self.count = len(found)
        self.is_item = None in place
        self.types = sorted({_type(value) for _, value in found})
        self.latest = found[-1][1] if found else None
        cursors = [(seen, value) for seen, value in found if value not in (None, "", 0, "0")]
        times = [(seen, time) for seen, value in cursors if (time := time_of(value)) is not None]
        is_time = len(times) == len(cursors) and _may_be_times(times)
        self.times = times if is_time else []
        """Empty if the values are not times."""
        self.empty = [value for _, value in found if value in ("", 0, "0")]
        numbers = [number for _, value in found if (number := number_of(value)) is not None]
        self.numbers = numbers if len(numbers) == self.count else []
        """Empty if the values are not numbers."""


class _Experience:
    """What was usual at each place."""

    def __init__(self, states: list[tuple[int, state.State]], now: int) -> None:
        self._states = states
        self._now = now
        self._usual_at: dict[_Place, _Usual] = {}

    def oddity(self, change: _Change) -> Oddity | None:
        usual = self._usual(change.place)
        if not usual.count:
            return None
        odd = self._odd(change.new, usual)
        if odd is None:
            return None
        kind, was, new = odd
        return Oddity(kind, _pointer(change.path), was, new)

    def _usual(self, place: _Place) -> _Usual:
        if place not in self._usual_at:
            self._usual_at[place] = _Usual(
                place,
                [
                    (seen, value)
                    for seen, document in self._states
                    for value in _values(document, place)
                ],
            )
        return self._usual_at[place]

    def _odd(self, new: Any, usual: _Usual) -> _Odd | None:
        if isinstance(new, _Gone):
            if usual.is_item or usual.count < max(ALWAYS, len(self._states)):
                return None
            was = f"in each of {usual.count} states, such as {_shown(usual.latest)}"
            return Kind.REMOVED, was, "not there"
        if _type(new) not in usual.types:
            was = f"{' or '.join(usual.types)}, such as {_shown(usual.latest)}"
            return Kind.ANOTHER_TYPE, was, f"{_type(new)}: {_shown(new)}"
        if isinstance(new, dict | list | bool | None) or new in usual.empty:
            return None
        return self._odd_time(new, usual) if usual.times else _odd_number(new, usual)

    def _odd_time(self, new: Any, usual: _Usual) -> _Odd | None:
        forms = {time.form for _, time in usual.times}
        was = f"{' or '.join(sorted(forms))}, such as {_shown(usual.latest)}"
        time = time_of(new) or _in_unit(new, usual.times[-1][1])
        if time is None:
            return Kind.ANOTHER_TYPE, was, f"not a time: {_shown(new)}"
        if time.form not in forms:
            kind = Kind.ANOTHER_TYPE
            if time.unit is not None and usual.times[-1][1].unit is not None:
                kind = Kind.OTHER_UNIT
            elif time.unit is None and ZONED in forms:
                kind = Kind.LOST_ZONE
            return kind, was, f"{time.form}: {_shown(new)}"
        # A cursor may always be ahead: the end of a day, or when a token expires.
        ahead = max(Decimal(0), *(each.at - seen for seen, each in usual.times))
        # Of several, it has shown by how much the unknown zone is ahead, but for summer time.
        zone = HOUR if len(usual.times) >= ALWAYS else _ZONES_DIFFER_BY
        unsure = {NAIVE: zone, DATE: DAY}.get(time.form, 0)
        if time.at > self._now + ahead + _CLOCKS_DIFFER_BY + unsure:
            most = f"ahead by {_span(ahead)} at most" if ahead else "never ahead of the clock"
            return Kind.FUTURE, f"{most}, such as {_shown(usual.latest)}", _shown(new)
        known = [each.at for _, each in usual.times]
        is_cursor = usual.is_item or _goes_up(known)
        if time.at < min(known) and is_cursor and len(set(known)) >= EXPERIENCED:
            return Kind.FURTHER_BACK, f"not before {_clock(min(known))}", _shown(new)
        return None


def _in_unit(value: Any, usual: Time) -> Time | None:
    """A number of any size, in the usual unit of time."""
    number = number_of(value)
    if number is None or usual.unit is None:
        return None
    return Time(number * usual.unit, usual.form, usual.unit)


def _odd_number(new: Any, usual: _Usual) -> _Odd | None:
    number = number_of(new)
    if number is None or not usual.numbers or usual.is_item:
        return None
    if number < min(usual.numbers) and _goes_up(usual.numbers):
        return Kind.FURTHER_BACK, f"at least {min(usual.numbers):f}", _shown(new)
    return None


def _may_be_times(known: list[tuple[int, Time]]) -> bool:
    """False for numbers that only happen to be as large as times."""
    return all(time.unit is None or time.at < seen + _FAR_AHEAD for seen, time in known)


def _goes_up(values: Sequence[Decimal]) -> bool:
    """True for a cursor: of several different values, few are lower than the one before."""
    steps = [later - earlier for earlier, later in pairwise(values) if later != earlier]
    ups = sum(step > 0 for step in steps)
    if len(set(values)) < EXPERIENCED:
        return False
    return ups >= _FORWARD * (len(steps) - ups)


def _values(value: Any, place: _Place) -> Iterable[Any]:
    for depth, key in enumerate(place):
        if key is None:
            items = value[:_MAX_VALUES] if isinstance(value, list) else []
            return [inner for item in items for inner in _values(item, place[depth + 1 :])]
        if not isinstance(value, dict) or key not in value:
            return []
        value = value[key]
    return [value]


def _pointer(path: tuple[str | int, ...]) -> str:
    tokens = (str(token).replace("~", "~0").replace("/", "~1") for token in path)
    return state.shown_path("".join(f"/{token}" for token in tokens))


def _span(milliseconds: Decimal | int) -> str:
    for size, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if milliseconds >= 2 * size:
            return f"{int(milliseconds / size)} {name}"
    return f"{int(milliseconds / 1000)} seconds"


def _clock(milliseconds: Decimal) -> str:
    moment = EPOCH + timedelta(milliseconds=int(milliseconds))
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
