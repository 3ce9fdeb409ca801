"""The differences of two documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

from fivetran_state.state.pointers import pointer_of
from fivetran_state.state.values import JsonValue, KeyPath, RawDocument
from fivetran_state.state.writing import same

_Op: TypeAlias = Literal["add", "remove", "replace"]
_Difference: TypeAlias = tuple[_Op, KeyPath, JsonValue | RawDocument, JsonValue | RawDocument]


@dataclass(frozen=True)
class DiffEntry:
    """One difference at a JSON Pointer; `before` is None for an add, `after` for a remove.

    A RawDocument is always replaced as a whole, at the pointer "".
    """

    op: _Op
    path: str
    before: JsonValue | RawDocument
    after: JsonValue | RawDocument


@dataclass(frozen=True)
class Diff:
    """The first differences, and how many there are in total."""

    changes: list[DiffEntry]
    total: int


def diff(before: JsonValue | RawDocument, after: JsonValue | RawDocument, limit: int = 50) -> Diff:
    """The differences of two values, by the equality of `same`; the first `limit` entries are kept.

    The entries are in document order. A JSON patch could apply them in this order: new members of
    an object come last, and surplus items of an array are removed from its end.
    """
    found = _differences(before, after, ())
    changes = [_diff_entry(difference) for difference in islice(found, limit)]
    return Diff(changes, len(changes) + sum(1 for _ in found))


def differences(
    before: JsonValue | RawDocument, after: JsonValue | RawDocument
) -> Iterator[DiffEntry]:
    """Every entry of `diff`, in its order, one at a time: all of them may not fit into memory."""
    return map(_diff_entry, _differences(before, after, ()))


def _diff_entry(difference: _Difference) -> DiffEntry:
    op, path, before, after = difference
    return DiffEntry(op, pointer_of(path), before, after)


def _differences(
    before: JsonValue | RawDocument, after: JsonValue | RawDocument, path: KeyPath
) -> Iterator[_Difference]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, old in before.items():
            if key in after:
                yield from _differences(old, after[key], (*path, key))
            else:
                yield "remove", (*path, key), old, None
        for key, new in after.items():
            if key not in before:
                yield "add", (*path, key), None, new
    elif isinstance(before, list) and isinstance(after, list):
        for index, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from _differences(old, new, (*path, index))
        for index in range(len(before) - 1, len(after) - 1, -1):
            yield "remove", (*path, index), before[index], None
        for index in range(len(before), len(after)):
            yield "add", (*path, index), None, after[index]
    elif not same(before, after):
        yield "replace", path, before, after
