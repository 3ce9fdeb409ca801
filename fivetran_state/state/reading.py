"""Documents from JSON text, from Fivetran's answers, and from values that another parser made."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn, cast

from fivetran_state.state.limits import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    refuse_deep,
    refuse_large,
    too_deep,
    too_large,
    too_many,
)
from fivetran_state.state.numbers import integer, is_integer, number
from fivetran_state.state.pointers import place_of
from fivetran_state.state.values import (
    Document,
    InvalidState,
    JsonValue,
    KeyPath,
    RawDocument,
    State,
    has_more_values,
    with_article,
)
from fivetran_state.state.writing import dump
from fivetran_state.text import shown

MAX_ANSWER_BYTES = 4 * MAX_BYTES + 1_000_000
"""The largest answer of Fivetran. Escapes and white space make a state longer than MAX_BYTES."""

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_EMPTY = re.compile(r"\[[ \t\n\r]*\]|\{[ \t\n\r]*\}")
_STRING_OR_BRACKETS = re.compile(r'"|[\[{]+|[\]}]+')


def parse(document: str | bytes) -> State:
    """Parse a JSON text as a state. A byte order mark at its start is ignored.

    Raises InvalidState if the text is not JSON (or UTF-8), its top is not an object, an object has
    a key twice, a number is NaN or infinite, or the text exceeds MAX_BYTES, MAX_VALUES or
    MAX_DEPTH.
    """
    value = parse_value(document)
    if not isinstance(value, dict):
        raise InvalidState(
            f"a state is a JSON object, but this is {with_article(value)}", "wrap it in an object"
        )
    return value


def parse_value(document: str | bytes) -> JsonValue:
    """Like `parse`, for any JSON value."""
    text = _text(document)
    encoded = text.encode()
    # Escapes may make the text from `dump` three times as large as its value.
    if len(encoded) - 5 * encoded.count(b"\\u") > MAX_BYTES:
        raise too_large()
    if _may_have_more_values(text, 0):
        raise too_many()
    value = decode(text)
    refuse_deep(value)
    if len(encoded) > MAX_BYTES:
        refuse_large(value)
    return value


def document(text: str | bytes) -> Document:
    """Parse a JSON text as a state; a RawDocument if the JSON is not a usable state.

    Raises InvalidState if the text is not JSON (or UTF-8). White space around the value is removed.
    """
    text = _text(text)
    try:
        found, end = _document_at(text, _after_space(text, 0))
        _refuse_more(text, end)
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    return found


def parse_answer(content: bytes) -> dict[str, Any]:
    """Parse one of Fivetran's answers: ``{"code": ..., "data": {...}}``, with exact numbers.

    ``data.state``, if present and not null, is a Document. The limits of `parse` apply to it alone.
    Elsewhere in the answer a key may occur twice: the last one counts. Raises InvalidState if the
    content is not JSON, not an object, or larger than MAX_ANSWER_BYTES.
    """
    if len(content) > MAX_ANSWER_BYTES:
        raise InvalidState(f"an answer larger than {MAX_ANSWER_BYTES:,} bytes")
    text = _text(content)
    start = _after_space(text, 0)
    try:
        if not text.startswith("{", start):
            value, end = _ENVELOPE_DECODER.raw_decode(text, start)
            _refuse_more(text, end)
            raise InvalidState(f"an answer is a JSON object, but this is {with_article(value)}")
        answer, end = _object_at(text, start, _answer_member_at)
        _refuse_more(text, end)
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    except RecursionError:
        raise InvalidState("an answer that is nested too deep") from None
    return answer


def parse_envelope(content: bytes) -> dict[str, Any]:
    """A JSON object, numbers exact, whose member ``state`` is a Document.

    The limits of `parse` hold for the state alone, not for its indentation. Raises InvalidState if
    the content is not JSON, not an object, or names a member twice.
    """
    text = _text(content)
    seen = set()

    def member_at(key: str, text: str, index: int) -> tuple[Any, int]:
        if key in seen:
            raise InvalidState(f"it has the key {shown(dump(key))} twice", "remove one of them")
        seen.add(key)
        return _data_member_at(key, text, index)

    start = _after_space(text, 0)
    if not text.startswith("{", start):
        raise InvalidState("it is not a JSON object")
    try:
        members, end = _object_at(text, start, member_at)
        _refuse_more(text, end)
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    except RecursionError:
        raise too_deep() from None
    return members


def adopt(value: object) -> JsonValue:
    """A copy, in this module's types, of a value that another JSON parser made.

    Accepts dict, list, str, int, float, bool, None and Decimal. Raises InvalidState for any other
    type, keys that are not strings, NaN and infinities, and beyond the limits of `parse`.
    """
    if has_more_values(cast(JsonValue, value), MAX_VALUES):
        raise too_many()
    adopted = _adopt(value, ())
    refuse_large(adopted)
    return adopted


def has_too_many_values(text: bytes) -> bool:
    """True if JSON text has more than MAX_VALUES; counts them without parsing."""
    marks = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    return marks >= MAX_VALUES and _may_have_more_values(text.decode(errors="replace"), 0)


def _constant(name: str) -> NoReturn:
    raise InvalidState(f"{name} is not a JSON number", "use null, a string or a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise InvalidState(f"an object has the key {shown(dump(twice))} twice", "keep one of them")
    return members


_DECODER = json.JSONDecoder(
    parse_int=integer,
    parse_float=number,
    parse_constant=_constant,
    object_pairs_hook=_object,
)
# Where a key occurs twice, the last one counts.
_ENVELOPE_DECODER = json.JSONDecoder(
    parse_int=integer, parse_float=number, parse_constant=_constant
)
# Finds the end of everything that Python accepts as JSON, and converts nothing.
_LENIENT_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)


def _text(document: str | bytes) -> str:
    try:
        encoded = document.encode() if isinstance(document, str) else document
        return encoded.decode().removeprefix("\ufeff")
    except UnicodeError as error:
        position = getattr(error, "start", 0)
        raise InvalidState(
            f"not valid UTF-8 at position {position}", "encode it as UTF-8"
        ) from None


def decode(text: str) -> JsonValue:
    """Parse JSON text of any size. Raises InvalidState."""
    try:
        value: JsonValue = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    except RecursionError:
        raise too_deep() from None
    return value


def _not_json(error: json.JSONDecodeError) -> InvalidState:
    return InvalidState(
        f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}", "fix the text"
    )


def _may_have_more_values(text: str, start: int, end: int = sys.maxsize) -> bool:
    """True if JSON text has more than MAX_VALUES; counts them without parsing."""
    # Each value except the first follows one of these. Strings may contain them too.
    marks = [text.count(mark, start, end) for mark in ",[{"]
    if sum(marks) < MAX_VALUES:
        return False
    outside = _STRING.sub("", text[start:end])
    empty = sum(1 for _ in _EMPTY.finditer(outside))
    return sum(outside.count(mark) for mark in ",[{") - empty >= MAX_VALUES


def _after_space(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    return match.end() if match else index


def _refuse_more(text: str, end: int) -> None:
    end = _after_space(text, end)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _document_at(text: str, start: int) -> tuple[Document, int]:
    """The document that starts here, and the index of its end."""
    if text.startswith(("{", "["), start) and _may_have_more_values(text, start):
        end = _end_of_nested(text, start)
        if _may_have_more_values(text, start, end):
            return RawDocument(text[start:end], too_many().problem), end
    try:
        value, end = _DECODER.raw_decode(text, start)
        refuse_deep(value)
        # A character is at most four bytes of UTF-8.
        if 4 * (end - start) > MAX_BYTES:
            refuse_large(value)
    except InvalidState as error:
        end = _end_of_value(text, start)
        return RawDocument(text[start:end], error.problem), end
    except RecursionError:
        end = _end_of_value(text, start)
        return RawDocument(text[start:end], too_deep().problem), end
    if isinstance(value, dict):
        return value, end
    problem = f"it is {with_article(value)}, not an object"
    if isinstance(value, str) and _holds_state(value):
        problem = "it is a string that contains a JSON object: it was encoded twice"
    return RawDocument(text[start:end], problem), end


def _holds_state(text: str) -> bool:
    try:
        parse(text)
    except InvalidState:
        return False
    return True


def _end_of_value(text: str, start: int) -> int:
    try:
        _, end = _LENIENT_DECODER.raw_decode(text, start)
    except RecursionError:
        return _end_of_nested(text, start)
    return end


def _end_of_nested(text: str, start: int) -> int:
    """The end of an object or array that is nested too deep for a parser."""
    depth, index = 0, start
    while found := _STRING_OR_BRACKETS.search(text, index):
        index, size = found.end(), len(found[0])
        if found[0] == '"':
            _, index = _LENIENT_DECODER.raw_decode(text, found.start())
        elif found[0][0] in "[{":
            depth += size
        elif depth > size:
            depth -= size
        else:
            return found.start() + depth
    raise json.JSONDecodeError("Unterminated object or array starting", text, start)


def _object_at(
    text: str, start: int, member_at: Callable[[str, str, int], tuple[Any, int]]
) -> tuple[dict[str, Any], int]:
    """The object that starts here; `member_at(key, text, index)` reads each member."""
    members: dict[str, Any] = {}
    index = _after_space(text, start + 1)
    if text.startswith("}", index):
        return members, index + 1
    while True:
        if not text.startswith('"', index):
            raise json.JSONDecodeError("Expecting a property name in quotes", text, index)
        key, index = _ENVELOPE_DECODER.raw_decode(text, index)
        index = _after_space(text, index)
        if not text.startswith(":", index):
            raise json.JSONDecodeError("Expecting ':' delimiter", text, index)
        members[key], index = member_at(key, text, _after_space(text, index + 1))
        index = _after_space(text, index)
        if text.startswith("}", index):
            return members, index + 1
        if not text.startswith(",", index):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, index)
        index = _after_space(text, index + 1)


def _answer_member_at(key: str, text: str, index: int) -> tuple[Any, int]:
    if key == "data" and text.startswith("{", index):
        return _object_at(text, index, _data_member_at)
    return _ENVELOPE_DECODER.raw_decode(text, index)


def _data_member_at(key: str, text: str, index: int) -> tuple[Any, int]:
    if key == "state" and not text.startswith("null", index):
        return _document_at(text, index)
    return _ENVELOPE_DECODER.raw_decode(text, index)


def _adopt(value: object, path: KeyPath) -> JsonValue:
    if len(path) >= MAX_DEPTH and isinstance(value, dict | list):
        raise too_deep()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidState(
                    f"a key at {place_of(path)} is not a string", "JSON keys are strings"
                )
        return {key: _adopt(member, (*path, key)) for key, member in value.items()}
    if isinstance(value, list):
        return [_adopt(item, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, int | float | Decimal):
        raise InvalidState(
            f"the value at {place_of(path)} is not JSON",
            "use an object, array, string, number, boolean or null",
        )
    if not isinstance(value, int) and not Decimal(value).is_finite():
        raise InvalidState(f"the number at {place_of(path)} is not finite", "use null or a string")
    try:
        # repr of a float is the shortest text that means this float.
        text = repr(value) if isinstance(value, float) else str(value)
    except ValueError:
        raise InvalidState(
            f"the number at {place_of(path)} has too many digits", "send it as JSON text"
        ) from None
    try:
        return integer(text) if is_integer(text) else number(text)
    except InvalidState as error:
        raise InvalidState(f"at {place_of(path)}, {shown(str(error), 150)}") from None
