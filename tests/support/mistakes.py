"""Ordinary changes of states, and the mistakes that people make in them."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from fivetran_state import state
from fivetran_state.history.warnings import Kind, Known, Oddities, chosen, warnings_for
from tests.support import connector_states as connectors
from tests.support.connector_states import CONNECTORS, DAY, HOUR, Cursor, Past, Path, State


@dataclass(frozen=True)
class Trial:
    """A change of a state: what it was before and becomes."""

    past: Past
    after: State
    mistake: tuple[Kind, str] | None = None
    """Its kind and its JSON Pointer."""

    @property
    def connector(self) -> str:
        return type(self.past.connector).__name__

    def warnings(self) -> Oddities:
        return warned(self.past.states[-1][1], self.after, self.past.states, self.past.now)

    @property
    def is_named(self) -> bool:
        """True if the mistake, and nothing else, is warned of, by its kind and place."""
        return [(each.kind, each.path) for each in self.warnings().first] == [self.mistake]


def warned(before: State, after: State, states: list[tuple[int, State]], now: int) -> Oddities:
    """The warnings of a change, after these states."""
    known = [Known(seen, document(each)) for seen, each in chosen(states)]
    return warnings_for(document(before), document(after), known, now)


def document(value: Any) -> state.State:
    return state.parse(json.dumps(value))


def _past(chance: random.Random) -> Past:
    return connectors.past_of(chance.choice(CONNECTORS), chance, chance.randrange(20, 41))


# What is ordinary


def _sync(past: Past) -> State:
    past.connector.sync(past.now)
    return past.connector.state


def _rewind(past: Past) -> State | None:
    """Some cursors as they were, or at a time since the first look."""
    return connectors.set_back(past)


def _restore(past: Past) -> State:
    """The whole state as it once was."""
    return past.connector.chance.choice(past.states)[1]


def _reset(past: Past) -> State | None:
    """One table begins again, as it has done before."""
    chance, after = past.connector.chance, copy.deepcopy(past.states[-1][1])
    usual = [
        (path, value)
        for path, value in past.connector.resets()
        if value in [connectors.at(each, path) for _, each in past.states]
    ]
    if not usual:
        return None
    path, value = chance.choice(usual)
    connectors.put(after, path, value)
    return after


ORDINARY: dict[str, Callable[[Past], State | None]] = {
    "sync": _sync,
    "rewind": _rewind,
    "restore": _restore,
    "reset": _reset,
}


def ordinary(kind: str, count: int) -> Iterator[Trial]:
    """So many changes of one kind of `ORDINARY`, always the same ones."""
    seed = 0
    while count:
        past = _past(random.Random(f"{kind} {seed}"))
        seed += 1
        after = ORDINARY[kind](past)
        if after is not None:
            count -= 1
            yield Trial(past, after)


# Mistakes

Mistake = Callable[[Past, Cursor, random.Random], Any]


def _future(past: Past, cursor: Cursor, chance: random.Random) -> Any:
    """The wrong year, month or day, or the clock of another zone."""
    ahead = [chance.randrange(1, 15) * HOUR, chance.randrange(2, 60) * DAY]
    ahead += [chance.randrange(1, 40) * 365 * DAY] * 2
    return cursor.written(past.now + chance.choice(ahead))


def _moment(past: Past, chance: random.Random) -> int:
    return chance.randrange(past.states[0][0], past.now)


def _without_zone(past: Past, cursor: Cursor, chance: random.Random) -> Any:
    written = [connectors.naive, connectors.spaced, connectors.date]
    return chance.choice(written)(_moment(past, chance))


def _other_unit(past: Past, cursor: Cursor, chance: random.Random) -> Any:
    """Seconds for milliseconds or microseconds, and milliseconds for seconds."""
    is_seconds = cursor.written in (connectors.seconds, connectors.fractional_seconds)
    other = connectors.milliseconds if is_seconds else connectors.seconds
    return other(_moment(past, chance))


def _other_type(past: Past, cursor: Cursor, chance: random.Random) -> Any:
    moment = _moment(past, chance)
    value = cursor.written(moment)
    others: list[Any] = [None, True, [value], {"value": value}]
    others.append(str(moment) if cursor.written in NUMERIC else moment // 1000)
    return chance.choice(others)


def _further_back(past: Past, cursor: Cursor, chance: random.Random) -> Any:
    back = [chance.randrange(2, 60) * DAY, chance.randrange(1, 20) * 365 * DAY, past.now]
    return cursor.written(max(0, past.states[0][0] - chance.choice(back)))


ZONED = (
    connectors.zulu,
    connectors.zulu_with_milliseconds,
    connectors.offset,
    connectors.in_berlin,
    connectors.in_new_york,
)
NUMERIC = (
    connectors.seconds,
    connectors.fractional_seconds,
    connectors.milliseconds,
    connectors.microseconds,
)
_ANY = (*ZONED, connectors.naive, connectors.spaced, connectors.date, *NUMERIC)
_MISTAKES: dict[Kind, tuple[Mistake, tuple[Callable[[int], Any], ...]]] = {
    Kind.FUTURE: (_future, _ANY),
    Kind.LOST_ZONE: (_without_zone, ZONED),
    Kind.OTHER_UNIT: (_other_unit, NUMERIC),
    Kind.ANOTHER_TYPE: (_other_type, _ANY),
    Kind.FURTHER_BACK: (_further_back, _ANY),
}
"""How each kind of mistake is made, and the ways of writing a time in which it can be."""


def mistaken(kind: Kind, count: int) -> Iterator[Trial]:
    """So many mistakes of one kind, always the same ones."""
    seed = 0
    while count:
        trial = _mistaken(kind, random.Random(f"{kind.name} {seed}"))
        seed += 1
        if trial is not None:
            count -= 1
            yield trial


def _mistaken(kind: Kind, chance: random.Random) -> Trial | None:
    """None if the connector has nothing in which one can make this mistake."""
    past = _past(chance)
    after = copy.deepcopy(past.states[-1][1])
    if kind is Kind.REMOVED:
        path = chance.choice(list(_always_there(past)))
        del connectors.at(after, path[:-1])[path[-1]]
        return Trial(past, after, (kind, pointer(path)))
    mistake, forms = _MISTAKES[kind]
    # Only where there is a time now: nothing can be wrong about one that begins.
    cursors = [
        each
        for each in past.connector.cursors()
        if each.written in forms and connectors.at(after, each.path)
    ]
    if not cursors:
        return None
    cursor = chance.choice(cursors)
    connectors.put(after, cursor.path, mistake(past, cursor, chance))
    return Trial(past, after, (kind, pointer(cursor.path)))


def _always_there(past: Past) -> Iterator[Path]:
    every = [set(_keys(each, ())) for _, each in past.states]
    return (path for path in _keys(past.states[-1][1], ()) if all(path in each for each in every))


def _keys(value: Any, path: Path) -> Iterator[Path]:
    for key, member in value.items() if isinstance(value, dict) else ():
        yield (*path, key)
        yield from _keys(member, (*path, key))


def pointer(path: Path) -> str:
    tokens = (str(key).replace("~", "~0").replace("/", "~1") for key in path)
    return "".join(f"/{token}" for token in tokens)
