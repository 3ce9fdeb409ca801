"""Pure functions on a state document: a JSON object of cursors.

Python's own JSON turns 1.10 into 1.1 and rounds a 40-digit decimal, and its ``==`` holds 1, 1.0
and True to be the same. A cursor must come back exactly as Fivetran had it, so this module parses,
writes, versions, changes and compares states without touching a number it was not asked to touch.
"""

import hashlib
import json
import math
import re
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from itertools import islice
from typing import Any, Literal, NoReturn, TypeAlias
from urllib.parse import quote, unquote

import jsonpatch
import jsonpointer
import simplejson

from fivetran_state.text import HIDDEN, escape, shown, visible

MAX_BYTES = 10_000_000
"""The largest document, in bytes of UTF-8."""
MAX_DEPTH = 100
"""How many objects and arrays may lie inside each other."""
MOST_OPERATIONS = 10_000
"""Of a JSON patch."""
MOST_COPIED = 200_000
"""Values, in all, that a JSON patch may copy."""
LONGEST_PATH = 1000
"""Characters of a JSON Pointer that is shown."""


class InvalidState(ValueError):
    """A document is refused: it is not JSON, not an object, or beyond the limits."""


class InvalidChange(ValueError):
    """A change is malformed, does not fit the state, or would leave an invalid one."""


class NotThere(LookupError):
    """A JSON Pointer leads nowhere; the message names the nearest parent that exists."""


class Number(Decimal):
    """A JSON number that is no plain int, with its spelling.

    ``str(number)`` is the token as it was parsed ("1.10", "1e400", "-0"); it compares and computes
    as the Decimal it is. Raises InvalidState for anything but a JSON number within Decimal's range.
    """

    __slots__ = ("_spelling",)
    _spelling: str

    def __new__(cls, spelling: str) -> "Number":
        if not _NUMBER.fullmatch(spelling):
            raise InvalidState(f"{shown(spelling)} is not a JSON number")
        try:
            number = super().__new__(cls, spelling)
        except InvalidOperation:
            raise InvalidState(
                f"the number {shown(spelling)} is out of range; use an exponent within ±{MAX_EMAX}"
            ) from None
        number._spelling = spelling
        return number

    def __str__(self) -> str:
        return self._spelling

    def __repr__(self) -> str:
        return f"Number({self._spelling!r})"

    def __format__(self, spec: str, *context: Any) -> str:
        return super().__format__(spec, *context) if spec else self._spelling

    def __reduce__(self) -> tuple[type["Number"], tuple[str]]:
        return Number, (self._spelling,)


JsonValue: TypeAlias = dict[str, Any] | list[Any] | str | int | Number | bool | None
State: TypeAlias = dict[str, Any]

# A path is a tuple until it is shown: below a key of megabytes, pointers would cost gigabytes.
_Path: TypeAlias = tuple[str | int, ...]
_Op: TypeAlias = Literal["add", "remove", "replace"]
_Difference: TypeAlias = tuple[_Op, _Path, JsonValue, JsonValue]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
# Python refuses to convert longer ints where its lowest limit is set (4300 is the default).
_INT_DIGITS = 640
# normalize() rounds to its context: this one holds every Number.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def parse(document: str | bytes) -> State:
    """The state that a JSON text holds.

    Raises InvalidState if the text is not JSON (or UTF-8), its top is no object, an object has a
    key twice, a number is NaN or infinite, or it exceeds MAX_BYTES or MAX_DEPTH.
    """
    value = parse_value(document)
    if not isinstance(value, dict):
        raise InvalidState(f"a state is a JSON object, this is {_a(value)}; wrap it in an object")
    return value


