"""The time line says what moved from each version to the next."""

from itertools import pairwise

import pytest

from fivetran_state import models, state
from fivetran_state.history.timeline import Move, moves
from fivetran_state.history.versions import Entry, SeenBy, Version
from fivetran_state.models import Change


class Past:
    """Versions with these texts, oldest first; it counts what is read."""

    def __init__(self, *texts: str) -> None:
        self.texts = {str(number): text for number, text in enumerate(texts)}
        self.read_ids: list[str] = []

    def read(self, version: Version) -> str:
        self.read_ids.append(version.content_id)
        return self.texts[version.content_id]

    def moves(self, path: str | None = None) -> list[Move]:
        """Of all versions, newest first, as a page has them."""
        versions = [None, *(_version(int(each)) for each in self.texts)]
        entries = [Entry(after, before) for before, after in pairwise(versions) if after]
        return moves(entries[::-1], self.read, path)


def _version(number: int) -> Version:
    return Version(
        owner="speak_inexpensive",
        ordinal=number + 1,
        version=f"{number:032}",
        first_seen=number,
        last_seen=number,
        seen_by=SeenBy.SYNC,
        workflow_id=None,
        content_id=str(number),
        mark=str(number),
        previous=None,
    )


def test_each_version_has_what_moved_exactly_and_the_oldest_has_nothing() -> None:
    newest, middle, oldest = Past(
        '{"a":9007199254740993,"b":1.10}',
        '{"a":9007199254740995,"b":1.1}',
        '{"b":1.1,"c":null}',
    ).moves()

    assert middle.changes == [
        Change(op="replace", path="/a", before="9007199254740993", after="9007199254740995")
    ]
    assert [(each.op, each.path) for each in newest.changes] == [("remove", "/a"), ("add", "/c")]
    assert (oldest.changes, oldest.total, oldest.is_oldest) == ([], 0, True)


def test_with_a_path_only_versions_in_which_it_moved_are_there() -> None:
    found = Past(
        '{"orders":{"cursor":1,"n":1},"a/b":[1,2]}',
        '{"orders":{"cursor":1,"n":2},"a/b":[1,2]}',
        '{"orders":{"cursor":2,"n":3},"a/b":[1,3]}',
        '{"orders":{"n":3}}',
        "{}",
        '{"orders":{"cursor":{"x":5}}}',
    )

    assert [(each.version.first_seen, each.changes) for each in found.moves("/orders/cursor")] == [
        (5, [Change(op="add", path="/orders/cursor", after='{"x":5}')]),
        (3, [Change(op="remove", path="/orders/cursor", before="2")]),
        (2, [Change(op="replace", path="/orders/cursor", before="1", after="2")]),
    ]
    for path in ("/a~1b/1", "#/a~1b/1"):
        assert [each.version.first_seen for each in found.moves(path)] == [3, 2]
    assert [each.version.first_seen for each in found.moves("")] == [5, 4, 3, 2, 1]
    assert found.moves("/nowhere") == []


def test_a_path_that_is_no_pointer_is_refused() -> None:
    with pytest.raises(state.NotThere):
        Past("{}").moves("orders")


def test_what_is_not_a_state_moves_as_a_whole() -> None:
    found = Past("[1]", '{"a":1}', "[1]").moves()

    assert [each.path for move in found for each in move.changes] == ["", ""]
    assert [len(Past("[1]", '{"a":1}').moves(path)) for path in ("/a", "/b", "")] == [1, 0, 1]


def test_many_and_large_changes_are_cut_and_counted() -> None:
    keys = range(models.SHOWN_CHANGES * 3)
    text = state.dump({str(key): "x" * 5000 for key in keys})

    newest, _ = Past("{}", text).moves()

    assert len(newest.changes) == models.SHOWN_CHANGES
    assert newest.total == len(keys)
    assert all(len(each.after or "") < models.SHOWN_CHARACTERS + 50 for each in newest.changes)


def test_each_state_of_a_page_is_read_once() -> None:
    past = Past(*(f'{{"a":{number}}}' for number in range(20)))

    past.moves()

    assert past.read_ids == [str(number) for number in range(19, -1, -1)]
