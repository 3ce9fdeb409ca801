import copy
import json
import sys
from typing import Any

import pytest

from fivetran_state.state import (
    MAX_BYTES,
    MAX_DEPTH,
    Applied,
    Change,
    InvalidChange,
    InvalidState,
    JsonValue,
    NotThere,
    adopt,
    applied,
    apply,
    at,
    dump,
    parse,
    parse_change,
    parse_value,
    part_of,
    plain,
)
from tests.support.states import CHANGES, DECIMAL_40, nested

# Changes: RFC 7386, appendix A


@pytest.mark.parametrize(
    ("state", "patch", "result"),
    [
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ],
)
def test_a_merge_patch_of_the_rfc(state: str, patch: str, result: str) -> None:
    assert dump(apply(Change("merge_patch", parse(patch)), parse(state))) == result


@pytest.mark.parametrize("patch", ['["c"]', "null", '"bar"', "1", "true"])
def test_a_merge_patch_that_would_replace_the_state_is_refused(patch: str) -> None:
    with pytest.raises(InvalidChange, match="a merge patch is a JSON object"):
        apply(Change("merge_patch", parse_value(patch)), {"a": "foo"})


# Changes: parts


@pytest.mark.parametrize(
    ("state", "part", "result"),
    [
        ('{"a":1,"b":2}', '{"path":"/a","value":1.10}', '{"a":1.10,"b":2}'),
        ('{"a":{}}', '{"path":"/a/b","value":null}', '{"a":{"b":null}}'),
        ('{"a":[1,2]}', '{"path":"/a/0","value":3}', '{"a":[3,2]}'),
        ('{"a":[1,2]}', '{"path":"/a/2","value":3}', '{"a":[1,2,3]}'),
        ('{"a":1}', '{"path":"","value":{"b":2}}', '{"b":2}'),
        ('{"a":[1,2]}', '{"path":"/a/0"}', '{"a":[2]}'),
        ('{"a":1,"b":2}', '{"path":"#/a"}', '{"b":2}'),
        ('{"a":1}', '{"path":"/b"}', '{"a":1}'),
        ('{"a":1}', '{"path":"/b/c"}', '{"a":1}'),
        ('{"a":[1]}', '{"path":"/a/-"}', '{"a":[1]}'),
    ],
)
def test_a_part_is_put_or_removed(state: str, part: str, result: str) -> None:
    change = parse_change("part", part, exact=False)
    assert dump(apply(change, parse(state))) == result


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ('{"path":"/x/y/z","value":1}', "part /x/y/z: nothing at /x/y; the nearest is the top"),
        ('{"path":"/b/c","value":1}', "/b is a number; only an object or array has members"),
        ('{"path":"/a/2","value":1}', "2 is not an index of /a, an array of 1; use 0 to 1"),
        ('{"path":"/a/-","value":1}', "- is not an index of /a, an array of 1; use 0 to 1"),
        ('{"path":"","value":[]}', "the change makes it an array"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(part: str, message: str) -> None:
    with pytest.raises(InvalidChange, match=message):
        apply(parse_change("part", part), {"a": [1], "b": 1})


def test_the_largest_part_can_be_stored() -> None:
    state = parse(nested(MAX_DEPTH))
    stored = dump(part_of(state, "").value)
    assert apply(parse_change("part", stored), {}) == state


def test_a_part_has_a_well_formed_path() -> None:
    with pytest.raises(NotThere, match="not a JSON Pointer"):
        part_of({}, "a")


# Changes: limits, purity, exactness


def test_a_new_state_replaces_the_whole() -> None:
    assert apply(Change("new_state", {"b": 2}), {"a": 1}) == {"b": 2}


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_a_new_state_has_to_be_an_object(value: JsonValue) -> None:
    with pytest.raises(InvalidChange, match="a state is a JSON object"):
        apply(Change("new_state", value), {})


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("change", CHANGES, ids=repr)
def test_neither_the_state_nor_the_change_is_touched(change: Change, exact: bool) -> None:
    change = Change(change.kind, copy.deepcopy(change.value), exact)
    state: dict[str, Any] = {"a": {"b": [1]}, "c": {}}
    result = apply(change, state)
    vandalise(result)
    assert state == {"a": {"b": [1]}, "c": {}}
    assert change.value in [other.value for other in CHANGES]


def vandalise(value: Any) -> None:
    for member in list(value.values()) if isinstance(value, dict) else value:
        if isinstance(member, dict | list):
            vandalise(member)
    value.clear()


def test_the_operations_of_a_patch_do_not_change_each_other() -> None:
    patch = [
        {"op": "add", "path": "/a", "value": []},
        {"op": "add", "path": "/a/-", "value": 1},
    ]
    change = Change("json_patch", patch)
    assert apply(change, {}) == apply(change, {}) == {"a": [1]}


def test_a_change_that_nests_too_deep_is_refused() -> None:
    patch = [{"op": "copy", "from": "/a", "path": "/a" * (MAX_DEPTH - 1) + "/-"}]
    with pytest.raises(InvalidChange, match="deeper than 100 levels"):
        apply(Change("json_patch", patch), parse(nested(MAX_DEPTH)))


def test_a_change_that_grows_too_large_is_refused() -> None:
    half = {"b": "x" * (MAX_BYTES // 2)}
    with pytest.raises(InvalidChange, match="larger than 9,999,999 bytes"):
        apply(Change("merge_patch", half), {"a": half["b"]})


@pytest.mark.parametrize("depth", ["wide", "deep"])
def test_a_patch_that_doubles_the_state_again_and_again_is_refused_soon(depth: str) -> None:
    patch = [
        {"op": "copy", "from": "" if depth == "deep" else "/a", "path": f"/a/{n}"}
        for n in range(60)
    ]
    with pytest.raises(InvalidChange):
        apply(Change("json_patch", patch), {"a": {"x": "y" * 100_000}})


@pytest.mark.slow
def test_a_patch_copies_so_many_values_and_no_more() -> None:
    state = {"a": [[1]] * 49_999 + [1]}  # 100,000 values, with the array itself.
    copies: list[JsonValue] = [{"op": "copy", "from": "/a", "path": f"/{n}"} for n in range(3)]
    assert apply(Change("json_patch", copies[:2]), state)["1"] == state["a"]
    with pytest.raises(InvalidChange, match=r"operation 2 .*more than 200,000 values"):
        apply(Change("json_patch", copies), state)
    # Each one doubles it; in bytes, millions of values would be allowed.
    doubled: JsonValue = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 24
    with pytest.raises(InvalidChange, match="more than 200,000 values"):
        apply(Change("json_patch", doubled), {"a": [1]})


def test_a_patch_has_so_many_operations_and_no_more() -> None:
    patch: list[JsonValue] = [{"op": "add", "path": "/a/-", "value": 1}] * 10_001
    assert apply(Change("json_patch", patch[1:]), {"a": []}) == {"a": [1] * 10_000}
    with pytest.raises(InvalidChange, match="more than 10,000 operations"):
        apply(Change("json_patch", patch), {"a": []})


def test_a_patch_that_nests_the_state_again_and_again_is_refused() -> None:
    patch: JsonValue = [{"op": "copy", "from": "", "path": "/a"}] * 1500
    with pytest.raises(InvalidChange, match=r"operation [0-9]+ "):
        apply(Change("json_patch", patch), {})


def test_an_inexact_change_gives_back_the_numbers_it_rounded() -> None:
    text = f'{{"a":[{DECIMAL_40},1.10,1e2],"b":{{"c":1.00000000000000001e-7,"d":-0.0}},"e":2.5}}'
    state = parse(text)
    rounded = adopt(json.loads(text))
    assert dump(rounded) != text
    assert dump(apply(Change("new_state", rounded, exact=False), state)) == text


def test_an_inexact_change_may_add_to_an_array() -> None:
    change = Change("new_state", adopt({"a": [0.1, 2.5, "x"]}), exact=False)
    assert dump(apply(change, parse('{"a":[0.10]}'))) == '{"a":[0.10,2.5,"x"]}'


def test_an_exact_change_keeps_its_own_spelling() -> None:
    state = parse(f'{{"a":{DECIMAL_40}}}')
    assert dump(apply(Change("new_state", adopt({"a": float(DECIMAL_40)})), state)) != dump(state)


@pytest.mark.parametrize(("before", "new"), [("0.1", "0.2"), ("0.0", "-0.0"), ("1e400", "1e500")])
def test_an_inexact_change_still_changes_numbers(before: str, new: str) -> None:
    change = Change("new_state", parse(f'{{"a":{new}}}'), exact=False)
    assert dump(apply(change, parse(f'{{"a":{before}}}'))) == f'{{"a":{new}}}'


def test_an_inexact_change_undoes_what_javascript_does_to_numbers_it_only_passes_on() -> None:
    state = parse('{"a":1.0,"b":9007199254740993,"c":-0,"d":1e400,"e":123456789012345678901234}')
    seen_by_javascript = adopt(
        {"a": 1, "b": 9007199254740992, "c": 0, "d": plain(state["d"]), "e": 1.2345678901234568e23}
    )
    change = Change("new_state", seen_by_javascript, exact=False)
    assert dump(apply(change, state)) == dump(state)


@pytest.mark.parametrize(
    ("before", "new"),
    [
        *(("1", "2"), ("1", "1.0"), ("9007199254740993", "9007199254740995")),
        # Each of these has the same double as the one before, and JavaScript prints neither.
        *(("1234567890123456789", "1234567890123456788"), ("9007199254740992", "9007199254740993")),
        *(
            ("1234567890123456789", "1234567890123456768"),
            ("9007199254740993", "9007199254740992.0"),
        ),
        *(("1" + "0" * 22 + "1", "1" + "0" * 23), ("1e-400", "0.0"), ("1.0", "-0")),
    ],
)
def test_an_inexact_change_still_changes_integers(before: str, new: str) -> None:
    change = Change("new_state", parse(f'{{"a":{new}}}'), exact=False)
    assert dump(apply(change, parse(f'{{"a":{before}}}'))) == f'{{"a":{new}}}'


def test_numbers_that_were_kept_are_listed() -> None:
    state = parse(f'{{"a":[1234567890123456789,1.10,5],"b/c":{DECIMAL_40},"d":1.0,"e":2}}')
    patch = adopt({"a": [1234567890123456800, 1.1, 5], "b/c": float(DECIMAL_40), "d": 1, "e": 3})
    after = state | {"e": 3}
    kept = ("/a/0", "/b~1c", "/d")
    assert applied(Change("merge_patch", patch, exact=False), state) == Applied(after, kept, 3)
    assert applied(Change("merge_patch", patch), state).kept_total == 0


def test_the_list_of_kept_numbers_is_bounded() -> None:
    state = parse(f'{{"a":[{",".join(["1.0"] * 60)}]}}')
    change = Change("new_state", {"a": [1] * 60}, exact=False)
    assert applied(change, state) == Applied(
        state, kept=tuple(f"/a/{index}" for index in range(50)), kept_total=60
    )


def test_an_inserted_number_is_not_a_rounding() -> None:
    patch: JsonValue = [
        {"op": "add", "path": "/a/0", "value": 1},
        {"op": "replace", "path": "/a/1", "value": 2},
        {"op": "add", "path": "/b", "value": {"c": 3}},
    ]
    state = parse('{"a":[1.0,2.0],"b":{"c":3.0}}')
    found = applied(Change("json_patch", patch, exact=False), state)
    assert dump(found.after) == '{"a":[1,2,2.0],"b":{"c":3.0}}'
    assert found.kept == ("/b/c",)


def test_an_inexact_patch_does_not_respell_what_it_only_moves() -> None:
    near = DECIMAL_40[:-1] + "9"
    patch = adopt([{"op": "remove", "path": "/a/0"}, {"op": "add", "path": "/b", "value": 0.1}])
    state = parse(f'{{"a":[{DECIMAL_40},{near}],"b":0.10}}')
    assert (
        dump(apply(Change("json_patch", patch, exact=False), state)) == f'{{"a":[{near}],"b":0.10}}'
    )


def test_an_inexact_add_below_the_top_gives_back_the_number_it_rounded() -> None:
    state = parse('{"a":{"b":12345678901234567891}}')
    patch = [{"op": "add", "path": "/a/b", "value": 12345678901234567000}]

    found = applied(Change("json_patch", patch, exact=False), state)

    assert (found.after, found.kept) == (state, ("/a/b",))


def test_an_integer_beyond_all_doubles_is_given_back_for_the_outermost_double() -> None:
    state = {"a": 10**400, "b": -(10**400)}
    change = Change("new_state", adopt({"a": sys.float_info.max, "b": -sys.float_info.max}), False)

    assert applied(change, state) == Applied(state, ("/a", "/b"), 2)
    assert apply(Change("new_state", {"a": 10**401}, exact=False), state) == {"a": 10**401}


def test_an_inexact_test_compares_what_its_parser_could_carry() -> None:
    patch = adopt([{"op": "test", "path": "/a", "value": float(DECIMAL_40)}])
    state = parse(f'{{"a":{DECIMAL_40}}}')
    assert apply(Change("json_patch", patch, exact=False), state) == state
    with pytest.raises(InvalidChange, match="there is"):
        apply(Change("json_patch", patch), state)
    near: JsonValue = [{"op": "test", "path": "/a", "value": 1234567890123456788}]
    with pytest.raises(InvalidChange, match="there is 1234567890123456789, not"):
        apply(Change("json_patch", near, exact=False), {"a": 1234567890123456789})


def test_errors_show_little_of_the_state() -> None:
    secret = "s" * 10_000
    state = {secret: secret}
    attempts: list[JsonValue] = [
        [{"op": "test", "path": "", "value": secret}],
        [{"op": "remove", "path": f"/{secret}/{secret}"}],
        [{"op": "add", "path": f"/{secret}/x", "value": 1}],
        [{"op": "add", "path": f"/{secret}x/x", "value": 1}],
        [{"op": "add", "path": secret, "value": 1}],
        [{"op": secret, "path": "/x", "value": 1}],
    ]
    for patch in attempts:
        with pytest.raises(InvalidChange) as refused:
            apply(Change("json_patch", patch), state)
        assert str(refused.value).count("s") < 280
    for text in (
        f'{{"{secret}":1,"{secret}":1}}',
        secret,
        f'{{"a":{secret}}}',
        f"[1e{'9' * 999}]",
    ):
        with pytest.raises(InvalidState) as unread:
            parse(text)
        assert len(str(unread.value)) < 200


def test_errors_can_be_encoded() -> None:
    with pytest.raises(NotThere, match=r"nothing at /\\ud800") as error:
        at({}, "/\ud800")
    assert str(error.value).encode()
