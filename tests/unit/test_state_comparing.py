import tracemalloc

import pytest

from fivetran_state.state import (
    DiffEntry,
    adopt,
    diff,
    differences,
    inexact,
    parse,
    parse_value,
)


def test_a_diff_lists_changes_in_document_order() -> None:
    before = parse('{"z":1,"a":{"x":1,"y":[1,2,3]},"gone":null}')
    after = parse('{"new":0,"a":{"y":[1,5],"x":1},"z":{"w":1}}')
    assert diff(before, after).changes == [
        DiffEntry("replace", "/z", 1, {"w": 1}),
        DiffEntry("replace", "/a/y/1", 2, 5),
        DiffEntry("remove", "/a/y/2", 3, None),
        DiffEntry("remove", "/gone", None, None),
        DiffEntry("add", "/new", None, 0),
    ]


def test_a_diff_escapes_its_pointers() -> None:
    assert diff({}, {"a/b~c": 1, "": 2}).changes == [
        DiffEntry("add", "/a~1b~0c", None, 1),
        DiffEntry("add", "/", None, 2),
    ]


def test_a_longer_array_is_added_to_at_its_end() -> None:
    assert [entry.path for entry in diff([1], [1, 2, 3]).changes] == ["/1", "/2"]


def test_a_shorter_array_is_removed_from_at_its_end() -> None:
    assert [entry.path for entry in diff([1, 2, 3], [1]).changes] == ["/2", "/1"]


@pytest.mark.parametrize(("a", "b"), [("1", "1.0"), ("1", "true"), ("0", "-0"), ("[]", "{}")])
def test_a_diff_tells_apart_what_python_does_not(a: str, b: str) -> None:
    before, after = parse_value(a), parse_value(b)
    assert diff({"x": before}, {"x": after}).changes == [DiffEntry("replace", "/x", before, after)]


def test_another_spelling_is_no_difference() -> None:
    assert diff(parse('{"a":1.10,"b":1e2}'), parse('{"b":100.0,"a":1.1}')).total == 0


def test_a_diff_counts_all_and_keeps_the_first() -> None:
    found = diff({}, {str(n): n for n in range(80)}, limit=3)
    assert [entry.path for entry in found.changes] == ["/0", "/1", "/2"]
    assert found.total == 80


def test_differences_come_one_at_a_time() -> None:
    before, after = parse('{"a":[1,2],"b":1}'), parse('{"a":[1],"c":2}')
    found = differences(before, after)
    assert next(found) == DiffEntry("remove", "/a/1", 2, None)
    assert list(found) == diff(before, after).changes[1:]


def test_a_huge_key_is_not_written_out_for_each_of_its_members() -> None:
    state = {"k" * 1_000_000: {"x": list(range(2**53, 2**53 + 1_000))}}
    before = adopt({"k" * 1_000_000: {"x": []}})
    tracemalloc.start()
    try:
        assert diff(state, before, limit=1).total == 1_000
        assert len(inexact(state, limit=1)) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
