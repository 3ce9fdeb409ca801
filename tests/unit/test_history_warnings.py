"""Warnings find what people get wrong in a cursor, and are silent about what is usual."""

import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from fivetran_state import state
from fivetran_state.history import warnings
from fivetran_state.history.warnings import Kind, Known, Oddities, Oddity, chosen, warnings_for
from tests.support import connector_states as connectors
from tests.support.connector_states import (
    CONNECTORS,
    DAY,
    HOUR,
    MINUTE,
    Past,
    date,
    milliseconds,
    naive,
    offset,
    past_of,
    seconds,
    set_back,
    spaced,
    zulu,
    zulu_with_milliseconds,
)

NOW = 1_790_000_000_000


def document(value: Any) -> state.State:
    return state.parse(json.dumps(value))


def found(before: Any, after: Any, states: list[tuple[int, Any]], now: int) -> Oddities:
    known = [Known(seen, document(each)) for seen, each in chosen(states)]
    return warnings_for(document(before), document(after), known, now)


def odd(new: Any, *usual: Any) -> list[Oddity]:
    """The warnings of a cursor that becomes `new`; it had each of the usual values for an hour."""
    states = [(NOW - HOUR * (len(usual) - n), {"cursor": each}) for n, each in enumerate(usual)]
    return found(states[-1][1], {"cursor": new}, states, NOW).first


def ago(hours: int) -> str:
    return zulu(NOW - hours * HOUR)


USUAL = [ago(hours) for hours in (5, 4, 3, 2, 1)]


@pytest.mark.parametrize(
    ("new", "kind"),
    [
        (zulu(NOW + HOUR), Kind.FUTURE),
        (zulu(NOW + 3650 * DAY), Kind.FUTURE),
        (ago(6), Kind.FURTHER_BACK),
        ("1970-01-01T00:00:00Z", Kind.FURTHER_BACK),
        (naive(NOW - 2 * HOUR), Kind.LOST_ZONE),
        (spaced(NOW - 2 * HOUR), Kind.LOST_ZONE),
        (date(NOW), Kind.LOST_ZONE),
        (seconds(NOW - 2 * HOUR), Kind.ANOTHER_TYPE),
        (str(seconds(NOW - 2 * HOUR)), Kind.ANOTHER_TYPE),
        ("2026-13-01T00:00:00Z", Kind.ANOTHER_TYPE),
        ("yesterday", Kind.ANOTHER_TYPE),
        ("", Kind.ANOTHER_TYPE),
        (None, Kind.ANOTHER_TYPE),
        ({"value": ago(2)}, Kind.ANOTHER_TYPE),
        ([ago(2)], Kind.ANOTHER_TYPE),
        (True, Kind.ANOTHER_TYPE),
    ],
)
def test_a_cursor_is_odd_that_is(new: Any, kind: Kind) -> None:
    [oddity] = odd(new, *USUAL)

    assert (oddity.kind, oddity.path) == (kind, "/cursor")


@pytest.mark.parametrize(
    "new",
    [
        ago(3),
        zulu(NOW - 150 * MINUTE),
        zulu(NOW),
        zulu_with_milliseconds(NOW - 2 * HOUR),
        offset(NOW - 2 * HOUR),
        "2026-09-21T17:13:20+03:00",
    ],
)
def test_a_cursor_is_usual_that_is_between_what_was_and_now(new: str) -> None:
    assert odd(new, *USUAL) == []


def test_a_warning_names_what_was_usual_and_what_is_new() -> None:
    [oddity] = odd(ago(9), *USUAL)

    assert oddity == Oddity(Kind.FURTHER_BACK, "/cursor", f"not before {ago(5)}", ago(9))


@pytest.mark.parametrize(("usual", "new"), [(milliseconds, seconds), (seconds, milliseconds)])
def test_seconds_and_milliseconds_are_told_apart(
    usual: Callable[[int], int], new: Callable[[int], int]
) -> None:
    [oddity] = odd(new(NOW - HOUR), *(usual(NOW - hours * HOUR) for hours in (3, 2, 1)))

    assert oddity.kind is Kind.OTHER_UNIT
    assert {oddity.usual.split(",")[0], oddity.new.split(":")[0]} == {"seconds", "milliseconds"}


