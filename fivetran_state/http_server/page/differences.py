"""Two states side by side, page by page."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from fivetran_state import state
from fivetran_state.question import same_beginning
from fivetran_state.state import DiffEntry, JsonValue, RawDocument
from fivetran_state.text import visible

MAX_ROWS = 50
MAX_VALUE = 2_000
"""Characters of one value on the page. The page of the state shows the rest."""
_CONTEXT = 40
"""Characters shown before and after a difference, if a value is long."""
_MIN_SKIPPED = 100
"""Fewer equal characters than this are shown."""


@dataclass(frozen=True)
class Part:
    """A piece of a value's text; `skipped` counts characters that stand in both values in its place."""

    text: str = ""
    is_changed: bool = False
    skipped: int = 0


@dataclass(frozen=True)
class Side:
    """A value before or after; `cut` counts the characters of its text that are not shown."""

    parts: tuple[Part, ...]
    cut: int = 0


@dataclass(frozen=True)
class Row:
    """One difference. `before` is None for an add, `after` for a remove."""

    op: str
    path: str
    before: Side | None
    after: Side | None


@dataclass(frozen=True)
class Rows:
    """One page of differences, and the `start` of the next page: None on the last one."""

    rows: list[Row]
    total: int
    start: int
    next_start: int | None


def rows(before: JsonValue | RawDocument, after: JsonValue | RawDocument, start: int = 0) -> Rows:
    """The differences from number `start` on, and how many there are in total."""
    found = state.differences(before, after)
    skipped = _count(islice(found, start))
    page = [_row(entry) for entry in islice(found, MAX_ROWS)]
    shown = skipped + len(page)
    total = shown + _count(found)
    return Rows(page, total, start, shown if shown < total else None)


def _count(entries: Iterable[object]) -> int:
    return sum(1 for _ in entries)


def _row(entry: DiffEntry) -> Row:
    path = state.shown_path(entry.path)
    if entry.op == "add":
        return Row(entry.op, path, None, _whole(entry.after))
    if entry.op == "remove":
        return Row(entry.op, path, _whole(entry.before), None)
    old, new = _text(entry.before), _text(entry.after)
    first = same_beginning(old, new)
    last = min(same_beginning(old[::-1], new[::-1]), min(len(old), len(new)) - first)
    return Row(entry.op, path, _apart(old, first, last), _apart(new, first, last))


def _whole(value: JsonValue | RawDocument) -> Side:
    text = _text(value)
    return Side((Part(text[:MAX_VALUE]),), max(0, len(text) - MAX_VALUE))


def _apart(text: str, first: int, last: int) -> Side:
    """The text, with its `first` and `last` characters as equal to those of the other one."""
    middle = text[first : len(text) - last]
    parts = (
        *_beginning(text[:first]),
        Part(middle[:MAX_VALUE], is_changed=True),
        *_end(text[len(text) - last :]),
    )
    return Side(
        tuple(part for part in parts if part.text or part.skipped),
        max(0, len(middle) - MAX_VALUE),
    )


def _beginning(text: str) -> tuple[Part, ...]:
    skipped = max(0, len(text) - _CONTEXT)
    if skipped < _MIN_SKIPPED:
        return (Part(text),)
    return Part(skipped=skipped), Part(text[skipped:])


def _end(text: str) -> tuple[Part, ...]:
    skipped = max(0, len(text) - _CONTEXT)
    if skipped < _MIN_SKIPPED:
        return (Part(text),)
    return Part(text[:_CONTEXT]), Part(skipped=skipped)


def _text(value: JsonValue | RawDocument) -> str:
    """The value as exact JSON; on several lines if it is small enough to be read so."""
    text = state.dump(value)
    if isinstance(value, RawDocument) or len(text) > MAX_VALUE:
        return visible(text)
    return state.indented(value)
