import json
import math
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import jsonpatch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fivetran_state.state import (
    Change,
    InvalidChange,
    InvalidState,
    JsonValue,
    Number,
    State,
    adopt,
    apply,
    at,
    diff,
    dump,
    hides,
    inexact,
    outline,
    parse,
    parse_value,
    plain,
    same,
    shown_path,
    version,
)
from fivetran_state.text import HIDDEN, visible

examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def joined(text: str) -> str:
    """JSON cannot carry a pair of surrogates apart: it is one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def concatenated(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map("".join)


characters = st.characters(exclude_categories=()) | st.sampled_from('aé\x00\x7f😀\ud800\udfff~/"\\')
texts = st.text(characters, max_size=6).map(joined)
keys = st.sampled_from(["a", "b", "c", "~", "/", "", "0"]) | texts

fractions = concatenated(
    st.sampled_from(["", "-"]),
    st.from_regex(r"\A(0|[1-9][0-9]{0,40})\Z"),
    st.from_regex(r"\A(\.[0-9]{1,40}|\.[0-9]{1,3}[eE][+-]?[0-9]{1,4}|[eE][+-]?[0-9]{1,9})\Z"),
)
spellings = (
    st.sampled_from(["0", "-0", "1", "1.0", "1.10", "1.1", "-0.0", "0.0", "1e2", "100", "100.0"])
    | st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})\Z")
    | fractions
)
leaves = st.none() | st.booleans() | texts | spellings.map(parse_value)


def trees(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


def objects(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(keys, trees(leaf), max_size=5)


states = objects(leaves)


def written(value: JsonValue, rng: random.Random | None = None) -> str:
    """JSON by other means than `dump`; with `rng`, in any order and with any white space."""
    space = rng.choice(["", " ", "\n\t"]) if rng else ""
    if isinstance(value, dict):
        pairs = [
            f"{space}{json.dumps(key)}{space}:{written(member, rng)}"
            for key, member in value.items()
        ]
        if rng:
            rng.shuffle(pairs)
        return f"{space}{{{','.join(pairs)}}}{space}"
    if isinstance(value, list):
        return f"[{','.join(written(item, rng) for item in value)}{space}]"
    return str(value) if isinstance(value, Number) else json.dumps(value)


def tokens(text: str) -> Any:
    """What a text says, numbers as they are spelled, by Python's own parser."""
    return json.loads(text, parse_int=lambda n: ("#", n), parse_float=lambda n: ("#", n))


def pointers(value: JsonValue, path: str = "") -> Iterator[str]:
    """Every place in a value."""
    yield path
    members: Any = value.items() if isinstance(value, dict) else ()
    members = enumerate(value) if isinstance(value, list) else members
    for key, member in members:
        yield from pointers(member, f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}")


def alike(a: Any, b: Any) -> bool:
    """The rule of `same` for scalars, in other words."""
    if not isinstance(a, Number) or not isinstance(b, Number):
        return type(a) is type(b) and bool(a == b)
    if {".", "e", "E"}.isdisjoint(str(a)) or {".", "e", "E"}.isdisjoint(str(b)):
        return str(a) == str(b)
    return a == b and a.is_signed() == b.is_signed()


@examples
@given(states, st.randoms(use_true_random=False))
def test_every_spelling_survives_parsing_and_dumping(state: State, rng: random.Random) -> None:
    text = written(state, rng)
    again = dump(parse(text))
    assert again.isascii()
    assert tokens(again) == tokens(text)
    assert list(tokens(again)) == list(tokens(text))
    assert dump(parse(again)) == dump(parse(again.encode())) == again


@examples
@given(states)
def test_adopting_an_own_value_changes_nothing(state: State) -> None:
    assert dump(adopt(state)) == dump(state)


@examples
@given(states, st.randoms(use_true_random=False))
def test_a_version_ignores_key_order_and_white_space(state: State, rng: random.Random) -> None:
    again = parse(written(state, rng))
    assert version(again) == version(state)
    assert same(again, state)


