import json
import sys
from typing import Any

import pytest

from fivetran_state.state import (
    Change,
    JsonValue,
    Listing,
    NotThere,
    OutlineEntry,
    apply,
    at,
    dump,
    inexact,
    matches,
    outline,
    parse,
    parse_value,
    plain,
    preview,
    search,
    shown_path,
)
from tests.support.states import DECIMAL_40


def test_a_preview_is_the_exact_text() -> None:
    assert preview(parse('{"a": 1.10, "b": "é"}')) == r'{"a":1.10,"b":"\u00e9"}'


def test_a_long_preview_is_cut_and_tells_the_size() -> None:
    assert preview({"a": "x" * 5112}, limit=9) == '{"a":"xxx… (5,120 bytes)'
    assert preview("x" * 8, limit=10) == f'"{"x" * 8}"'


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        *(("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2)),
        *(("/e^f", 3), ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8)),
    ],
)
def test_a_pointer_of_the_rfc(pointer: str, found: JsonValue) -> None:
    document = r'{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}'
    assert at(parse(document), pointer) == found
    assert at(parse(document), "") == parse(document)


@pytest.mark.parametrize(
    ("pointer", "path"),
    [
        ("/a/b", "/a/b"),
        ("/k\u200b", "#/k%E2%80%8B"),
        ("/\u202e%/é", "#/%E2%80%AE%25/é"),
        ("/\n~1/\ud800", "#/%0A~1/%ED%A0%80"),
        ("#", "#"),
    ],
)
def test_a_path_is_shown_as_a_fragment_if_some_of_it_would_not_show(
    pointer: str, path: str
) -> None:
    assert shown_path(pointer) == path


def test_a_path_that_was_shown_as_a_fragment_can_be_used_in_a_patch() -> None:
    patch = parse_value(
        '[{"op":"move","from":"#/%E2%80%8B","path":"#/%25"},{"op":"test","path":"#/%25","value":1}]'
    )
    assert apply(Change("json_patch", patch), {"\u200b": 1}) == {"%": 1}


def test_a_path_that_is_shown_has_an_end() -> None:
    assert len(shown_path("/" + "k" * 10_000)) == len(shown_path("/\x00" * 900)) == 1000


def test_an_outline_names_what_is_behind_a_huge_key_but_not_what_is_in_it() -> None:
    huge = {f"{n}" + "k" * 100_000: {"x": {"y": 1}} for n in range(3)}
    entries = outline({**huge, "z": {"w": 1}}, max_bytes=6000).entries
    assert [entry.path[:2] for entry in entries] == ["/0", "/1", "/2", "/z", "/z"]


@pytest.mark.parametrize("pointer", ["foo", "/a~", "/a~2", "#a", "#/%ff"])
def test_what_is_no_pointer_is_said_so(pointer: str) -> None:
    with pytest.raises(NotThere, match="is not a JSON Pointer"):
        at({"foo": 1}, pointer)


@pytest.mark.parametrize(
    "index", ["2", "-", "-1", "01", "1.0", "1e0", "", "x", "\u0661", "9" * 5000]
)
def test_an_array_has_only_its_indices(index: str) -> None:
    with pytest.raises(NotThere, match="an array of 2"):
        at({"a": [0, 1]}, f"/a/{index}")


def test_a_pointer_to_nowhere_names_the_nearest_parent() -> None:
    state: dict[str, Any] = {"tables": {f"t{n}": {} for n in range(9)}}
    with pytest.raises(NotThere) as error:
        at(state, "/tables/users/cursor")
    assert str(error.value) == (
        "nothing at /tables/users/cursor; the nearest is /tables, "
        'an object with 9 keys: "t0", "t1", "t2", "t3", "t4", …'
    )
    with pytest.raises(NotThere, match=r'the nearest is the top, an object with 1 key: "tables"$'):
        at(state, "/users")


def test_an_outline_is_breadth_first() -> None:
    value = parse('{"a":{"x":[1.50,"é"]},"b":[],"c":null,"d":true}')
    assert outline(value).entries == [
        OutlineEntry("/a", "object", 21, 1, None),
        OutlineEntry("/b", "array", 2, 0, None),
        OutlineEntry("/c", "null", 4, None, "null"),
        OutlineEntry("/d", "boolean", 4, None, "true"),
        OutlineEntry("/a/x", "array", 15, 2, None),
        OutlineEntry("/a/x/0", "number", 4, None, "1.50"),
        OutlineEntry("/a/x/1", "string", 8, None, r'"\u00e9"'),
    ]


def test_an_outline_counts_what_it_leaves_out() -> None:
    entries = outline({"a": {f"k{n}": "v" for n in range(100)}}, max_bytes=1000).entries
    assert entries[0] == OutlineEntry("/a", "object", 991, 100, None)
    listed = len(entries) - 2
    assert listed > 3
    assert entries[-1] == OutlineEntry("/a", "more", 3 * (100 - listed), 100 - listed, None)


@pytest.mark.parametrize("max_bytes", range(800, 2400, 80))
def test_an_outline_has_room_to_name_a_long_parent(max_bytes: int) -> None:
    value = {"k" * 600: {"x" * 100: 1, "y": 2}, "z": {}}
    entries = outline(value, max_bytes=max_bytes).entries
    assert len(dump([vars(entry) for entry in entries])) <= max_bytes