def test_a_time_that_is_always_ahead_is_usual() -> None:
    usual = [seconds(NOW - hours * HOUR + DAY) for hours in (3, 2, 1)]

    assert odd(seconds(NOW + DAY - MINUTE), *usual) == []
    assert [each.kind for each in odd(seconds(NOW + 3 * DAY), *usual)] == [Kind.FUTURE]


def test_numbers_that_only_look_like_times_have_no_future() -> None:
    ids = [8_000_000_000 + 100_000 * number for number in range(6)]

    assert odd(ids[-1] + 10_000_000, *ids) == []


def test_a_number_that_goes_up_and_down_is_no_cursor() -> None:
    assert odd(1, 30, 12, 25, 8, 40) == []
    assert [each.kind for each in odd(1, 10, 20, 30, 40)] == [Kind.FURTHER_BACK]


def test_a_cursor_that_goes_backwards_may_go_on() -> None:
    assert odd(ago(9), *reversed(USUAL)) == []


def test_a_key_that_was_always_there_is_missed_at_its_top() -> None:
    before = {"tables": {"orders": {"cursor": ago(1), "id": 3}}, "other": 1}
    states = [(NOW - n * HOUR, before) for n in range(6, 0, -1)]

    [oddity] = found(before, {"tables": {}, "other": 1}, states, NOW).first

    assert (oddity.kind, oddity.path) == (Kind.REMOVED, "/tables/orders")


def test_a_key_that_comes_and_goes_is_not_missed() -> None:
    before = {"cursor": ago(1), "token": "x"}
    states = [(NOW - n * HOUR, before if n % 2 else {"cursor": ago(n)}) for n in range(8, 0, -1)]

    assert found(before, {"cursor": ago(1)}, states, NOW).total == 0


def test_nothing_is_odd_about_a_value_without_a_history() -> None:
    before = {"cursor": ago(1)}

    assert found(before, before | {"new": zulu(NOW + 999 * DAY)}, [(NOW, before)], NOW).total == 0


def test_there_are_only_so_many_warnings_and_the_rest_is_counted() -> None:
    before = {f"table_{n}": ago(1) for n in range(3000)}
    after = dict.fromkeys(before, 5)

    oddities = found(before, after, [(NOW - HOUR, before)] * 6, NOW)

    assert len(oddities.first) == warnings.MAX_WARNINGS
    assert oddities.total == warnings.MAX_CHANGES
    assert len(json.dumps([vars(each) for each in oddities.first])) < 10_000


@pytest.mark.parametrize("text", ['{"a":1e999999}', '{"a":-1e99999}', '{"a":' + "9" * 5000 + "}"])
def test_numbers_of_any_size_are_looked_at(text: str) -> None:
    known = [Known(NOW, state.parse(f'{{"a":{n}}}')) for n in (1, 2, 3, NOW)]

    warnings_for(state.parse('{"a":4}'), state.parse(text), known, NOW)
    warnings_for(state.parse(text), state.parse('{"a":4}'), known, NOW)


def test_what_is_no_state_has_no_warnings() -> None:
    raw = state.document("[1]")

    assert warnings_for(raw, {"a": 1}, [Known(NOW, raw)], NOW) == Oddities([], 0)


def test_the_oldest_and_the_latest_states_are_among_the_chosen() -> None:
    assert chosen(range(50)) == list(range(50))
    for count in (51, 99, 1000):
        some = chosen(range(count))
        assert len(set(some)) == len(some) == warnings.MAX_KNOWN
        assert some == sorted(some)
        assert (some[0], some[-25:]) == (0, list(range(count - 25, count)))
    assert chosen(range(9), 2) == [0, 8]


# The evaluation: what is found, of a thousand ordinary changes and of as many mistakes.


def _past(chance: random.Random, kinds: tuple[type[connectors.Connector], ...]) -> Past:
    return past_of(chance.choice(kinds), chance, chance.randrange(12, 200))


@pytest.mark.slow
def test_of_a_thousand_ordinary_syncs_and_rewinds_few_raise_a_warning() -> None:
    alarms: Counter[str] = Counter()
    for seed in range(1000):
        past = _past(random.Random(f"ordinary {seed}"), CONNECTORS)
        before = past.states[-1][1]
        after = set_back(past) if seed % 2 else None
        if after is None:
            past.connector.sync(past.now)
            after = past.connector.state
        oddities = found(before, after, past.states, past.now)
        if oddities.total:
            alarms[f"{type(past.connector).__name__} {oddities.first[0].kind.value}"] += 1

    assert alarms.total() <= 20, alarms


