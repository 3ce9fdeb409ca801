import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from random import Random
from typing import Any

import pytest
from markdown_it import MarkdownIt

from fivetran_state import state
from fivetran_state.question import (
    MAX_CHANGES,
    MAX_QUESTION,
    TooLarge,
    changes_in_full,
    message,
)
from fivetran_state.state import DiffEntry, RawDocument
from fivetran_state.text import HIDDEN, quoted

CASES = 1000

# A person reads the question in these hosts


def folded(text: str) -> str:
    return re.sub(r"\s+", " ", text)


class _Content(HTMLParser):
    """The text and the tags of a page, as a browser shows it, without comments."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def markdown(html: bool, linkify: bool) -> Callable[[str], str]:
    renderer = MarkdownIt("commonmark", {"html": html, "linkify": linkify})
    renderer.enable(["table", "strikethrough", *(["linkify"] if linkify else [])])

    def render(text: str) -> str:
        content = _Content()
        # Some renderers write no line break there, so the lines become one text.
        content.feed(renderer.render(text).replace("<br />\n", "<br>"))
        content.close()
        assert content.tags <= {"p", "br", "ol", "li"}, content.tags
        return folded(content.text)

    return render


HOSTS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "folded": folded,
    "markdown": markdown(html=False, linkify=False),
    "markdown, links": markdown(html=False, linkify=True),
    "markdown, html": markdown(html=True, linkify=False),
    "markdown, html, links": markdown(html=True, linkify=True),
}

# The meaning of the text, read back


@dataclass
class Shown:
    """A value as it is shown, without `start` characters at its beginning and `end` at its end."""

    value: Any
    start: int = 0
    end: int = 0


_STRING = r'"(?:[^"\\]|\\.)*"'
_SKIPPED = r"…\(([0-9,]+) characters the same\)…"
_CUT_NUMBER = re.compile(rf"(?:{_SKIPPED})?([-+.0-9eE]*)(?:{_SKIPPED})?")
_CUT_STRING = re.compile(rf'"(?:{_SKIPPED})?((?:[^"\\…]|\\.)*)(?:{_SKIPPED})?"')
_START = re.compile(
    rf"\(([0-9]+) of ([0-9]+)\) ({_STRING}|[^\s\"]+): (added, |removed, was |from )"
)
_DECODER = json.JSONDecoder(
    parse_int=lambda token: ("number", token),
    parse_float=lambda token: ("number", token),
    object_pairs_hook=lambda pairs: ("object", pairs),
)


def decoded(text: str) -> Any:
    return _DECODER.decode(text)


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def take(self, expected: str) -> None:
        assert self.text.startswith(expected, self.at), self.text[self.at :][:200]
        self.at += len(expected)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        assert found is not None, self.text[self.at :][:200]
        self.at = found.end()
        return found

    def change(self, number: int, total: int) -> tuple[str, str, list[Shown]]:
        found = self.match(_START)
        assert (int(found[1]), int(found[2])) == (number, total)
        path = json.loads(found[3]) if found[3].startswith('"') else found[3]
        if not found[4].startswith("from"):
            return found[4].split(",")[0], path, [self.value()]
        old = self.value()
        self.take(" to ")
        return "from", path, [old, self.value()]

    def value(self) -> Shown:
        first = self.text[self.at]
        if first == '"':
            start, text, end = self.match(_CUT_STRING).groups()
            return Shown(json.loads(f'"{text}"'), _count(start), _count(end))
        if first in "-0123456789…":
            start, text, end = self.match(_CUT_NUMBER).groups()
            return Shown(("number", text), _count(start), _count(end))
        value, self.at = _DECODER.raw_decode(self.text, self.at)
        return Shown(value)


def _count(digits: str | None) -> int:
    return int(digits.replace(",", "")) if digits else 0


def assert_shows(shown: list[Shown], values: list[Any]) -> None:
    """The shown values are complete, except for equal beginnings and ends."""
    exact = [decoded(state.dump(value)) for value in values]
    for each, value in zip(shown, exact, strict=True):
        if each.start or each.end:
            assert _cut(value, each.start, each.end) == each.value
        else:
            assert each.value == value
    if len(shown) == 2 and (shown[0].start or shown[0].end):
        start, end = shown[0].start, shown[0].end
        assert (shown[1].start, shown[1].end) == (start, end)
        old, new = (value[1] if isinstance(value, tuple) else value for value in exact)
        assert old[:start] == new[:start]
        assert old[len(old) - end :] == new[len(new) - end :]


def _cut(value: Any, start: int, end: int) -> Any:
    if isinstance(value, tuple):
        return "number", value[1][start : len(value[1]) - end]
    return value[start : len(value) - end]


# Changes by an attacker

_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \t\n\r\x00\x1b\x7f0179azAZn"
_LETTERS = "äßéıɡⅼａ𝐚ґжыδΩհօᎪカ力ロ口一へヘ漢한اש١²…·₿😀"
_LOOK_LATIN = "\u0430\u0435\u043e\u0440\u0441\u0443\u0391\u03b1\u03bf"
_UNSEEN = "\u202e\u202d\u2066\u2069\u200b\u200d\u2060\ufeff\u00ad\u2028\u0085\u00a0\u3000\u0301"
FRAGMENTS = [
    "![x](data:image/png;base64,AA)", "[a](https://evil.example)", "[a]: https://evil.example",
    "`", "```\n", "<!--", "-->", "<script>alert(1)</script>", "<b>", "</p>", "<![CDATA[", "&lt;",
    "&#x202e;", "&amp;lt;", "*", "**bold**", "_em_", "__strong__", "~~gone~~", "| a | b |\n|---|",
    "# head", "\n> quote", "\n- item", "\n---\n", "\n===\n", "\n    code", "www.evil.com",
    "https://evil.example/x", "mail@evil.com", "mailto:a@b.co", "evil.io", "//evil.com", "$x$",
    "$$", ":smile:", ":100:", "[^1]", "[^1]: note", "==mark==", "++ins++", "\\", "\\n", "\\\\",
    "\\u003c", "\\*", '"', '" to "', '"\n(2 of 3) /x: from 1 to 2', "(2 of 3) /x: from 1 to 2",
    "\n(3 of 3) /x: added, 5\n\nVersion 1 becomes 2.", "…(90 characters the same)…", "  \n", "a  b",
    "public.orders", "2026-01-01T00:00:00Z", "orders", "cursor", "eyJhIjoi==", "größe", "顧客",
    "заказы", "\u0430\u0441\u0435", "p\u0430ypal", "a" * 200, "<" * 120, "1", "",
]  # fmt: skip


class _Hostile:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def text(self) -> str:
        if self.random.random() < 0.3:
            alphabet = (
                _SIGNS + _LETTERS + _LOOK_LATIN + _UNSEEN if self.random.random() < 0.6 else _SIGNS
            )
            return "".join(self.random.choices(alphabet, k=self.random.randint(0, 25)))
        return "".join(self.random.choices(FRAGMENTS, k=self.random.randint(1, 4)))

    def value(self, depth: int = 0) -> Any:
        kind = self.random.random()
        if depth < 3 and kind < 0.1:
            return [self.value(depth + 1) for _ in range(self.random.randint(0, 4))]
        if depth < 3 and kind < 0.25:
            return self.members(self.random.randint(0, 4), depth + 1)
        if kind < 0.4:
            token = ["0", "-0", "1.10", "1e400", "12345678901234567890", "9" * 700, "true", "null"]
            return state.parse_value(self.random.choice(token))
        return self.text() * (300 if self.random.random() < 0.02 else 1)

    def members(self, count: int, depth: int) -> dict[str, Any]:
        return {self.text(): self.value(depth) for _ in range(count)}

    def altered(self, value: Any) -> Any:
        kind = self.random.random()
        if isinstance(value, dict) and kind < 0.9:
            return self.altered_members(value)
        if isinstance(value, list) and kind < 0.9:
            kept_items = [self.altered(item) for item in value if self.random.random() < 0.85]
            return [*kept_items, *(self.value(2) for _ in range(self.random.randint(0, 1)))]
        if isinstance(value, str) and value and kind < 0.7:
            at = self.random.randrange(len(value))
            return value[:at] + self.text() + value[at + self.random.randint(0, 3) :]
        return self.value(1)

    def altered_members(self, members: dict[str, Any]) -> dict[str, Any]:
        kept = {
            key: self.altered(member) if self.random.random() < 0.6 else member
            for key, member in members.items()
            if self.random.random() < 0.85
        }
        return {**kept, **self.members(self.random.randint(0, 2), 1)}

    def change(self) -> tuple[state.State, state.State]:
        before = self.members(self.random.choice([1, 2, 3, 5, 8, 8, 120]), 0)
        return before, self.altered_members(before) if self.random.random() < 0.97 else {}


@dataclass
class Case:
    name: str
    entries: list[DiffEntry]
    question: str | TooLarge


@cache
def cases() -> list[Case]:
    return [_case(seed) for seed in range(CASES)]


def _case(seed: int) -> Case:
    hostile = _Hostile(seed)
    before, after = hostile.change()
    # As Fivetran returns them: two halves of a surrogate pair are one character.
    before, after = state.parse(state.dump(before)), state.parse(state.dump(after))
    found = list(state.differences(before, after))
    entries = [each for each in found if each.op != "add"]
    entries += [each for each in found if each.op == "add"]
    name = hostile.text()
    try:
        changes = changes_in_full(before, after)
    except TooLarge as error:
        return Case(name, entries, error)
    heading = [f"Change the state of {quoted(name)}?", f"In {quoted(name)}."]
    closing = [f"Version 1 becomes 2, because {quoted(name)}.", "Ends."]
    return Case(name, entries, message(heading, changes, closing))


def asked() -> Iterator[tuple[Case, str]]:
    for case in cases():
        if isinstance(case.question, str):
            yield case, case.question


@pytest.mark.slow
@pytest.mark.parametrize("host", HOSTS)
def test_every_change_stands_whole(host: str) -> None:
    end, paragraph = {"plain": ("  \n", "\n\n"), "folded": (" ", " ")}.get(host, ("", " "))
    for case, question in asked():
        name = quoted(case.name)
        reader = _Reader(HOSTS[host](question))
        reader.take(f"Change the state of {name}?{end}In {name}.{paragraph}")
        for number, entry in enumerate(case.entries, start=1):
            op, path, shown = reader.change(number, len(case.entries))
            last = number == len(case.entries)
            reader.take(paragraph if last else end)
            assert path == entry.path
            assert op == {"add": "added", "remove": "removed", "replace": "from"}[entry.op]
            values = {"add": [entry.after], "remove": [entry.before]}
            assert_shows(shown, values.get(entry.op, [entry.before, entry.after]))
        reader.take(f"Version 1 becomes 2, because {name}.{end}Ends.")
        assert reader.text[reader.at :].strip() == ""


def test_most_hostile_changes_are_asked() -> None:
    questions = [question for _, question in asked()]
    assert CASES * 0.6 < len(questions) < CASES
    assert any("characters the same" in question for question in questions)


def test_a_refusal_counts_the_changes() -> None:
    for case in cases():
        if isinstance(case.question, TooLarge):
            assert case.question.total_changes == len(case.entries)


def test_all_of_a_question_shows() -> None:
    for _, question in asked():
        assert not HIDDEN.search(question)
        assert re.sub(r"  \n|\n\n|…\(", "", question).isprintable()


# One situation each


def test_lines_read_as_sentences() -> None:
    before = {"orders": {"cursor": "2026-01-02"}, "old": {"a": 1}, "page": 1}
    after = {"new": 5, "orders": {"x": 0, "cursor": "2026-01-01"}, "page": 1.5}
    assert changes_in_full(before, state.parse(json.dumps(after))) == [
        '(1 of 5) /orders/cursor: from "2026-01-02" to "2026-01-01"',
        '(2 of 5) /old: removed, was {"a":1}',
        "(3 of 5) /page: from 1 to 1.5",
        "(4 of 5) /orders/x: added, 0",
        "(5 of 5) /new: added, 5",
    ]


def test_a_long_text_shows_what_differs() -> None:
    start, end = "abcdefghij" * 500, "0123456789" * 50
    (line,) = changes_in_full({"t": f"{start}XY{end}"}, {"t": f"{start}Z{end}"})
    assert line == (
        '(1 of 1) /t: from "…(4,980 characters the same)…abcdefghijabcdefghijXY0123456789'
        '0123456789…(480 characters the same)…" to "…(4,980 characters the same)…abcdefghij'
        'abcdefghijZ01234567890123456789…(480 characters the same)…"'
    )


def test_distant_differences_both_show() -> None:
    (line,) = changes_in_full({"t": f"a{'-=' * 60}b"}, {"t": f"c{'-=' * 60}d"})
    assert f'"a{"-=" * 60}b" to "c{"-=" * 60}d"' in line


def test_a_repeated_text_counts_once() -> None:
    (line,) = changes_in_full({"t": "a" * 500}, {"t": "a" * 501})
    assert line.endswith(
        f'from "…(480 characters the same)…{"a" * 20}" to "…(480 characters the same)…{"a" * 21}"'
    )


def test_a_long_number_is_cut() -> None:
    before, after = state.parse(f'{{"n":{"1" * 900}}}'), state.parse(f'{{"n":{"1" * 900}.0}}')
    (line,) = changes_in_full(before, after)
    kept = f"…(880 characters the same)…{'1' * 20}"
    assert line.endswith(f"from {kept} to {kept}.0")


def test_a_raw_document_is_a_text() -> None:
    raw = RawDocument('{"a":1,\n"a":2}', "it has a key twice")
    assert changes_in_full(raw, {"a": 2}) == [
        r'(1 of 1) (everything): from the text "\u007b\u0022a\u0022\u003a1,\u000a\u0022a\u0022'
        r'\u003a2\u007d" to {"a":2}'
    ]


def test_too_many_changes_are_not_shown() -> None:
    after = {str(number): number for number in range(MAX_CHANGES + 1)}
    with pytest.raises(TooLarge) as raised:
        changes_in_full({}, after)
    assert raised.value.total_changes == MAX_CHANGES + 1
    del after["0"]
    assert len(changes_in_full({}, after)) == MAX_CHANGES


@pytest.mark.parametrize("letter", ["a", "<", "é", "\u0430", "😀"])
def test_a_large_value_is_not_shown(letter: str) -> None:
    for size in (MAX_QUESTION, 1_000_000):
        with pytest.raises(TooLarge):
            changes_in_full({}, {"a": 1, "t": letter * size})
        with pytest.raises(TooLarge):
            changes_in_full({}, {letter * size: 1})
        with pytest.raises(TooLarge):
            changes_in_full({"t": 1}, {"t": letter * size})


def test_the_limit_is_of_all_lines() -> None:
    before, after = {"a": 1, "b": 2}, {"a": 2, "b": 3}
    lines = changes_in_full(before, after)
    size = sum(len(line) + len("  \n") for line in lines)
    assert changes_in_full(before, after, limit=size) == lines
    with pytest.raises(TooLarge):
        changes_in_full(before, after, limit=size - 1)


def test_no_change_is_no_line() -> None:
    assert changes_in_full({"a": 1}, {"a": 1}) == []
    assert message(["Go on?"], [], ["Nothing changes."]) == "Go on?\n\nNothing changes."