@examples
@given(states, leaves, st.data())
def test_a_version_changes_with_any_leaf(
    state: State, leaf: JsonValue, data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(list(pointers(state))))
    old = at(state, path)
    assume(path and not isinstance(old, dict | list))
    patch: JsonValue = [{"op": "replace", "path": path, "value": leaf}]
    changed = apply(Change("json_patch", patch), state)
    assert (version(changed) == version(state)) == alike(leaf, old)


@examples
@given(leaves, leaves)
def test_scalars_are_the_same_by_type_and_value(a: JsonValue, b: JsonValue) -> None:
    assert same(a, b) == same([a], [b]) == alike(a, b)


@examples
@given(fractions, st.integers(0, 9))
def test_a_decimal_is_the_same_however_it_is_spelled(spelling: str, zeros: int) -> None:
    number = Number(spelling)
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    mantissa = "".join(map(str, digits)) + "0" * (zeros if number else 0)
    assert same(number, Number(f"{'-' if sign else ''}{mantissa}e{exponent - zeros}"))


@examples
@given(states, states)
def test_a_new_state_differs_from_the_target_in_nothing(before: State, after: State) -> None:
    assert diff(apply(Change("new_state", after), before), after).total == 0
    assert (diff(before, after).total == 0) == same(before, after)


@examples
@given(states, st.randoms(use_true_random=False))
def test_key_order_and_spelling_are_no_difference(state: State, rng: random.Random) -> None:
    assert diff(state, parse(written(state, rng))).total == 0


@examples
@given(states, states)
def test_a_merge_patch_applied_twice_is_applied_once(state: State, patch: State) -> None:
    once = apply(Change("merge_patch", patch), state)
    assert dump(apply(Change("merge_patch", patch), once)) == dump(once)


# The library's own diff holds 1 and true to be the same.
plain_objects = objects(st.none() | st.booleans() | st.integers(2, 9) | texts)


@examples
@given(plain_objects, plain_objects)
def test_a_json_patch_of_the_library_leads_to_its_target(before: State, after: State) -> None:
    patch = jsonpatch.make_patch(before, after).patch
    assert same(apply(Change("json_patch", adopt(patch)), before), after)


@examples
@given(states, states)
def test_a_diff_is_a_patch(before: State, after: State) -> None:
    patch: JsonValue = [
        {"op": entry.op, "path": entry.path, "value": entry.after}
        for entry in diff(before, after, limit=10_000).changes
    ]
    assert same(apply(Change("json_patch", patch), before), after)


@examples
@given(states, states, st.integers(0, 5))
def test_a_limited_diff_begins_like_the_whole(before: State, after: State, limit: int) -> None:
    every = diff(before, after, limit=10_000)
    assert len(every.changes) == every.total
    assert diff(before, after, limit).changes == every.changes[:limit]
    assert diff(before, after, limit).total == every.total


@examples
@given(states, states, st.booleans())
def test_what_a_merge_patch_does_not_name_keeps_its_spelling(
    state: State, patch: State, exact: bool
) -> None:
    result = apply(Change("merge_patch", patch, exact), state)
    kept = {key: member for key, member in state.items() if key not in patch}
    assert dump({key: result[key] for key in kept}) == dump(kept)


@examples
@given(states, leaves, st.booleans())
def test_what_a_json_patch_does_not_name_keeps_its_spelling(
    state: State, leaf: JsonValue, exact: bool
) -> None:
    patch: JsonValue = [
        {"op": "add", "path": "/here", "value": {}},
        {"op": "copy", "from": "", "path": "/here/copied"},
        {"op": "add", "path": "/new", "value": leaf},
    ]
    result = apply(Change("json_patch", patch, exact), state)
    kept = {key: member for key, member in state.items() if key not in ("here", "new")}
    assert dump({key: result[key] for key in kept}) == dump(kept)
    assert dump({key: result["here"]["copied"][key] for key in kept}) == dump(kept)