Mistake = Callable[[Past, connectors.Cursor, random.Random], Any]


def _future(past: Past, cursor: connectors.Cursor, chance: random.Random) -> Any:
    """The wrong year, month or day, or the clock of another zone."""
    ahead = [chance.randrange(1, 15) * HOUR, chance.randrange(2, 60) * DAY]
    ahead += [chance.randrange(1, 40) * 365 * DAY] * 2
    return cursor.written(past.now + chance.choice(ahead))


def _without_zone(past: Past, cursor: connectors.Cursor, chance: random.Random) -> Any:
    moment = chance.randrange(past.states[0][0], past.now)
    return chance.choice([naive, spaced, date])(moment)


def _other_unit(past: Past, cursor: connectors.Cursor, chance: random.Random) -> Any:
    moment = chance.randrange(past.states[0][0], past.now)
    return seconds(moment) if cursor.written is milliseconds else milliseconds(moment)


def _other_type(past: Past, cursor: connectors.Cursor, chance: random.Random) -> Any:
    moment = chance.randrange(past.states[0][0], past.now)
    others: list[Any] = [None, True, [cursor.written(moment)], {"value": cursor.written(moment)}]
    others.append(str(moment) if cursor.written in (seconds, milliseconds) else moment // 1000)
    return chance.choice(others)


def _further_back(past: Past, cursor: connectors.Cursor, chance: random.Random) -> Any:
    back = [chance.randrange(2, 60) * DAY, chance.randrange(1, 20) * 365 * DAY, past.now]
    return cursor.written(max(0, past.states[0][0] - chance.choice(back)))


ZONED = (zulu, zulu_with_milliseconds, offset)
MISTAKES: dict[Kind, tuple[Mistake, tuple[Callable[[int], Any], ...]]] = {
    Kind.FUTURE: (_future, (*ZONED, naive, spaced, date, seconds, milliseconds)),
    Kind.LOST_ZONE: (_without_zone, ZONED),
    Kind.OTHER_UNIT: (_other_unit, (seconds, milliseconds)),
    Kind.ANOTHER_TYPE: (_other_type, (*ZONED, naive, spaced, date, seconds, milliseconds)),
    Kind.FURTHER_BACK: (_further_back, (*ZONED, naive, spaced, date, seconds, milliseconds)),
}


def _mistaken(kind: Kind, seed: int) -> tuple[Past, dict[str, Any], connectors.Path] | None:
    """A past, a state with a mistake, and its place; None if this connector has nothing to mistake."""
    chance = random.Random(f"mistake {kind.name} {seed}")
    past = _past(chance, CONNECTORS)
    after = copy.deepcopy(past.states[-1][1])
    if kind is Kind.REMOVED:
        paths = [
            path
            for path in _keys(after, ())
            if all(path in set(_keys(each, ())) for _, each in past.states)
        ]
        path = chance.choice(paths)
        del connectors.at(after, path[:-1])[path[-1]]
        return past, after, path
    mistake, forms = MISTAKES[kind]
    cursors = [each for each in past.connector.cursors() if each.written in forms]
    if not cursors:
        return None
    cursor = chance.choice(cursors)
    connectors.put(after, cursor.path, mistake(past, cursor, chance))
    return past, after, cursor.path


def _keys(value: Any, path: connectors.Path) -> list[connectors.Path]:
    if not isinstance(value, dict):
        return []
    return [
        each
        for key, member in value.items()
        for each in ((*path, key), *_keys(member, (*path, key)))
    ]


@pytest.mark.slow
def test_of_the_mistakes_that_people_make_nearly_all_are_found_by_kind_and_place() -> None:
    made: Counter[Kind] = Counter()
    missed: Counter[Kind] = Counter()
    for kind in Kind:
        for seed in range(200):
            mistaken = _mistaken(kind, seed)
            if mistaken is None:
                continue
            past, after, path = mistaken
            oddities = found(past.states[-1][1], after, past.states, past.now)
            pointer = "".join(f"/{key}".replace("/acme/", "/acme~1") for key in path)
            made[kind] += 1
            if [(each.kind, each.path) for each in oddities.first] != [(kind, pointer)]:
                missed[kind] += 1

    assert min(made.values()) >= 30, made
    assert missed.total() <= 0.05 * made.total(), (missed, made)
    for kind in Kind:
        assert missed[kind] <= 0.1 * made[kind], (missed, made)
