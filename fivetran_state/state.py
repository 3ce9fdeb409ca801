"""Pure functions on a state document: a JSON object of cursors.

Python's own JSON turns 1.10 into 1.1 and rounds a 40-digit decimal, and its ``==`` treats 1, 1.0
and True as equal. A cursor must come back exactly as Fivetran had it. So this module parses,
writes, versions, changes and compares states, and changes a number only if the caller asks for it.
"""

import hashlib
import json
import math
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from itertools import islice, zip_longest
from typing import Any, Literal, NoReturn, TypeAlias, TypeGuard, cast
from urllib.parse import quote, unquote

import simplejson

from fivetran_state.text import HIDDEN, escape, shown, visible

MAX_BYTES = 9_999_999
"""The largest document, in bytes of UTF-8."""
MAX_DEPTH = 100
"""The deepest nesting of objects and arrays."""
MAX_VALUES = 500_000
"""The most values in one document, nested ones included. A value of two bytes takes a hundred bytes
of memory, and several copies are made."""
MAX_ANSWER_BYTES = 4 * MAX_BYTES + 1_000_000
"""The largest answer of Fivetran. Escapes and white space make a state longer than MAX_BYTES."""
MAX_OPERATIONS = 10_000
"""The most operations of a JSON patch."""
MAX_COPIED = 200_000
"""The most values, in total, that a JSON patch may copy."""
MAX_KEPT = 50
"""The most paths that `Applied` lists."""
MAX_PATH_LENGTH = 1000
"""The most characters of a JSON Pointer that are shown."""
MAX_PREVIEW = 200
"""The most bytes of a value that a search shows whole."""