@examples
@given(objects(texts | fractions.filter(lambda n: math.isfinite(float(n))).map(Number)))
def test_a_state_sent_back_through_doubles_loses_nothing(state: State) -> None:
    sent_back = adopt(json.loads(dump(state)))
    assert dump(apply(Change("new_state", sent_back, exact=False), state)) == dump(state)


operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"])},
    optional={
        "path": st.sampled_from(["", "/a", "/a/b", "/a/0", "/a/-", "/b", "/-", "a", "/~"]) | leaves,
        "from": st.sampled_from(["", "/a", "/a/b", "/a/0", "/a/-", "/b", "/-", "a", "/~"]) | leaves,
        "value": trees(leaves),
    },
)


@examples
@given(states, st.lists(operations | trees(leaves), max_size=4) | trees(leaves), st.booleans())
def test_any_json_as_a_patch_is_applied_or_refused(
    state: State, patch: JsonValue, exact: bool
) -> None:
    before = dump([state, patch])
    try:
        result = apply(Change("json_patch", patch, exact), state)
    except InvalidChange as error:
        result, message = state, str(error)
    else:
        message = "applied"
    assert dump(parse(dump(result))) == dump(result)
    assert dump([state, patch]) == before
    assert 0 < len(message) < 500


@examples
@given(st.binary(max_size=20) | st.text('{}[]",:0123456789.eE+-\\u d8ntf', max_size=20))
def test_any_text_is_parsed_as_python_does_or_refused(document: str | bytes) -> None:
    try:
        value = parse_value(document)
    except InvalidState:
        return
    text = document if isinstance(document, str) else document.decode()
    assert tokens(dump(value)) == tokens(text)


@examples
@given(trees(leaves), st.integers(200, 1500))
def test_an_outline_is_true_and_within_its_bound(value: JsonValue, max_bytes: int) -> None:
    entries = outline(value, max_bytes=max_bytes)
    assert len(dump([vars(entry) for entry in entries])) <= max_bytes
    listed = [entry for entry in entries if entry.type != "more"]
    pointer_of = {shown_path(pointer): pointer for pointer in pointers(value)}
    for entry in listed:
        member = at(value, entry.path)
        assert entry.bytes == len(dump(member))
        assert entry.items == (len(member) if isinstance(member, dict | list) else None)
    if listed == entries:
        assert {entry.path for entry in entries} == set(pointer_of) - {""}
    else:
        assert entries[:-1] == listed
        parent = at(value, entries[-1].path)
        assert isinstance(parent, dict | list)
        above = pointer_of[entries[-1].path]
        shown = [e for e in listed if pointer_of[e.path].rpartition("/")[0] == above]
        assert entries[-1].items == len(parent) - len(shown) > 0


@examples
@given(states)
def test_every_path_that_is_shown_leads_to_its_place(state: State) -> None:
    for pointer in pointers(state):
        path = shown_path(pointer)
        assert visible(path) == path
        assert at(state, path) is at(state, pointer)


@examples
@given(trees(texts | st.none() | st.booleans()))
def test_a_plain_value_hides_nothing_and_is_the_value_itself_if_that_hides_nothing(
    value: JsonValue,
) -> None:
    assert HIDDEN.search(json.dumps(plain(value), ensure_ascii=False)) is None
    assert hides(value) or plain(value) == value


@examples
@given(states)
def test_a_plain_value_is_json_for_everyone(state: State) -> None:
    text = json.dumps(plain(state), ensure_ascii=False, allow_nan=False)
    assert text.encode().decode() == text


@examples
@given(spellings)
def test_a_number_is_inexact_if_a_double_would_change_it(spelling: str) -> None:
    number = Decimal(spelling)
    integer = spelling.lstrip("-").isdigit()
    survives = Decimal(repr(float(spelling))) == number and spelling != "-0"
    if integer:
        survives = survives and abs(number) <= 2**53
    assert inexact({"n": parse_value(spelling)}) == ({} if survives else {"/n": spelling})
