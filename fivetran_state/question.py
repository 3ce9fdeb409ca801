"""The question that a person reads before agreeing to a change.

Hosts differ: one shows plain text, one renders Markdown, one folds line breaks. So each change is
one numbered line that needs no line break, and external text is shown literally. External text has
no parentheses, so `(2 of 3)` always marks a new change.
"""

import json
import re
from itertools import islice
from typing import TYPE_CHECKING

from fivetran_state import state
from fivetran_state.errors import TooLargeToConfirm
from fivetran_state.state import DiffEntry, JsonValue, RawDocument
from fivetran_state.text import literal, quoted

if TYPE_CHECKING:
    from fivetran_state.plan import Plan

MAX_QUESTION = 6000
"""Characters of all lines together: four screens. Nobody reads more before agreeing."""
MAX_CHANGES = 100

_CONTEXT = 20
"""Characters shown before and after a difference."""
_MIN_CUT = 60
"""Fewer equal characters than this are shown, not left out."""
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
# Markdown's hard line break. In plain text the two spaces are invisible.
_LINE_END = "  \n"


class TooLarge(Exception):
    """The changes cannot all be shown in full, so the question must not be asked."""

    def __init__(self, total_changes: int) -> None:
        super().__init__(f"{total_changes:,} changes are too much to show in full")
        self.total_changes = total_changes


def of_plan(plan: "Plan") -> str:
    """The text of the question; raises `TooLargeToConfirm` if it cannot show every change."""
    try:
        changes = changes_in_full(plan.before, plan.applied.after)
    except TooLarge as error:
        raise TooLargeToConfirm(
            f"One question cannot show {error.total_changes:,} changes, or long "
            "values, in full. The user was not asked, and nothing was written."
        ) from None
    heading = f"Change the state of {plan.described_connection}?"
    closing = [
        f"Version {plan.version_before} becomes {plan.version_after}.",
        *plan.consequences,
    ]
    return message([heading], changes, closing)


def changes_in_full(
    before: JsonValue | RawDocument, after: JsonValue | RawDocument, *, limit: int = MAX_QUESTION
) -> list[str]:
    """All changes, one line each, without line breaks: changes and removals first, then additions.

    `(1 of 3) /cursor: from "2026-01-02" to "2026-01-01"`, `(2 of 3) /old: removed, was 1` and `(3
    of 3) /new: added, {"a":1}`. Values are exact JSON text. If two long strings or numbers begin or
    end with the same characters, `…(4,980 characters the same)…` replaces most of these. Every
    difference is shown.

    Raises TooLarge if there are more than MAX_CHANGES, or the lines have more than `limit`
    characters in total. A RawDocument is shown as `the text "…"`, a JSON string of its text.
    """
    lines = numbered(unnumbered(before, after, limit=limit))
    if sum(len(line) + len(_LINE_END) for line in lines) > limit:
        raise TooLarge(len(lines))
    return lines


def unnumbered(
    before: JsonValue | RawDocument, after: JsonValue | RawDocument, *, limit: int = MAX_QUESTION
) -> list[str]:
    """The lines of `changes_in_full` without their numbers; raises TooLarge."""
    differences = state.differences(before, after)
    first = list(islice(differences, MAX_CHANGES))
    total = len(first) + sum(1 for _ in differences)
    if total > MAX_CHANGES:
        raise TooLarge(total)
    lines: list[str] = []
    room = limit
    # The sort is stable: each kind keeps the document's order.
    for entry in sorted(first, key=lambda entry: entry.op == "add"):
        lines.append(_line(entry, room))
        room -= len(lines[-1]) + len(_LINE_END)
        if room < 0:
            raise TooLarge(total)
    return lines


def numbered(lines: list[str]) -> list[str]:
    """Each line after its number: `(2 of 3) …`."""
    return [f"({at} of {len(lines)}) {line}" for at, line in enumerate(lines, 1)]


def message(heading: list[str], changes: list[str], closing: list[str]) -> str:
    """The whole question as three paragraphs. Their line ends work in plain text and in Markdown.

    Every line has to begin with a word of ours, and may contain external text only as `quoted`.
    Lines must not have line breaks. An empty paragraph is left out.
    """
    paragraphs = (_LINE_END.join(lines) for lines in (heading, changes, closing))
    return "\n\n".join(filter(None, paragraphs))


def _line(entry: DiffEntry, room: int) -> str:
    """One change as a line. Text far beyond `room` characters is cut."""
    where = quoted(entry.path[: room + 1]) if entry.path else "(everything)"
    if entry.op == "add":
        return f"{where}: added, {_json(entry.after, room)}"
    if entry.op == "remove":
        return f"{where}: removed, was {_json(entry.before, room)}"
    old, new = _apart(entry.before, entry.after, room)
    return f"{where}: from {old} to {new}"


def _json(value: JsonValue | RawDocument, room: int) -> str:
    if isinstance(value, RawDocument):
        return f'the text "{literal(value.text[: room + 1])}"'
    # `dump` may write six characters for one visible character.
    text = state.dump(value)[: 6 * (room + 1)]
    return _STRING.sub(lambda found: f'"{literal(json.loads(found[0]))}"', text)


def _apart(
    before: JsonValue | RawDocument, after: JsonValue | RawDocument, room: int
) -> tuple[str, str]:
    """The two values of a replacement, with long equal beginnings and ends left out."""
    if isinstance(before, str) and isinstance(after, str):
        old, new = _without_same_ends(before, after, room)
        return f'"{old}"', f'"{new}"'
    if state.is_number(before) and state.is_number(after):
        return _without_same_ends(state.dump(before), state.dump(after), room)
    # Values of different types have different beginnings.
    return _json(before, room), _json(after, room)


def _without_same_ends(before: str, after: str, room: int) -> tuple[str, str]:
    start = same_beginning(before, after)
    end = min(same_beginning(before[::-1], after[::-1]), min(len(before), len(after)) - start)
    return _window(before, start, end, room), _window(after, start, end, room)


def _window(text: str, start: int, end: int, room: int) -> str:
    """The text without its first `start` and last `end` characters, except _CONTEXT of each."""
    skipped, dropped = _left_out(start), _left_out(end)
    middle = text[skipped : len(text) - dropped][: room + 1]
    return f"{_mark(skipped)}{literal(middle)}{_mark(dropped)}"


def _left_out(same: int) -> int:
    return same - _CONTEXT if same - _CONTEXT >= _MIN_CUT else 0


def _mark(count: int) -> str:
    # `literal` text has neither an ellipsis nor parentheses, so no value can imitate this mark.
    return f"…({count:,} characters the same)…" if count else ""


def same_beginning(a: str, b: str) -> int:
    """The length of the common beginning of two texts."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