def parse_value(document: str | bytes) -> JsonValue:
    """Like `parse`, for any JSON value."""
    try:
        encoded = document.encode() if isinstance(document, str) else document
        text = encoded.decode()
    except UnicodeError as error:
        position = getattr(error, "start", 0)
        raise InvalidState(f"not valid UTF-8 at position {position}; encode it as UTF-8") from None
    # What `dump` wrote may be three times as large, by its escapes, as what it stands for.
    if len(encoded) - 5 * encoded.count(b"\\u") > MAX_BYTES:
        raise _too_large()
    try:
        value: JsonValue = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidState(
            f"not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}; fix the text"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    _refuse_deep(value)
    if len(encoded) > MAX_BYTES:
        _refuse_large(value)
    return value


def adopt(value: object) -> JsonValue:
    """A fresh copy, in this module's values, of what some other JSON parser made.

    Takes dict, list, str, int, float, bool, None and Decimal; raises InvalidState for any other
    type, keys that are no strings, NaN and infinities, and beyond the limits of `parse`.
    """
    adopted = _adopt(value, ())
    _refuse_large(adopted)
    return adopted


def dump(value: JsonValue) -> str:
    """Exact, compact JSON: keys in their order, numbers in their spelling, ASCII only."""
    return _ENCODER.encode(value)


def version(state: State) -> str:
    """16 hex digits that are equal for states that are `same`."""
    return hashlib.sha256(_canonical(state).encode()).hexdigest()[:16]


def same(a: JsonValue, b: JsonValue) -> bool:
    """Whether two values are equal but for key order and the spelling of decimals.

    1.10 is 1.1 and 100.0 is 1e2, but 1, 1.0 and true differ, as do 0, -0, 0.0 and -0.0.
    """
    if type(a) is type(b) and isinstance(a, str | int):
        return a == b
    return a is b or _canonical(a) == _canonical(b)


@dataclass(frozen=True)
class Change:
    """What to do to a state.

    ``new_state`` is the whole state, ``merge_patch`` an RFC 7386 object, ``json_patch`` an RFC 6902
    array. ``exact`` is false if the value came through a parser that rounds numbers to doubles.
    """

    kind: Literal["new_state", "merge_patch", "json_patch"]
    value: JsonValue
    exact: bool = True


def apply(change: Change, state: State) -> State:
    """The state after the change; neither argument is mutated or shared.

    A number of an inexact change that, as a double, equals the one in its place keeps the exact
    number that was there. Raises InvalidChange if the change is malformed, does not fit, or its
    result is no object within the limits.
    """
    result: Any
    if change.kind == "new_state":
        result = _copy(change.value)
    elif change.kind == "merge_patch":
        if not isinstance(change.value, dict):
            raise InvalidChange(f"a merge patch is a JSON object, this is {_a(change.value)}")
        result = _merge(_copy(state), change.value)
    else:
        result = _json_patch(_copy(state), change.value, change.exact)
    if not change.exact:
        rounded = {id(leaf) for _, leaf in _leaves(change.value)}
        result = _respell(result, state, rounded)
    if not isinstance(result, dict):
        raise InvalidChange(f"a state is a JSON object, the change makes it {_a(result)}")
    try:
        _refuse_deep(result)
        _refuse_large(result)
    except InvalidState as error:
        raise InvalidChange(f"the change makes the state too big: {error}") from None
    return result


@dataclass(frozen=True)
class DiffEntry:
    """One difference at a JSON Pointer; `before` is None for an add, `after` for a remove."""

    op: _Op
    path: str
    before: JsonValue
    after: JsonValue


@dataclass(frozen=True)
class Diff:
    """The first differences, and how many there are in total."""

    changes: list[DiffEntry]
    total: int


def diff(before: JsonValue, after: JsonValue, limit: int = 50) -> Diff:
    """How two values differ, by the equality of `same`; the first `limit` entries are kept.

    In document order, which is also an order in which a JSON patch could apply them: what is new
    in an object comes last, and the surplus of an array goes from its end.
    """
    found = _differences(before, after, ())
    changes = [
        DiffEntry(op, _pointer(path), old, new) for op, path, old, new in islice(found, limit)
    ]
    return Diff(changes, len(changes) + sum(1 for _ in found))


def preview(value: JsonValue, limit: int = 200) -> str:
    """The JSON text, cut to `limit` characters with its full size noted: ``{"a":… (5,120 bytes)``."""
    text = dump(value)
    cut = visible(text[:limit])  # JSON leaves one control as it is: delete.
    return cut if len(text) <= limit else f"{cut}… ({len(text):,} bytes)"


def at(value: JsonValue, pointer: str) -> JsonValue:
    """The value at a JSON Pointer (RFC 6901), or at its form with a #. Raises NotThere."""
    tokens = _tokens(pointer)
    for depth, token in enumerate(tokens):
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
            value = value[int(token)]
        else:
            parent = f"{shown(_pointer(tokens[:depth]))}, " if depth else "the top, "
            raise NotThere(
                f"nothing at {shown(pointer)}; the nearest is {parent}{_describe(value)}"
            )
    return value


@dataclass(frozen=True)
class OutlineEntry:
    """One value of an outline, at its `shown_path`.

    `bytes` is the size of its JSON, `items` the number of members of an object or array, `preview`
    the JSON of a scalar, at most 60 characters. Type "more" stands for the members of the object or
    array at `path` that are not listed: `items` of them, `bytes` in all.
    """

    path: str
    type: str
    bytes: int
    items: int | None
    preview: str | None


def outline(value: JsonValue, pointer: str = "", max_bytes: int = 4000) -> list[OutlineEntry]:
    """What is inside a value too large to show, breadth first, in at most `max_bytes` of JSON.

    `pointer` is where the value lies in its document: it begins every path. What does not fit is
    counted in a last entry of type "more", which is there even if `max_bytes` has no room for it.
    Inside of what has no usable path nothing is listed.
    """
    pointer = _without_fragment(pointer)
    sizes: dict[int, int] = {}
    _measure(value, sizes)
    entries: list[OutlineEntry] = []
    used, reserve = len("[]"), _more_size(shown_path(pointer))
    parents = deque([(pointer, value)])
    while parents:
        path, parent = parents.popleft()
        members = list(_members(parent))
        for index, (key, member) in enumerate(members):
            inner = path + _pointer([key])
            entry = _entry(shown_path(inner), member, sizes)
            size = _entry_size(entry)
            leads_deeper = entry.items and _usable(inner) is not None
            needed = max(reserve, _more_size(entry.path)) if leads_deeper else reserve
            if used + size + needed > max_bytes:
                left = members[index:]
                total = sum(_measure(member, sizes) for _, member in left)
                return [*entries, OutlineEntry(shown_path(path), "more", total, len(left), None)]
            used, reserve = used + size, needed
            entries.append(entry)
            if leads_deeper:
                parents.append((inner, member))
    return entries


def shown_path(pointer: str) -> str:
    """The pointer as it is shown, which `at` and JSON patches understand unless it had to be cut.

    If it holds what does not show, in the form of a URI fragment (RFC 6901, 6): `#/a%E2%80%8B`.
    """
    usable = _usable(pointer)
    return shown(pointer, LONGEST_PATH) if usable is None else usable


def hides(value: JsonValue) -> bool:
    """Whether JSON text of the value, but for `dump`'s, may hold characters that do not show."""
    if isinstance(value, str):
        return HIDDEN.search(value) is not None
    if isinstance(value, dict) and any(map(hides, value)):
        return True
    return any(hides(member) for _, member in _members(value))


def plain(value: JsonValue) -> object:
    """The value for libraries that know only doubles; it may lose precision, and what `hides`.

    A Number becomes the nearest double; a character that does not show, the text of its escape.
    """
    if isinstance(value, dict):
        return {_plain_text(key): plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Number):
        return _double(value)
    return _plain_text(value) if isinstance(value, str) else value


def inexact(value: JsonValue, limit: int = 50) -> dict[str, str]:
    """Path → exact text of the first `limit` numbers whose value `plain` may not carry."""
    lost = ((path, str(leaf)) for path, leaf in _leaves(value) if _loses_as_double(leaf))
    return {shown_path(_pointer(path)): number for path, number in islice(lost, limit)}


# Reading and writing


def _integer(text: str) -> int | Number:
    return Number(text) if len(text) > _INT_DIGITS or text == "-0" else int(text)


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _constant(name: str) -> NoReturn:
    raise InvalidState(f"{name} is not a JSON number; use null, a string or a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise InvalidState(f"an object has the key {shown(dump(twice))} twice; keep one of them")
    return members


def _canonical_number(number: Number) -> str:
    # The suffix keeps 100.0, which normalizes to 1E+2, and 5.0, to 5, apart from every integer.
    return str(number) if _is_integer(str(number)) else f"{number.normalize(_EXACT)}f"


_DECODER = json.JSONDecoder(
    parse_int=_integer,
    parse_float=Number,
    parse_constant=_constant,
    object_pairs_hook=_object,
)
_ENCODER = simplejson.JSONEncoder(separators=(",", ":"), use_decimal=True)
# Without use_decimal every Number goes through `default`, within the encoder's one pass.
_CANONICAL_ENCODER = simplejson.JSONEncoder(
    separators=(",", ":"),
    sort_keys=True,
    use_decimal=False,
    default=lambda number: simplejson.RawJSON(_canonical_number(number)),
)


def _canonical(value: JsonValue) -> str:
    return _CANONICAL_ENCODER.encode(value)


def _adopt(value: object, path: _Path) -> JsonValue:
    if len(path) >= MAX_DEPTH and isinstance(value, dict | list):
        raise _too_deep()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise InvalidState(f"a key at {_place(path)} is no string; JSON keys are strings")
        return {key: _adopt(member, (*path, key)) for key, member in value.items()}
    if isinstance(value, list):
        return [_adopt(item, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, int | float | Decimal):
        raise InvalidState(
            f"the {type(value).__name__} at {_place(path)} is not JSON; "
            "use an object, array, string, number, boolean or null"
        )
    try:
        # Of a float, repr is the shortest text that means this float.
        text = repr(value) if isinstance(value, float) else str(value)
        return _integer(text) if _is_integer(text) else Number(text)
    except ValueError as error:
        raise InvalidState(f"the number at {_place(path)}: {shown(str(error), 150)}") from None


def _refuse_deep(value: JsonValue) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [member for parent in level for _, member in _members(parent)]
    if any(isinstance(member, dict | list) for member in level):
        raise _too_deep()


def _refuse_large(value: JsonValue) -> None:
    # The ASCII text is never shorter than the UTF-8 that the limit is about, and quicker to make.
    if len(dump(value)) > MAX_BYTES:
        readable = simplejson.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if len(readable.encode(errors="surrogatepass")) > MAX_BYTES:
            raise _too_large()


def _too_deep() -> InvalidState:
    return InvalidState(f"nested deeper than {MAX_DEPTH} levels; flatten it")


def _too_large() -> InvalidState:
    return InvalidState(f"larger than {MAX_BYTES:,} bytes; make it smaller")


# Changing


def _copy(value: JsonValue) -> Any:
    if isinstance(value, dict):
        return {key: _copy(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _merge(target: Any, patch: JsonValue) -> Any:
    """RFC 7386, in place."""
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
_PATCH_ERRORS = (
    *(jsonpatch.JsonPatchException, jsonpointer.JsonPointerException),
    *(LookupError, RecursionError, TypeError, ValueError),
)


def _json_patch(state: Any, patch: JsonValue, exact: bool) -> Any:
    """RFC 6902, in place."""
    if not isinstance(patch, list):
        raise InvalidChange(f"a JSON patch is an array of operations, this is {_a(patch)}")
    if len(patch) > MOST_OPERATIONS:
        raise InvalidChange(f"more than {MOST_OPERATIONS:,} operations; make the change by fewer")
    copied, copied_bytes = 0, 0
    for index, operation in enumerate(patch):
        kind = _operation_kind(index, operation)
        try:
            for member in {"from", "path"}.intersection(_OPERATIONS[kind]):
                operation = operation | {member: _without_fragment(operation[member])}
            if kind != "add":
                subject = at(state, operation[_OPERATIONS[kind][0]])
            if kind == "test":
                _test(subject, operation["value"], exact)
                continue
            if kind == "copy":
                # Each copy of the whole into itself doubles it: a few dozen would fill the memory.
                copied += _count(subject, MOST_COPIED - copied)
                if copied > MOST_COPIED:
                    raise InvalidChange(f"copies more than {MOST_COPIED:,} values; copy less")
                copied_bytes += len(dump(subject))
                if copied_bytes > MAX_BYTES:
                    raise InvalidChange(f"copies more than {MAX_BYTES:,} bytes; copy less")
                operation = {"op": "add", "path": operation["path"], "value": subject}
            # A copy, as old releases of the library put the operation's own value into the state.
            state = jsonpatch.JsonPatch([_copy(operation)]).apply(state, in_place=True)
        except _PATCH_ERRORS as error:
            where = f"operation {index} ({kind} {shown(operation['path'])})"
            raise InvalidChange(f"{where}: {shown(str(error), 200)}") from None
    return state


def _operation_kind(index: int, operation: object) -> str:
    kind = operation.get("op") if isinstance(operation, dict) else None
    if not isinstance(operation, dict) or not isinstance(kind, str) or kind not in _OPERATIONS:
        raise InvalidChange(
            f"operation {index} is no object with one of these as its op: {', '.join(_OPERATIONS)}"
        )
    for member in _OPERATIONS[kind]:
        if member not in operation:
            raise InvalidChange(f"operation {index} ({kind}) has no {member}; add it")
        if member != "value" and not isinstance(operation[member], str):
            raise InvalidChange(f"operation {index} ({kind}): {member} is no JSON Pointer string")
    return kind


def _test(actual: JsonValue, expected: JsonValue, exact: bool) -> None:
    if not _equal(actual, expected, exact):
        raise InvalidChange(f"there is {preview(actual, 60)}, not {preview(expected, 60)}")


def _equal(a: JsonValue, b: JsonValue, exact: bool) -> bool:
    """RFC 6902, 4.6: 1 equals 1.0, but not true. Of an inexact change, doubles are compared."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key], exact) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y, exact) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return a == b or (not exact and _is_rounded(b, a))


def _double(value: int | Decimal) -> float:
    """The nearest double, as far as doubles go."""
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf if value > 0 else -math.inf
    return min(max(nearest, -sys.float_info.max), sys.float_info.max)


def _is_rounded(value: JsonValue, original: JsonValue) -> bool:
    """Whether a parser that knows only doubles may have made `value` of `original`.

    Such a parser also writes 1.0 as 1 and -0 as 0. A decimal in place of a small integer, though,
    is a change.
    """
    if isinstance(value, bool) or isinstance(original, bool):
        return False
    if not isinstance(value, int | Number) or not isinstance(original, int | Number):
        return False
    nearest = _double(value)
    if isinstance(value, Number):
        is_small = isinstance(original, int) and abs(original) <= 2**53
        return (
            not is_small
            and Decimal(repr(nearest)) == value
            and repr(nearest) == repr(_double(original))  # repr, as -0.0 == 0.0
        )
    return nearest == _double(original)


def _respell(value: Any, original: JsonValue, rounded: set[int]) -> Any:
    """The value with what rounding did to the numbers whose ids are in `rounded` undone.

    Only to those: a number that a patch moved here may share its double with the one before.
    """
    if isinstance(value, dict) and isinstance(original, dict):
        return {
            key: _respell(member, original[key], rounded) if key in original else member
            for key, member in value.items()
        }
    if isinstance(value, list) and isinstance(original, list):
        known = [_respell(*pair, rounded) for pair in zip(value, original, strict=False)]
        return known + value[len(known) :]
    return original if id(value) in rounded and _is_rounded(value, original) else value


# Walking and showing


def _members(value: JsonValue) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _count(value: JsonValue, limit: int) -> int:
    """How many values this is, with all those inside; of more than `limit`, one more than that."""
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


def _differences(before: JsonValue, after: JsonValue, path: _Path) -> Iterator[_Difference]:
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
    if isinstance(value, Number):
        return _is_integer(str(value)) or Decimal(repr(_double(value))) != value
    return isinstance(value, int) and abs(value) > 2**53


def _usable(pointer: str) -> str | None:
    """The pointer in a form in which all of it shows; None if that would be too long."""
    if len(pointer) <= LONGEST_PATH and visible(pointer) != pointer:
        pointer = "#" + "".join(
            quote(character, errors="surrogatepass")
            if character == "%" or visible(character) != character
            else character
            for character in pointer
        )
    return pointer if len(pointer) <= LONGEST_PATH else None


def _without_fragment(pointer: str) -> str:
    if not pointer.startswith("#"):
        return pointer
    try:
        return unquote(pointer[1:], errors="surrogatepass")
    except UnicodeError:
        raise NotThere(f"{shown(pointer)} is no JSON Pointer: its % are not UTF-8") from None


def _tokens(pointer: str) -> list[str]:
    pointer = _without_fragment(pointer)
    if (pointer and not pointer.startswith("/")) or re.search("~(?![01])", pointer):
        raise NotThere(
            f"{shown(pointer)} is no JSON Pointer: it starts with /, and ~ is written ~0, / is ~1"
        )
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


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
        return f"an object with {len(value)} keys: {keys}{', …' if len(value) > 5 else ''}"
    return f"an array of {len(value)}" if isinstance(value, list) else _a(value)


def _plain_text(text: str) -> str:
    return HIDDEN.sub(lambda found: escape(found[0]), text)


def _measure(value: JsonValue, sizes: dict[int, int]) -> int:
    """Bytes of the JSON; those of objects and arrays are remembered by id."""
    if not isinstance(value, dict | list):
        # str() of None, True and False is as long as null, true and false.
        return len(dump(value)) if isinstance(value, str) else len(str(value))
    if id(value) not in sizes:
        inside = sum(_measure(member, sizes) for _, member in _members(value))
        keys = sum(len(dump(key)) + 1 for key in value) if isinstance(value, dict) else 0
        sizes[id(value)] = inside + keys + max(len(value), 1) + 1
    return sizes[id(value)]


def _entry(path: str, value: JsonValue, sizes: dict[int, int]) -> OutlineEntry:
    size = _measure(value, sizes)
    if isinstance(value, dict | list):
        return OutlineEntry(path, _type(value), size, len(value), None)
    return OutlineEntry(path, _type(value), size, None, shown(dump(value)))


def _entry_size(entry: OutlineEntry) -> int:
    return len(dump(vars(entry))) + 1


def _more_size(path: str) -> int:
    return _entry_size(OutlineEntry(path, "more", MAX_BYTES, MAX_BYTES, None))