class InvalidState(ValueError):
    """A document is refused: it is not JSON, not an object, or beyond the limits.

    `problem` says what is wrong; the message also says how to fix it.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(f"{problem}; {advice}" if advice else problem)
        self.problem = problem


class InvalidChange(ValueError):
    """A change is malformed, does not fit the state, or would leave an invalid one."""


class NotThere(LookupError):
    """A JSON Pointer points to nothing; the message names the nearest parent that exists."""


def number(spelling: str) -> Decimal:
    """A JSON number that is not a plain int. Its ``str`` is the spelling: "1.10", "1e400", "-0".

    Raises InvalidState for anything but a JSON number within Decimal's range.
    """
    if not _NUMBER.fullmatch(spelling):
        raise InvalidState(f"{shown(spelling)} is not a JSON number")
    try:
        decimal = Decimal(spelling)
        # Most are spelled like this one. Garbage collections pass over it, but over no instance of a
        # subclass, and with hundreds of thousands of these one would stop all threads for a second.
        return decimal if str(decimal) == spelling else _Spelled(spelling)
    except InvalidOperation:
        raise InvalidState(
            f"the number {shown(spelling)} is out of range", f"use an exponent within ±{MAX_EMAX}"
        ) from None


class _Spelled(Decimal):
    """A number that Decimal would spell differently."""

    __slots__ = ("_spelling",)
    _spelling: str

    def __new__(cls, spelling: str) -> "_Spelled":
        spelled = super().__new__(cls, spelling)
        spelled._spelling = spelling
        return spelled

    def __str__(self) -> str:
        return self._spelling

    def __repr__(self) -> str:
        return f"Decimal({self._spelling!r})"

    def __format__(self, spec: str, *context: Any) -> str:
        return super().__format__(spec, *context) if spec else self._spelling

    def __reduce__(self) -> tuple[type["_Spelled"], tuple[str]]:
        return _Spelled, (self._spelling,)


JsonValue: TypeAlias = dict[str, Any] | list[Any] | str | int | Decimal | bool | None
State: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class RawDocument:
    """The exact JSON text that Fivetran keeps as the state, if it is not a usable state.

    `problem` is a sentence fragment: "it is an array, not an object".
    """

    text: str
    problem: str


Document: TypeAlias = State | RawDocument
"""A value that Fivetran keeps as the state of a connection."""

# Keep a path as a tuple until it is shown: below a key of megabytes, pointers would take gigabytes.
_Path: TypeAlias = tuple[str | int, ...]
# The places of the numbers that were recognized as rounded; None for an exact change.
_Kept: TypeAlias = dict[_Path, None] | None
_Op: TypeAlias = Literal["add", "remove", "replace"]
_Difference: TypeAlias = tuple[_Op, _Path, JsonValue | RawDocument, JsonValue | RawDocument]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_VERSION = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}", re.ASCII)
_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_EMPTY = re.compile(r"\[[ \t\n\r]*\]|\{[ \t\n\r]*\}")
_STRING_OR_BRACKETS = re.compile(r'"|[\[{]+|[\]}]+')
# Python refuses to convert longer ints where its lowest limit is set (4300 is the default).
_INT_DIGITS = 640
# normalize() rounds to its context; this context can hold every number.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def parse(document: str | bytes) -> State:
    """Parse a JSON text as a state. A byte order mark at its start is ignored.

    Raises InvalidState if the text is not JSON (or UTF-8), its top is not an object, an object has
    a key twice, a number is NaN or infinite, or the text exceeds MAX_BYTES, MAX_VALUES or
    MAX_DEPTH.
    """
    value = parse_value(document)
    if not isinstance(value, dict):
        raise InvalidState(
            f"a state is a JSON object, but this is {_a(value)}", "wrap it in an object"
        )
    return value


def parse_value(document: str | bytes) -> JsonValue:
    """Like `parse`, for any JSON value."""
    text = _text(document)
    encoded = text.encode()
    # Escapes may make the text from `dump` three times as large as its value.
    if len(encoded) - 5 * encoded.count(b"\\u") > MAX_BYTES:
        raise _too_large()
    if _may_have_more_values(text, 0):
        raise _too_many()
    value = _decode(text)
    _refuse_deep(value)
    if len(encoded) > MAX_BYTES:
        _refuse_large(value)
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
            raise InvalidState(f"an answer is a JSON object, but this is {_a(value)}")
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
        raise _too_deep() from None
    return members


def adopt(value: object) -> JsonValue:
    """A copy, in this module's types, of a value that another JSON parser made.

    Accepts dict, list, str, int, float, bool, None and Decimal. Raises InvalidState for any other
    type, keys that are not strings, NaN and infinities, and beyond the limits of `parse`.
    """
    if has_more_values(cast(JsonValue, value), MAX_VALUES):
        raise _too_many()
    adopted = _adopt(value, ())
    _refuse_large(adopted)
    return adopted


def dump(value: JsonValue | RawDocument) -> str:
    """Exact, compact JSON: keys in their order, numbers in their spelling, ASCII only.

    The text of a RawDocument is left as it is.
    """
    return value.text if isinstance(value, RawDocument) else _ENCODER.encode(value)


def indented(value: JsonValue | RawDocument) -> str:
    """`dump` for people: a line for each value, without a character that does not show."""
    if isinstance(value, RawDocument):
        return value.text
    return HIDDEN.sub(lambda found: escape(found[0]), _INDENTING_ENCODER.encode(value))


def version(document: Document) -> str:
    """32 hex digits; equal for documents that are `same`.

    Release 0.1 kept the first 16 of them.
    """
    # The canonical text of a state begins with {, so a raw document never has a state's version.
    text = f"raw:{document.text}" if isinstance(document, RawDocument) else _canonical(document)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_version(text: str) -> bool:
    """True if the text has the form of a version: 32 hex digits, or the 16 of release 0.1."""
    return _VERSION.fullmatch(text) is not None


def same(a: JsonValue | RawDocument, b: JsonValue | RawDocument) -> bool:
    """True if two values are equal, except for key order and the spelling of decimals.

    1.10 is 1.1 and 100.0 is 1e2, but 1, 1.0 and true differ, and so do 0, -0, 0.0 and -0.0. A
    RawDocument equals only one with the same text.
    """
    if type(a) is type(b) and isinstance(a, str | int):
        return a == b
    if isinstance(a, RawDocument) or isinstance(b, RawDocument):
        return type(a) is type(b) and dump(a) == dump(b)
    return a is b or _canonical(a) == _canonical(b)


@dataclass(frozen=True)
class Change:
    """A change of a state.

    ``new_state`` is the whole state, ``merge_patch`` an RFC 7386 object, ``json_patch`` an RFC 6902
    array. ``part`` is ``{"path": pointer, "value": any}``; without the value it is a removal.
    ``exact`` is false if the value came through a parser that rounds numbers to doubles. A part is
    always exact.
    """

    kind: Literal["new_state", "merge_patch", "json_patch", "part"]
    value: JsonValue
    exact: bool = True


@dataclass(frozen=True)
class Applied:
    """A changed state, and the numbers that the change names but leaves as they are.

    `kept` holds the `shown_path` of the first numbers whose new value is only a rounding of the old
    one; the old one stays. `kept_total` counts all of them.
    """

    after: State
    kept: tuple[str, ...]
    kept_total: int


def check(change: Change) -> None:
    """Raises InvalidChange if the change would be wrong for every state."""
    value = change.value
    if change.kind == "new_state":
        if not isinstance(value, dict):
            raise InvalidChange(f"a state is a JSON object, but this is {_a(value)}")
    elif change.kind == "part":
        _check_part(value)
    else:
        if change.kind == "json_patch":
            _check_json_patch(value)
        elif not isinstance(value, dict):
            raise InvalidChange(f"a merge patch is a JSON object, but this is {_a(value)}")
        if not value:
            raise InvalidChange("the patch is empty: it changes nothing; name what to change")


def apply(change: Change, before: Document) -> State:
    """The state after the change; see `applied`."""
    return applied(change, before).after


def applied(change: Change, before: Document) -> Applied:
    """The state after the change; neither argument is changed or shared.

    JavaScript and many other hosts keep numbers as doubles. If a number of an inexact change is
    spelled as JavaScript prints the double of the old number at that place, the old number stays.
    Raises InvalidChange if the change is malformed, does not fit, or its result is not an object
    within the limits. Only ``new_state`` can change a RawDocument.
    """
    check(change)
    kept: _Kept = None if change.exact or change.kind == "part" else {}
    result: Any
    if change.kind == "new_state":
        result = _restored(change.value, before, (), kept)
    elif isinstance(before, RawDocument):
        raise InvalidChange(
            f"the current state is not usable ({before.problem}); replace the whole "
            "state with new_state"
        )
    elif change.kind == "merge_patch":
        result = _merge(_copy(before), _restored(change.value, before, (), kept))
    elif change.kind == "json_patch":
        result = _json_patch(_copy(before), change.value, kept)
    else:
        result = _with_part(_copy(before), change.value)
    if not isinstance(result, dict):
        raise InvalidChange(f"a state is a JSON object, but the change makes it {_a(result)}")
    try:
        if has_more_values(result, MAX_VALUES):
            raise _too_many()
        _refuse_deep(result)
        _refuse_large(result)
    except InvalidState as error:
        raise InvalidChange(f"the change makes the state too big: {error}") from None
    kept = kept or {}
    paths = (shown_path(_pointer(path)) for path in islice(kept, MAX_KEPT))
    return Applied(result, tuple(paths), len(kept))


def part_of(source: State, pointer: str) -> Change:
    """The change that sets the value at a JSON Pointer to its value in `source`.

    If `source` has no value there, the change removes it. Raises NotThere if the pointer is
    malformed.
    """
    tokens = _tokens(pointer)
    part: State = {"path": pointer}
    with suppress(NotThere):
        part["value"] = _copy(_at(source, tokens))
    return Change("part", part)


def parse_change(
    kind: Literal["new_state", "merge_patch", "json_patch", "part"], text: str, exact: bool = True
) -> Change:
    """A change from a value that `dump` wrote.

    The limits of `parse` do not apply: a part of the largest state is larger than a state. Raises
    InvalidState if the text is not JSON.
    """
    return Change(kind, _decode(text), exact)


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


def preview(value: JsonValue | RawDocument, limit: int = 200) -> str:
    """The JSON text, cut to `limit` characters and with its full size: ``{"a":… (5,120 bytes)``."""
    text = dump(value)
    cut = visible(text[:limit])  # JSON does not escape one control character: delete.
    return cut if len(text) <= limit else f"{cut}… ({len(text.encode()):,} bytes)"


def at(value: JsonValue, pointer: str) -> JsonValue:
    """The value at a JSON Pointer (RFC 6901), or at its form with a #. Raises NotThere."""
    return _at(value, _tokens(pointer))


@dataclass(frozen=True)
class OutlineEntry:
    """One value of an outline or a search, at its `shown_path`.

    `bytes` is the size of its JSON, `items` the number of members of an object or array, `preview`
    the JSON of a scalar, at most 60 characters. A search previews every value of up to MAX_PREVIEW
    bytes, and all of it. Type "more" stands for members of the object or array at `path` that are
    not listed: `items` of them, `bytes` in total.
    """

    path: str
    type: str
    bytes: int
    items: int | None
    preview: str | None


@dataclass(frozen=True)
class Listing:
    """One page of entries, and the `start` of the next page: None on the last one.

    `total` is the number of values that a search finds.
    """

    entries: list[OutlineEntry]
    next_start: int | None
    total: int | None = None


def outline(value: JsonValue, pointer: str = "", max_bytes: int = 4000, start: int = 0) -> Listing:
    """The contents of a value too large to show, breadth first, in at most `max_bytes` of JSON.

    `pointer` is the place of the value in its document, and every path begins with it. `start` is
    the number of values on earlier pages. A last entry of type "more" counts the members that do
    not fit, if there is room for it. Nothing is listed inside a value that has no usable path.
    """
    sizes: dict[int, int] = {}
    _measure(value, sizes)
    entries: list[OutlineEntry] = []
    used, reserve = len("[]"), 0
    for path, members in _breadth_first(value, _without_fragment(pointer), start):
        reserve = max(reserve, _more_size(shown_path(path)))
        for index, (key, member) in enumerate(members):
            inner = _longer(path, key)
            entry = _entry(shown_path(inner), member, sizes)
            size = _entry_size(entry)
            leads_deeper = entry.items and _usable(inner) is not None
            needed = max(reserve, _more_size(entry.path)) if leads_deeper else reserve
            if used + size + needed > max_bytes:
                more = _more(shown_path(path), members[index:], sizes)
                has_room = used + _entry_size(more) <= max_bytes
                return Listing([*entries, more] if has_room else entries, start + len(entries))
            used, reserve = used + size, needed
            entries.append(entry)
    return Listing(entries, None)


def search(
    value: JsonValue, text: str, pointer: str = "", max_bytes: int = 4000, start: int = 0
) -> Listing:
    """The values that `matches` finds, in at most `max_bytes` of JSON.

    `start` is the number of values on earlier pages.
    """
    sizes: dict[int, int] = {}
    entries: list[OutlineEntry] = []
    used, total, next_start = len("[]"), 0, None
    for path, key, member in _matches(value, text, pointer):
        if total >= start and next_start is None:
            entry = _match(path, key, member, sizes)
            used += _entry_size(entry)
            if used <= max_bytes:
                entries.append(entry)
            else:
                next_start = total
        total += 1
    return Listing(entries, next_start, total)


def matches(value: JsonValue, text: str, pointer: str = "") -> Iterator[OutlineEntry]:
    """The values inside whose paths contain a part of a JSON Pointer, in document order.

    Case is ignored, and a / also finds a / in a key. A value inside a match is a match only if the
    text reaches into its own key: "/orders" finds all of /orders as one value. `pointer` is the
    place of the value in its document, and every path begins with it.
    """
    sizes: dict[int, int] = {}
    for path, key, member in _matches(value, text, pointer):
        yield _match(path, key, member, sizes)


def shown_path(pointer: str) -> str:
    """The pointer as it is shown. `at` and JSON patches understand it unless it had to be cut.

    A pointer with invisible characters is shown as a URI fragment (RFC 6901, 6): `#/a%E2%80%8B`.
    """
    usable = _usable(pointer)
    return shown(pointer, MAX_PATH_LENGTH) if usable is None else usable


def has_too_many_values(text: bytes) -> bool:
    """True if JSON text has more than MAX_VALUES; counts them without parsing."""
    marks = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    return marks >= MAX_VALUES and _may_have_more_values(text.decode(errors="replace"), 0)


def has_more_values(value: JsonValue, limit: int) -> bool:
    """True if these are more values than `limit`, nested ones included; stops counting there."""
    return _count(value, limit) > limit


def hides(value: JsonValue) -> bool:
    """True if JSON text of the value may contain invisible characters; `dump` escapes them."""
    if isinstance(value, str):
        return HIDDEN.search(value) is not None
    if isinstance(value, dict) and any(map(hides, value)):
        return True
    return any(hides(member) for _, member in _members(value))


def plain(value: JsonValue) -> object:
    """The value for libraries that know only doubles. It may lose precision, and what `hides`.

    A Decimal becomes the nearest double; an invisible character becomes the text of its escape.
    """
    if isinstance(value, dict):
        return {_plain_text(key): plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Decimal):
        return _double(value)
    return _plain_text(value) if isinstance(value, str) else value


def inexact(value: JsonValue, limit: int = 50) -> dict[str, str]:
    """Path → exact text, for the first `limit` numbers whose value `plain` may change."""
    lost = ((path, str(leaf)) for path, leaf in _leaves(value) if _loses_as_double(leaf))
    return {shown_path(_pointer(path)): number for path, number in islice(lost, limit)}


# Reading and writing


def _integer(text: str) -> int | Decimal:
    return number(text) if len(text) > _INT_DIGITS or text == "-0" else int(text)


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _constant(name: str) -> NoReturn:
    raise InvalidState(f"{name} is not a JSON number", "use null, a string or a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise InvalidState(f"an object has the key {shown(dump(twice))} twice", "keep one of them")
    return members


def _canonical_number(number: Decimal) -> str:
    # The suffix distinguishes 100.0, which normalizes to 1E+2, and 5.0, to 5, from every integer.
    return str(number) if _is_integer(str(number)) else f"{number.normalize(_EXACT)}f"


_DECODER = json.JSONDecoder(
    parse_int=_integer,
    parse_float=number,
    parse_constant=_constant,
    object_pairs_hook=_object,
)
# Where a key occurs twice, the last one counts.
_ENVELOPE_DECODER = json.JSONDecoder(
    parse_int=_integer, parse_float=number, parse_constant=_constant
)
# Finds the end of everything that Python accepts as JSON, and converts nothing.
_LENIENT_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)
# Keys are sorted by functions in Python, even if only to leave them in their order: between their calls
# other threads may run, which wait for all the rest of the encoder's work.
_ENCODER = simplejson.JSONEncoder(
    separators=(",", ":"), use_decimal=True, item_sort_key=lambda member: 0
)
_INDENTING_ENCODER = simplejson.JSONEncoder(indent=2, separators=(",", ": "), use_decimal=True)
# Without use_decimal every Decimal goes through `default`, within the encoder's one pass.
_CANONICAL_ENCODER = simplejson.JSONEncoder(
    separators=(",", ":"),
    item_sort_key=lambda member: member[0],
    use_decimal=False,
    default=lambda number: simplejson.RawJSON(_canonical_number(number)),
)


def _canonical(value: JsonValue) -> str:
    return _CANONICAL_ENCODER.encode(value)


def _text(document: str | bytes) -> str:
    try:
        encoded = document.encode() if isinstance(document, str) else document
        return encoded.decode().removeprefix("\ufeff")
    except UnicodeError as error:
        position = getattr(error, "start", 0)
        raise InvalidState(
            f"not valid UTF-8 at position {position}", "encode it as UTF-8"
        ) from None


def _decode(text: str) -> JsonValue:
    try:
        value: JsonValue = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    except RecursionError:
        raise _too_deep() from None
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
            return RawDocument(text[start:end], _too_many().problem), end
    try:
        value, end = _DECODER.raw_decode(text, start)
        _refuse_deep(value)
        # A character is at most four bytes of UTF-8.
        if 4 * (end - start) > MAX_BYTES:
            _refuse_large(value)
    except InvalidState as error:
        end = _end_of_value(text, start)
        return RawDocument(text[start:end], error.problem), end
    except RecursionError:
        end = _end_of_value(text, start)
        return RawDocument(text[start:end], _too_deep().problem), end
    if isinstance(value, dict):
        return value, end
    problem = f"it is {_a(value)}, not an object"
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


def _adopt(value: object, path: _Path) -> JsonValue:
    if len(path) >= MAX_DEPTH and isinstance(value, dict | list):
        raise _too_deep()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidState(
                    f"a key at {_place(path)} is not a string", "JSON keys are strings"
                )
        return {key: _adopt(member, (*path, key)) for key, member in value.items()}
    if isinstance(value, list):
        return [_adopt(item, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, int | float | Decimal):
        raise InvalidState(
            f"the value at {_place(path)} is not JSON",
            "use an object, array, string, number, boolean or null",
        )
    if not isinstance(value, int) and not Decimal(value).is_finite():
        raise InvalidState(f"the number at {_place(path)} is not finite", "use null or a string")
    try:
        # repr of a float is the shortest text that means this float.
        text = repr(value) if isinstance(value, float) else str(value)
    except ValueError:
        raise InvalidState(
            f"the number at {_place(path)} has too many digits", "send it as JSON text"
        ) from None
    try:
        return _integer(text) if _is_integer(text) else number(text)
    except InvalidState as error:
        raise InvalidState(f"at {_place(path)}, {shown(str(error), 150)}") from None


def _refuse_deep(value: JsonValue) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [member for parent in level for _, member in _members(parent)]
    if any(isinstance(member, dict | list) for member in level):
        raise _too_deep()


def _refuse_large(value: JsonValue) -> None:
    # The ASCII text is never shorter than the UTF-8 that the limit counts, and quicker to make.
    if len(dump(value)) > MAX_BYTES:
        readable = simplejson.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if len(readable.encode(errors="surrogatepass")) > MAX_BYTES:
            raise _too_large()


def _too_deep() -> InvalidState:
    return InvalidState(f"it is nested deeper than {MAX_DEPTH} levels", "flatten it")


def _too_many() -> InvalidState:
    return InvalidState(f"it has more than {MAX_VALUES:,} values", "make it smaller")


def _too_large() -> InvalidState:
    return InvalidState(f"it is larger than {MAX_BYTES:,} bytes", "make it smaller")


# Changing


def _copy(value: JsonValue) -> Any:
    if isinstance(value, dict):
        return {key: _copy(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _merge(target: Any, patch: JsonValue) -> Any:
    """Apply RFC 7386, in place."""
    if not isinstance(patch, dict):
        return _copy(patch)
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


_OPERATIONS = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("from", "path"),
    "copy": ("from", "path"),
    "test": ("path", "value"),
}


def _check_part(part: JsonValue) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("path"), str):
        raise InvalidChange("a part is a JSON object with a path, which is a string")
    try:
        tokens = _tokens(part["path"])
    except NotThere as error:
        raise InvalidChange(str(error)) from None
    if not tokens and "value" not in part:
        raise InvalidChange("the whole state cannot be removed; give a value")


def _check_json_patch(patch: JsonValue) -> None:
    if not isinstance(patch, list):
        raise InvalidChange(f"a JSON patch is an array of operations, but this is {_a(patch)}")
    if len(patch) > MAX_OPERATIONS:
        raise InvalidChange(f"more than {MAX_OPERATIONS:,} operations; use fewer operations")
    for index, operation in enumerate(patch):
        _check_operation(f"operation {index}", operation)


def _check_operation(name: str, operation: JsonValue) -> None:
    known = "its op is one of " + ", ".join(_OPERATIONS)
    if not isinstance(operation, dict):
        raise InvalidChange(f"{name} is {_a(operation)}; it must be an object, and {known}")
    if "op" not in operation:
        raise InvalidChange(f"{name} has no op; {known}")
    kind = operation["op"]
    if not isinstance(kind, str) or kind not in _OPERATIONS:
        raise InvalidChange(f"{name} has the unknown op {preview(kind, 40)}; {known}")
    for member in _OPERATIONS[kind]:
        if member not in operation:
            raise InvalidChange(f"{name} ({kind}) has no {member}; add it")
        if member == "value":
            continue
        pointer = operation[member]
        if not isinstance(pointer, str):
            raise InvalidChange(f"{name} ({kind}): its {member} is {_a(pointer)}, not a string")
        try:
            _tokens(pointer)
        except NotThere as error:
            raise InvalidChange(f"{name} ({kind}): its {member} {error}") from None


class _CopyBudget:
    """Each copy of the whole into itself doubles it: a few dozen copies would fill the memory."""

    def __init__(self) -> None:
        self._values, self._bytes = MAX_COPIED, MAX_BYTES

    def spend_on(self, value: JsonValue) -> None:
        self._values -= _count(value, self._values)
        if self._values < 0:
            raise InvalidChange(f"copies more than {MAX_COPIED:,} values; copy less")
        self._bytes -= len(dump(value))
        if self._bytes < 0:
            raise InvalidChange(f"copies more than {MAX_BYTES:,} bytes; copy less")


def _json_patch(state: Any, patch: Any, kept: _Kept) -> Any:
    """Apply RFC 6902, in place; the patch was checked before."""
    budget = _CopyBudget()
    for index, operation in enumerate(patch):
        try:
            state = _operate(state, operation, budget, kept)
        except (InvalidChange, NotThere, RecursionError) as error:
            problem = "nested too deep" if isinstance(error, RecursionError) else str(error)
            path = shown(operation["path"]) or '""'
            where = f"operation {index} ({operation['op']} {path})"
            raise InvalidChange(f"{where}: {shown(problem, 250)}") from None
    return state


def _operate(state: Any, operation: dict[str, Any], budget: _CopyBudget, kept: _Kept) -> Any:
    kind, path = operation["op"], _tokens(operation["path"])
    if kind == "remove":
        return _remove(state, path)
    if kind in ("move", "copy"):
        source = _tokens(operation["from"])
        value = _at(state, source)
        if kind == "copy":
            budget.spend_on(value)
            return _put(state, path, _copy(value), inserts=True)
        if path == source:
            return state
        if path[: len(source)] == source:
            raise InvalidChange("a value cannot be moved into itself")
        return _put(_remove(state, source), path, value, inserts=True)
    value = operation["value"]
    if kind == "test":
        _test(_at(state, path), value, exact=kept is None)
        return state
    if kind == "replace":
        return _put(state, path, _restored(value, _at(state, path), path, kept), inserts=False)
    return _put(state, path, _restored(value, _overwritten(state, path), path, kept), inserts=True)


def _overwritten(state: JsonValue, path: list[str]) -> JsonValue:
    """The value that an add replaces; None if it inserts."""
    try:
        parent = _at(state, path[:-1])
    except NotThere:
        return None
    if not path:
        return state
    return parent.get(path[-1]) if isinstance(parent, dict) else None


def _with_part(state: Any, part: Any) -> Any:
    tokens = _tokens(part["path"])
    try:
        if "value" in part:
            return _put(state, tokens, _copy(part["value"]), inserts=False)
        with suppress(NotThere):
            return _remove(state, tokens)
        return state
    except NotThere as error:
        raise InvalidChange(f"part {shown(part['path'])}: {shown(str(error), 250)}") from None


def _put(state: Any, path: list[str], value: Any, *, inserts: bool) -> Any:
    """The state, changed in place, with the value at the path.

    In an array, the value goes before the item at the index (`inserts`) or replaces the item.
    """
    if not path:
        return value
    parent, last = _at(state, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
        return state
    place = shown(_pointer(path[:-1])) or "the top"
    if not isinstance(parent, list):
        raise NotThere(f"{place} is {_a(parent)}; only an object or array has members")
    index = len(parent) if last == "-" and inserts else _index(last)
    if index is None or index > len(parent):
        raise NotThere(
            f"{shown(last)} is not an index of {place}, an array of {len(parent)}; "
            f"use 0 to {len(parent)}"
        )
    parent[index : index if inserts else index + 1] = [value]
    return state


def _remove(state: Any, path: list[str]) -> Any:
    if not path:
        raise InvalidChange("the whole state cannot be removed; replace it with new_state")
    _at(state, path)  # Raises NotThere.
    parent: Any = _at(state, path[:-1])
    del parent[path[-1] if isinstance(parent, dict) else int(path[-1])]
    return state


def _test(actual: JsonValue, expected: JsonValue, exact: bool) -> None:
    if not _equal(actual, expected, exact):
        raise InvalidChange(f"there is {preview(actual, 60)}, not {preview(expected, 60)}")


def _equal(a: JsonValue, b: JsonValue, exact: bool) -> bool:
    """Compare by RFC 6902, 4.6: 1 equals 1.0, but not true. In an inexact change, a rounding is
    equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key], exact) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y, exact) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return a == b or (not exact and _is_rounding(b, a))


def _restored(value: Any, original: object, path: Iterable[str], kept: _Kept) -> Any:
    """A copy of the value that keeps each number of `original` of which it has only a rounding."""
    if kept is None:
        return _copy(value)
    if isinstance(value, dict):
        members = original if isinstance(original, dict) else {}
        return {
            key: _restored(member, members.get(key), (*path, key), kept)
            for key, member in value.items()
        }
    if isinstance(value, list):
        items = original if isinstance(original, list) else []
        return [
            _restored(item, old, (*path, str(index)), kept)
            for index, (item, old) in enumerate(zip_longest(value, items[: len(value)]))
        ]
    if not is_number(value) or not is_number(original):
        return value
    if same(value, original):
        return original
    if _is_rounding(value, original):
        kept[tuple(path)] = None
        return original
    return value


def _double(value: int | Decimal) -> float:
    """The nearest double, within the range of doubles."""
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf if value > 0 else -math.inf
    return min(max(nearest, -sys.float_info.max), sys.float_info.max)


def is_number(value: object) -> TypeGuard[int | Decimal]:
    """True for a JSON number."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _is_rounding(value: JsonValue, original: JsonValue) -> bool:
    """True if the value is spelled as JavaScript prints the double of the original.

    JavaScript prints integers below 1e21 without a fraction or exponent, and -0 as 0. The spelling
    of a float is not known here, so its value is compared.
    """
    if not is_number(value) or not is_number(original):
        return False
    nearest = _double(original)
    printed = Decimal(repr(nearest))  # The same shortest digits as in JavaScript.
    if repr(nearest) == "-0.0" and str(value) == "-0.0":
        return True  # JavaScript prints 0, but this program shows -0 as -0.0.
    if nearest.is_integer() and abs(nearest) < 1e21:
        return str(value) == str(int(printed))
    return isinstance(value, Decimal) and not _is_integer(str(value)) and value == printed


# Walking and showing


def _members(value: JsonValue) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _count(value: JsonValue, limit: int) -> int:
    """The number of values, nested ones included; counting stops at `limit` + 1."""
    found, level = 0, [value]
    while level:
        found += len(level)
        members = (member for parent in level for _, member in _members(parent))
        level = list(islice(members, limit + 1 - found))
    return found


def _leaves(value: JsonValue, path: _Path = ()) -> Iterator[tuple[_Path, JsonValue]]:
    if not isinstance(value, dict | list):
        yield path, value
    for key, member in _members(value):
        yield from _leaves(member, (*path, key))


def _diff_entry(difference: _Difference) -> DiffEntry:
    op, path, before, after = difference
    return DiffEntry(op, _pointer(path), before, after)


def _differences(
    before: JsonValue | RawDocument, after: JsonValue | RawDocument, path: _Path
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


def _loses_as_double(value: JsonValue) -> bool:
    if isinstance(value, Decimal):
        return _is_integer(str(value)) or Decimal(repr(_double(value))) != value
    return isinstance(value, int) and abs(value) > 2**53


def _usable(pointer: str) -> str | None:
    """The pointer in a form without invisible characters; None if that would be too long."""
    if len(pointer) <= MAX_PATH_LENGTH and visible(pointer) != pointer:
        pointer = "#" + "".join(
            quote(character, errors="surrogatepass")
            if character == "%" or visible(character) != character
            else character
            for character in pointer
        )
    return pointer if len(pointer) <= MAX_PATH_LENGTH else None


def _without_fragment(pointer: str) -> str:
    if not pointer.startswith("#"):
        return pointer
    try:
        return unquote(pointer[1:], errors="surrogatepass")
    except UnicodeError:
        raise NotThere(
            f"{shown(pointer)} is not a JSON Pointer; its % escapes must be UTF-8"
        ) from None


def _tokens(pointer: str) -> list[str]:
    text = _without_fragment(pointer)
    if (text and not text.startswith("/")) or re.search("~(?![01])", text):
        raise NotThere(
            f"{shown(pointer)} is not a JSON Pointer; start it with /, and write ~ as ~0, / as ~1"
        )
    return [_unescaped(token) for token in text.split("/")[1:]]


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _index(token: str) -> int | None:
    return int(token) if _INDEX.fullmatch(token) else None


def _at(value: JsonValue, tokens: list[str]) -> JsonValue:
    for depth, token in enumerate(tokens):
        index = _index(token) if isinstance(value, list) else None
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and index is not None and index < len(value):
            value = value[index]
        else:
            parent = shown(_pointer(tokens[:depth])) or "the top"
            raise NotThere(
                f"nothing at {shown(_pointer(tokens))}; the nearest is {parent}, {_describe(value)}"
            )
    return value


def _pointer(path: Iterable[str | int]) -> str:
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in path)


def _place(path: _Path) -> str:
    return shown(_pointer(path)) or "the top"


def _type(value: JsonValue) -> str:
    if value is None:
        return "null"
    names = {dict: "object", list: "array", str: "string", bool: "boolean"}
    return names.get(type(value), "number")


def _a(value: JsonValue) -> str:
    name = _type(value)
    return name if name == "null" else f"{'an' if name in ('object', 'array') else 'a'} {name}"


def _describe(value: JsonValue) -> str:
    if isinstance(value, dict) and value:
        keys = ", ".join(shown(dump(key), 30) for key in islice(value, 5))
        size = "1 key" if len(value) == 1 else f"{len(value)} keys"
        return f"an object with {size}: {keys}{', …' if len(value) > 5 else ''}"
    return f"an array of {len(value)}" if isinstance(value, list) else _a(value)


def _plain_text(text: str) -> str:
    return HIDDEN.sub(lambda found: escape(found[0]), text)


def _measure(value: JsonValue, sizes: dict[int, int]) -> int:
    """Bytes of the JSON; the sizes of objects and arrays are remembered by id."""
    if not isinstance(value, dict | list):
        # str() of None, True and False is as long as null, true and false.
        return len(dump(value)) if isinstance(value, str) else len(str(value))
    if id(value) not in sizes:
        inside = sum(_measure(member, sizes) for _, member in _members(value))
        keys = sum(len(dump(key)) + 1 for key in value) if isinstance(value, dict) else 0
        sizes[id(value)] = inside + keys + max(len(value), 1) + 1
    return sizes[id(value)]


def _breadth_first(
    value: JsonValue, pointer: str, start: int
) -> Iterator[tuple[str, list[tuple[str | int, Any]]]]:
    """The path of each object and array, and its members; without the first `start` of all members."""
    # Make the paths late: those of a whole level may not fit into memory.
    parents: deque[tuple[str, _Path, JsonValue]] = deque([(pointer, (), value)])
    while parents:
        above, own_key, parent = parents.popleft()
        path = _longer(above, *own_key)
        if own_key and _usable(path) is None:
            continue
        members = list(_members(parent))
        parents.extend((path, (key,), member) for key, member in members if _has_members(member))
        if start < len(members):
            yield path, members[start:]
        start = max(start - len(members), 0)


def _matches(
    value: JsonValue, text: str, pointer: str
) -> Iterator[tuple[str, str | int, JsonValue]]:
    """The path of the parent, the key and the value of each match."""
    wanted = _unescaped(text).casefold()
    pointer = _without_fragment(pointer)
    # A match begins at most this far ahead of the key that it reaches into.
    reach = len(wanted) - 1
    ahead = _unescaped(pointer).casefold()
    above = ahead[max(len(ahead) - reach, 0) :]
    parents = [(_longer(pointer), above, iter(_members(value)))]
    while parents:
        path, ahead, members = parents[-1]
        for key, member in members:
            place = f"{ahead}/{str(key).casefold()}"
            if wanted in place:
                yield path, key, member
            if _has_members(member):
                inside = place[max(len(place) - reach, 0) :]
                parents.append((_longer(path, key), inside, iter(_members(member))))
                break
        else:
            parents.pop()


def _has_members(value: JsonValue) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _longer(pointer: str, *keys: str | int) -> str:
    """The pointer of what is inside, as far as any of it is shown."""
    return (pointer + _pointer(keys))[: MAX_PATH_LENGTH + 1]


def _match(path: str, key: str | int, value: JsonValue, sizes: dict[int, int]) -> OutlineEntry:
    entry = _entry(shown_path(_longer(path, key)), value, sizes)
    is_small = entry.bytes <= MAX_PREVIEW
    return replace(entry, preview=visible(dump(value))) if is_small else entry


def _entry(path: str, value: JsonValue, sizes: dict[int, int]) -> OutlineEntry:
    size = _measure(value, sizes)
    if isinstance(value, dict | list):
        return OutlineEntry(path, _type(value), size, len(value), None)
    return OutlineEntry(path, _type(value), size, None, shown(dump(value)))


def _more(path: str, left: list[tuple[str | int, Any]], sizes: dict[int, int]) -> OutlineEntry:
    total = sum(_measure(member, sizes) for _, member in left)
    return OutlineEntry(path, "more", total, len(left), None)


def _entry_size(entry: OutlineEntry) -> int:
    return len(dump(vars(entry))) + 1


def _more_size(path: str) -> int:
    return _entry_size(OutlineEntry(path, "more", MAX_BYTES, MAX_BYTES, None))
