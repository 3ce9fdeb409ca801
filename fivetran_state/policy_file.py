"""Reads the policy from its file, and names the line that is wrong."""

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fivetran_state.policy import Policy, Rule
from fivetran_state.text import shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Place = tuple[str | int, ...]

_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_EXAMPLES = {
    "connections": '["orders_*"]',
    "groups": '["Production"]',
    "paths": '["/orders"]',
    "who": '["write"]',
    "windows": '["Mon-Fri 08:00-18:00 Europe/Berlin"]',
}
_WORDS = {
    "missing": "is missing",
    "enum": 'write "required", "not required" or "forbidden"',
    "string_type": "write text in quotes",
    "string_too_short": "is empty",
    "string_too_long": "is longer than 60 characters",
    "int_type": "write a whole number, such as 1000",
    "greater_than_equal": "write 0 or more",
}


def read(path: Path) -> Policy:
    """The policy; raises `ValueError`, which names the file, each line that is wrong, and what to write."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"{shown(str(path), 500)} cannot be read: {why}") from None
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{shown(str(path), 500)}, {error}") from None


def parse(text: str) -> Policy:
    """Like `read`, of the file's text."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT_LINE.search(str(error))
        line = int(found[1]) if found and found[1] else len(text.splitlines())
        said = _AT_LINE.sub("", str(error))
        raise ValueError(f"line {line}: this is not TOML: {said}") from None
    if not tables:
        raise ValueError("line 1: there is no rule; begin one with [[rule]]")
    try:
        return Policy.model_validate(tables)
    except ValidationError as error:
        problems = {(_line(text, tables, each), _in_words(each)) for each in error.errors()}
        raise ValueError("; ".join(f"line {at}: {said}" for at, said in sorted(problems))) from None


def _place(problem: "ErrorDetails") -> Place:
    where = problem.get("ctx", {})
    rule = ("rule", where["rule"]) if "rule" in where else ()
    key = (where["key"],) if "key" in where else ()
    return (*problem["loc"], *rule, *key)


def _in_words(problem: "ErrorDetails") -> str:
    """What is wrong, and what to write instead."""
    place, kind = _place(problem), problem["type"]
    key = next((str(each) for each in reversed(place) if isinstance(each, str)), "")
    if kind == "extra_forbidden":
        known = Policy.model_fields if len(place) == 1 else Rule.model_fields
        near = get_close_matches(key, known, n=1, cutoff=0)[0]
        return f"'{shown(key)}' is not known; is '{near}' meant?"
    if kind == "tuple_type":
        if key == "rule":
            return "begin each rule with [[rule]]"
        return f"{key}: write a list, such as {_EXAMPLES[key]}"
    if kind in ("model_type", "model_attributes_type"):
        return "begin each rule with [[rule]]"
    said = _WORDS.get(kind, problem["msg"].removeprefix("Value error, "))
    given = problem["input"]
    quoted = f" '{shown(given)}'" if isinstance(given, str) else ""
    return f"{key}{quoted}: {said}"


def _line(text: str, tables: dict[str, Any], problem: "ErrorDetails") -> int:
    """The line of what is wrong, or of the rule that it is missing from.

    A TOML parser tells no lines. A statement ends where the file up to there has its key for the first time.
    """
    place = _place(problem)
    while place and not _has(tables, place):
        place = place[:-1]
    key = place
    while len(key) > 2 and isinstance(key[-1], int):
        key = key[:-1]
    begin = 1
    for line, head in _heads(text):
        if _has(head, key):
            return _line_of_item(text, begin, line, _at(tables, place) if key != place else None)
        begin = line + 1
    return begin


def _heads(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the file says up to each line, where that is TOML."""
    lines = text.splitlines(keepends=True)
    for line in range(1, len(lines) + 1):
        try:
            yield line, tomllib.loads("".join(lines[:line]))
        except tomllib.TOMLDecodeError:
            continue


def _line_of_item(text: str, begin: int, end: int, item: object) -> int:
    """The line of a text in an array that goes over several lines; else the first line."""
    if isinstance(item, str):
        for line, content in enumerate(text.splitlines()[begin - 1 : end], begin):
            if item in content:
                return line
    return begin


def _has(value: Any, place: Place) -> bool:
    try:
        _at(value, place)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value