def test_an_outline_begins_its_paths_with_the_pointer_it_was_given() -> None:
    entries = outline({"x": [1]}, "/a/b").entries
    assert [entry.path for entry in entries] == ["/a/b/x", "/a/b/x/0"]


def test_an_outline_cuts_long_scalars() -> None:
    [entry] = outline(["x" * 1000]).entries
    assert entry.bytes == 1002
    assert entry.preview == '"' + "x" * 58 + "…"


def test_an_outline_of_a_scalar_is_empty() -> None:
    assert outline("x" * 10_000) == Listing([], None)


def found(value: JsonValue, text: str, pointer: str = "") -> list[str]:
    """The paths that a search finds."""
    return [entry.path for entry in matches(value, text, pointer)]


def test_a_search_finds_a_part_of_a_path_in_any_case_at_any_depth() -> None:
    state = {"Orders": {"page": [{"CURSOR": 1}]}, "cursors": None, "other": 2}
    assert found(state, "cursor") == ["/Orders/page/0/CURSOR", "/cursors"]
    assert found(state, "orders/PAGE/0") == ["/Orders/page/0"]
    assert found(state, "/0") == ["/Orders/page/0"]
    assert found({"GRÖSSE": 1, "größe": 2}, "Größe") == ["/GRÖSSE", "/größe"]
    assert found(state, "nothing") == found("cursor", "cursor") == []


def test_what_is_inside_a_match_is_found_only_by_its_own_key() -> None:
    state = {"orders": {"cursor": 1, "old_orders": {"cursor": 2}}}
    assert found(state, "orders") == ["/orders", "/orders/old_orders"]
    assert found(state, "orders/") == [
        "/orders/cursor",
        "/orders/old_orders",
        "/orders/old_orders/cursor",
    ]


def test_a_search_below_a_path_begins_there() -> None:
    state = {"cursor": 1, "page": 2}
    assert found(state, "orders", "/orders") == []
    assert (
        found(state, "orders/c", "/orders")
        == found(state, "orders/c", "#/%6Frders")
        == ["/orders/cursor"]
    )


@pytest.mark.parametrize("text", ["public/orders", "public~1orders", "/public~1"])
def test_a_key_with_a_slash_is_found_as_it_reads_and_as_its_path_is_written(text: str) -> None:
    assert found({"public/orders": 1, "a~b": 2}, text) == ["/public~1orders"]


@pytest.mark.parametrize("text", ["~b", "a~0b"])
def test_a_key_with_a_tilde_is_found_as_it_reads_and_as_its_path_is_written(text: str) -> None:
    assert found({"public/orders": 1, "a~b": 2}, text) == ["/a~0b"]


def test_a_search_may_begin_in_the_path_of_the_value() -> None:
    assert [found.path for found in matches({"b": 1}, "/a/b", "/a")] == ["/a/b"]


def test_a_search_shows_small_values_whole_and_the_size_of_others() -> None:
    small = parse('{"cursor":1.50,"name":"\u007f"}')
    assert list(matches({"a1": small, "a2": "x" * 300, "a3": list(range(300))}, "a")) == [
        OutlineEntry("/a1", "object", 31, 2, r'{"cursor":1.50,"name":"\u007f"}'),
        OutlineEntry("/a1/name", "string", 8, None, r'"\u007f"'),
        OutlineEntry("/a2", "string", 302, None, '"' + "x" * 58 + "…"),
        OutlineEntry("/a3", "array", 1091, 300, None),
    ]


@pytest.mark.slow
def test_a_huge_path_does_not_make_what_is_below_it_expensive() -> None:
    above = "/" + "k" * 5_000_000
    state = {f"table_{n}": {"rows": {"x": 1}} for n in range(50_000)}
    assert search(state, "kk/table_7/ROWS", above).total == 1
    assert search(state, "rows", above).total == 50_000
    assert outline(state, above, start=49_990).next_start is not None


def test_a_page_of_a_search_counts_all_matches() -> None:
    state = {f"key_{n}": n for n in range(100)}
    first = search(state, "KEY", max_bytes=1000)
    assert first.next_start == len(first.entries) > 3
    rest = search(state, "KEY", max_bytes=100_000, start=first.next_start)
    assert [entry.path for entry in first.entries + rest.entries] == [f"/{key}" for key in state]
    assert (first.total, rest.total, rest.next_start) == (100, 100, None)


def test_plain_values_suit_other_libraries() -> None:
    value = parse(r'{"\ud800":[1.10,9007199254740993,-0,1e400,"a\udfff😀",true,null]}')
    assert plain(value) == {
        r"\ud800": [1.1, 9007199254740993, 0.0, sys.float_info.max, r"a\udfff😀", True, None]
    }
    assert json.dumps(plain(value), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "text",
    ["9007199254740993", "-9007199254740993", DECIMAL_40, "1e400", "1e-400", "-0", "1" * 5000],
)
def test_a_number_that_a_double_cannot_carry_is_listed(text: str) -> None:
    assert inexact({"a": [parse_value(text)]}) == {"/a/0": text}


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "9007199254740992",
        "1.10",
        "0.1",
        "-0.0",
        "1e2",
        "0.30000000000000004",
        "true",
        '"1e400"',
    ],
)
def test_a_number_that_a_double_can_carry_is_not_listed(text: str) -> None:
    assert inexact({"a": [parse_value(text)]}) == {}


def test_the_list_of_inexact_numbers_is_bounded() -> None:
    assert list(inexact([2**60] * 9, limit=2)) == ["/0", "/1"]
