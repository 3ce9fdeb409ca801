"""Warnings find what people get wrong in a cursor, and are silent about what is usual."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import warnings as benchmark
from fivetran_state import state
from fivetran_state.history import warnings
from fivetran_state.history.warnings import Kind, Known, Oddities, Oddity, chosen, warnings_for
from tests.support.connector_states import (
    DAY,
    HOUR,
    MINUTE,
    date,
    milliseconds,
    naive,
    offset,
    seconds,
    spaced,
    zulu,
    zulu_with_milliseconds,
)
from tests.support.mistakes import ORDINARY, mistaken, ordinary, warned

NOW = 1_790_000_000_000


def odd(new: Any, *usual: Any) -> list[Oddity]:
    """The warnings of a cursor that becomes `new`; it had each of the usual values for an hour."""
    states = [(NOW - HOUR * (len(usual) - n), {"cursor": each}) for n, each in enumerate(usual)]
    return warned(states[-1][1], {"cursor": new}, states, NOW).first


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


def test_what_a_zone_leads_out_of_all_years_is_no_time() -> None:
    times = [f"0001-01-01T0{hour}:00:00+14:00" for hour in range(6)]
    assert odd(times[0], *times[1:]) == []


def test_a_number_that_goes_up_and_down_is_no_cursor() -> None:
    assert odd(1, 30, 12, 25, 8, 40) == []
    assert [each.kind for each in odd(1, 10, 20, 30, 40)] == [Kind.FURTHER_BACK]


def test_a_cursor_that_goes_backwards_may_go_on() -> None:
    assert odd(ago(9), *reversed(USUAL)) == []


def test_a_key_that_was_always_there_is_missed_at_its_top() -> None:
    before = {"tables": {"orders": {"cursor": ago(1), "id": 3}}, "other": 1}
    states = [(NOW - n * HOUR, before) for n in range(6, 0, -1)]

    [oddity] = warned(before, {"tables": {}, "other": 1}, states, NOW).first

    assert (oddity.kind, oddity.path) == (Kind.REMOVED, "/tables/orders")


def test_a_key_that_comes_and_goes_is_not_missed() -> None:
    before = {"cursor": ago(1), "token": "x"}
    states = [(NOW - n * HOUR, before if n % 2 else {"cursor": ago(n)}) for n in range(8, 0, -1)]

    assert warned(before, {"cursor": ago(1)}, states, NOW).total == 0


def test_nothing_is_odd_about_a_value_without_a_history() -> None:
    before = {"cursor": ago(1)}

    assert warned(before, before | {"new": zulu(NOW + 999 * DAY)}, [(NOW, before)], NOW).total == 0


def test_there_are_only_so_many_warnings_and_the_rest_is_counted() -> None:
    before = {f"table_{n}": ago(1) for n in range(3000)}
    after = dict.fromkeys(before, 5)

    oddities = warned(before, after, [(NOW - HOUR, before)] * 6, NOW)

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


# Of many changes; benchmarks/warnings.py prints the figures.


@pytest.mark.parametrize("kind", Kind)
def test_nearly_all_mistakes_are_named_by_kind_and_place(kind: Kind) -> None:
    missed = [trial for trial in mistaken(kind, 30) if not trial.is_named]

    assert len(missed) <= 3, [trial.connector for trial in missed]


@pytest.mark.parametrize("kind", ORDINARY)
def test_what_is_ordinary_raises_hardly_a_warning(kind: str) -> None:
    alarms = [trial for trial in ordinary(kind, 50) if trial.warnings().total]

    assert len(alarms) <= 1, [(trial.connector, trial.warnings().first) for trial in alarms]


@pytest.mark.slow
def test_of_all_mistakes_one_in_twenty_is_missed_at_most() -> None:
    missed, where = benchmark.missed(300)

    assert missed.total() <= 0.05 * 300 * len(Kind), where
    assert max(missed.values()) <= 0.1 * 300, where


@pytest.mark.slow
def test_of_two_thousand_ordinary_changes_one_in_fifty_raises_a_warning_at_most() -> None:
    alarms, where = benchmark.false_alarms(500)

    assert alarms.total() <= 0.02 * 500 * len(ORDINARY), where
