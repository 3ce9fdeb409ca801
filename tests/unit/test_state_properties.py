import json
import math
import random
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import jsonpatch
import jsonpointer
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fivetran_state.state import (
    Change,
    InvalidChange,
    InvalidState,
    JsonValue,
    NotThere,
    OutlineEntry,
    State,
    adopt,
    applied,
    apply,
    at,
    diff,
    differences,
    document,
    dump,
    hides,
    inexact,
    matches,
    number,
    outline,
    parse,
    parse_answer,
    parse_value,
    part_of,
    plain,
    same,
    search,
    shown_path,
    version,
)
from fivetran_state.text import HIDDEN, visible

examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def joined(text: str) -> str:
    """JSON cannot express a split surrogate pair: it is one character."""
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
merge_patches = states.filter(bool)


def escaped(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return '"' + re.sub("....", lambda unit: f"\\u{unit[0]}", units) + '"'


def written(value: JsonValue, rng: random.Random | None = None) -> str:
    """JSON, not written by `dump`; `rng` changes its order, white space and escapes."""
    space = rng.choice(["", " ", "\n\t"]) if rng else ""
    if isinstance(value, str):
        return escaped(value) if rng and rng.random() < 0.3 else json.dumps(value)
    if isinstance(value, dict):
        pairs = [
            f"{space}{written(key, rng)}{space}:{written(member, rng)}"
            for key, member in value.items()
        ]
        if rng:
            rng.shuffle(pairs)
        return f"{space}{{{','.join(pairs)}}}{space}"
    if isinstance(value, list):
        return f"[{','.join(written(item, rng) for item in value)}{space}]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def tokens(text: str) -> Any:
    """The content of a text, by Python's own parser, with the spelling of numbers."""
    return json.loads(text, parse_int=lambda n: ("#", n), parse_float=lambda n: ("#", n))


def javascript(spelling: str) -> str:
    """JSON.stringify(JSON.parse(spelling)) of a number, by ECMAScript's Number::toString."""
    double = float(spelling)
    if not math.isfinite(double):
        return "null"
    if double == 0:
        return "0"
    shortest = next(
        text
        for text in (f"{abs(double):.{places}e}" for places in range(17))
        if float(text) == abs(double)
    )
    mantissa, _, exponent = shortest.partition("e")
    digits = mantissa.replace(".", "").rstrip("0")
    point = int(exponent) + 1
    sign = "-" if double < 0 else ""
    if 0 < point <= 21:
        whole, fraction = digits[:point].ljust(point, "0"), digits[point:]
        return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def pointers(value: JsonValue, path: str = "") -> Iterator[str]:
    """Every place in a value."""
    yield path
    members: Any = value.items() if isinstance(value, dict) else ()
    members = enumerate(value) if isinstance(value, list) else members
    for key, member in members:
        yield from pointers(member, f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}")


def alike(a: Any, b: Any) -> bool:
    """The rule of `same` for scalars, defined differently."""
    if not isinstance(a, Decimal) or not isinstance(b, Decimal):
        return type(a) is type(b) and bool(a == b)
    if {".", "e", "E"}.isdisjoint(str(a)) or {".", "e", "E"}.isdisjoint(str(b)):
        return str(a) == str(b)
    return a == b and a.is_signed() == b.is_signed()


@pytest.mark.slow
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
@given(states, st.randoms(use_true_random=False))
def test_what_is_written_can_be_read_back(state: State, rng: random.Random) -> None:
    after = apply(Change("new_state", state), {})
    for text in (dump(after), written(after, rng)):
        answer = parse_answer(f'{{"code":"Success","data":{{"state":{text}}}}}'.encode())
        assert same(answer["data"]["state"], after)
        assert version(answer["data"]["state"]) == version(after)


@examples
@given(st.text('{}[]",:01eE+-\\ud8ntfNa \n', max_size=20))
def test_any_text_is_a_document_as_python_reads_it(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        found = None
    else:
        found = document(text)
        assert document(dump(found)) == found
        assert isinstance(found, dict) or found.text == text.strip()
    content = f'{{"data":{{"x":[],"state":{text}\n}},"y":1}}'.encode()
    try:
        again = parse_answer(content)["data"]["state"]
    except InvalidState:
        assert found is None
    else:
        # A text may be JSON only together with the text around it.
        assert found is None or same(again, found) or again is None


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
    state |= {"leaf": leaf}  # There is always one such value.
    places = [path for path in pointers(state) if not isinstance(at(state, path), dict | list)]
    path = data.draw(st.sampled_from(places))
    old = at(state, path)
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
    value = number(spelling)
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    mantissa = "".join(map(str, digits)) + "0" * (zeros if value else 0)
    assert same(value, number(f"{'-' if sign else ''}{mantissa}e{exponent - zeros}"))


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
@given(states, merge_patches)
def test_a_merge_patch_applied_twice_is_applied_once(state: State, patch: State) -> None:
    once = apply(Change("merge_patch", patch), state)
    assert dump(apply(Change("merge_patch", patch), once)) == dump(once)


# The library's own diff treats 1 and true as equal.
plain_objects = objects(st.none() | st.booleans() | st.integers(2, 9) | texts)


@examples
@given(plain_objects, plain_objects)
def test_a_json_patch_of_the_library_leads_to_its_target(before: State, after: State) -> None:
    patch = jsonpatch.make_patch(before, after).patch
    assume(patch)
    assert same(apply(Change("json_patch", adopt(patch)), before), after)


@pytest.mark.slow
@examples
@given(states, states)
def test_a_diff_is_a_patch(before: State, after: State) -> None:
    patch: JsonValue = [
        {"op": entry.op, "path": entry.path, "value": entry.after}
        for entry in differences(before, after)
    ]
    assume(patch)
    assert same(apply(Change("json_patch", patch), before), after)


@examples
@given(states, states, st.integers(0, 5))
def test_a_limited_diff_begins_like_the_whole(before: State, after: State, limit: int) -> None:
    every = diff(before, after, limit=10_000)
    assert len(every.changes) == every.total
    assert diff(before, after, limit).changes == every.changes[:limit]
    assert diff(before, after, limit).total == every.total
    assert list(differences(before, after)) == every.changes


@pytest.mark.slow
@examples
@given(states, merge_patches, st.booleans())
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


numbers = spellings.filter(lambda spelling: math.isfinite(float(spelling)))


@examples
@given(objects(texts | numbers.map(parse_value)))
def test_a_state_sent_back_by_javascript_loses_nothing(state: State) -> None:
    def number(text: str) -> Any:
        return json.loads(javascript(text))

    sent = adopt(json.loads(dump(state), parse_int=number, parse_float=number))
    found = applied(Change("new_state", sent, exact=False), state)
    assert dump(found.after) == dump(state)
    assert found.kept_total == diff(sent, state).total
    assert found.kept == tuple(shown_path(entry.path) for entry in differences(sent, state))


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[str, str]:
    """The spellings of a number and of another number that is near it, or printed for it."""
    spelling = draw(numbers)
    printed = javascript(spelling)
    near = [printed, repr(float(spelling)), str(int(float(spelling)))]
    if "e" not in printed and "." not in printed:
        near += [str(int(printed) + draw(st.integers(-300, 300))), f"{printed}.0"]
    return spelling, draw(st.sampled_from(near) | numbers)


@examples
@given(neighbours())
def test_only_what_javascript_prints_is_a_rounding(pair: tuple[str, str]) -> None:
    spelling, sent = pair
    old, new = parse_value(spelling), adopt(json.loads(sent))
    after = apply(Change("merge_patch", {"n": new}, exact=False), {"n": old})["n"]
    printed = javascript(spelling)
    if sent.lstrip("-").isdigit():
        rounding = str(int(sent)) == printed
    else:
        rounding = not printed.lstrip("-").isdigit() and float(sent) == float(printed)
        # JavaScript prints 0, but this program shows -0.0.
        rounding |= repr(float(sent)) == repr(float(spelling)) == "-0.0"
    assert dump(after) == dump(old if rounding or same(old, new) else new)


def without(state: State, pointer: str) -> State:
    state = parse(dump(state))
    above, _, last = pointer.rpartition("/")
    try:
        at(state, pointer)
    except NotThere:
        return state
    parent: Any = at(state, above)
    if isinstance(parent, dict):
        del parent[last.replace("~1", "/").replace("~0", "~")]
    else:
        del parent[int(last)]
    return state


@examples
@given(states, states, st.data())
def test_a_part_is_what_it_was_and_nothing_else_changes(
    source: State, state: State, data: st.DataObject
) -> None:
    places = [*pointers(source), *pointers(state), "/a/b", "/0/0"]
    pointer = data.draw(st.sampled_from([place for place in places if place]))
    change = part_of(source, pointer)
    try:
        wanted = at(source, pointer)
    except NotThere:
        assert dump(apply(change, state)) == dump(without(state, pointer))
        return
    try:
        after = apply(change, state)
    except InvalidChange:
        assume(not pointer.endswith("/-"))
        add: JsonValue = [{"op": "add", "path": pointer, "value": 1}]
        with pytest.raises(InvalidChange):
            apply(Change("json_patch", add), state)
        return
    assert dump(at(after, pointer)) == dump(wanted)
    assert dump(without(after, pointer)) == dump(without(state, pointer))


places = st.sampled_from(["", "/a", "/a/b", "/a/0", "/a/-", "/b", "/b/1", "/b/b"])
small = st.recursive(
    st.integers(2, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=8,
)


@examples
@given(
    st.fixed_dictionaries({"a": small, "b": small}),
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": places,
                "from": places,
                "value": small,
            }
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_a_json_patch_does_what_the_library_does(state: State, patch: list[dict[str, Any]]) -> None:
    try:
        expected = jsonpatch.apply_patch(state, patch)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError):
        expected = None
    change = Change("json_patch", list(patch))
    if isinstance(expected, dict):
        assert apply(change, state) == expected
    else:
        with pytest.raises(InvalidChange):
            apply(change, state)


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
    entries = outline(value, max_bytes=max_bytes).entries
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
@given(trees(leaves), st.integers(200, 1500))
def test_the_pages_of_an_outline_list_everything_once(value: JsonValue, max_bytes: int) -> None:
    whole = outline(value, max_bytes=1_000_000).entries
    listed: list[OutlineEntry] = []
    start: int | None = 0
    while start is not None:
        page = outline(value, max_bytes=max_bytes, start=start)
        assert len(dump([vars(entry) for entry in page.entries])) <= max_bytes
        max_bytes *= 2 if page.next_start == start else 1
        listed += [entry for entry in page.entries if entry.type != "more"]
        start = page.next_start
    assert listed == whole


@examples
@given(trees(leaves), texts.filter(bool), st.integers(200, 1500))
def test_the_pages_of_a_search_list_every_match_once(
    value: JsonValue, text: str, max_bytes: int
) -> None:
    listed: list[OutlineEntry] = []
    start: int | None = 0
    while start is not None:
        page = search(value, text, max_bytes=max_bytes, start=start)
        assert len(dump([vars(entry) for entry in page.entries])) <= max_bytes
        max_bytes *= 2 if page.next_start == start else 1
        listed += page.entries
        start = page.next_start
    assert listed == list(matches(value, text))
    assert page.total == len(listed)


@examples
@given(trees(leaves), texts.filter(bool))
def test_a_search_finds_exactly_the_paths_in_which_the_text_is_new(
    value: JsonValue, text: str
) -> None:
    def occurrences(pointer: str) -> int:
        readable = pointer.replace("~1", "/").replace("~0", "~").casefold()
        wanted = text.replace("~1", "/").replace("~0", "~").casefold()
        return sum(readable.startswith(wanted, at) for at in range(len(readable)))

    assert [entry.path for entry in matches(value, text)] == [
        shown_path(pointer)
        for pointer in pointers(value)
        if pointer and occurrences(pointer) > occurrences(pointer.rpartition("/")[0])
    ]


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
