"""Parts of a state that is too large to show: an outline, and a search."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fivetran_state.state.limits import MAX_BYTES
from fivetran_state.state.pointers import (
    MAX_PATH_LENGTH,
    pointer_of,
    shown_path,
    unescaped,
    usable_form,
    without_fragment,
)
from fivetran_state.state.values import JsonValue, KeyPath, members_of, type_of
from fivetran_state.state.writing import dump
from fivetran_state.text import shown, visible

MAX_PREVIEW = 200
"""The most bytes of a value that a search shows whole."""


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
    for path, members in _breadth_first(value, without_fragment(pointer), start):
        reserve = max(reserve, _more_size(shown_path(path)))
        for index, (key, member) in enumerate(members):
            inner = _longer(path, key)
            entry = _entry(shown_path(inner), member, sizes)
            size = _entry_size(entry)
            leads_deeper = entry.items and usable_form(inner) is not None
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


def _measure(value: JsonValue, sizes: dict[int, int]) -> int:
    """Bytes of the JSON; the sizes of objects and arrays are remembered by id."""
    if not isinstance(value, dict | list):
        # str() of None, True and False is as long as null, true and false.
        return len(dump(value)) if isinstance(value, str) else len(str(value))
    if id(value) not in sizes:
        inside = sum(_measure(member, sizes) for _, member in members_of(value))
        keys = sum(len(dump(key)) + 1 for key in value) if isinstance(value, dict) else 0
        sizes[id(value)] = inside + keys + max(len(value), 1) + 1
    return sizes[id(value)]


def _breadth_first(
    value: JsonValue, pointer: str, start: int
) -> Iterator[tuple[str, list[tuple[str | int, Any]]]]:
    """The path of each object and array, and its members; without the first `start` of all members."""
    # Make the paths late: those of a whole level may not fit into memory.
    parents: deque[tuple[str, KeyPath, JsonValue]] = deque([(pointer, (), value)])
    while parents:
        above, own_key, parent = parents.popleft()
        path = _longer(above, *own_key)
        if own_key and usable_form(path) is None:
            continue
        members = list(members_of(parent))
        parents.extend((path, (key,), member) for key, member in members if _has_members(member))
        if start < len(members):
            yield path, members[start:]
        start = max(start - len(members), 0)


def _matches(
    value: JsonValue, text: str, pointer: str
) -> Iterator[tuple[str, str | int, JsonValue]]:
    """The path of the parent, the key and the value of each match."""
    wanted = unescaped(text).casefold()
    pointer = without_fragment(pointer)
    # A match begins at most this far ahead of the key that it reaches into.
    reach = len(wanted) - 1
    ahead = unescaped(pointer).casefold()
    above = ahead[max(len(ahead) - reach, 0) :]
    parents = [(_longer(pointer), above, iter(members_of(value)))]
    while parents:
        path, ahead, members = parents[-1]
        for key, member in members:
            place = f"{ahead}/{str(key).casefold()}"
            if wanted in place:
                yield path, key, member
            if _has_members(member):
                inside = place[max(len(place) - reach, 0) :]
                parents.append((_longer(path, key), inside, iter(members_of(member))))
                break
        else:
            parents.pop()


def _has_members(value: JsonValue) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _longer(pointer: str, *keys: str | int) -> str:
    """The pointer of what is inside, as far as any of it is shown."""
    return (pointer + pointer_of(keys))[: MAX_PATH_LENGTH + 1]


def _match(path: str, key: str | int, value: JsonValue, sizes: dict[int, int]) -> OutlineEntry:
    entry = _entry(shown_path(_longer(path, key)), value, sizes)
    is_small = entry.bytes <= MAX_PREVIEW
    return replace(entry, preview=visible(dump(value))) if is_small else entry


def _entry(path: str, value: JsonValue, sizes: dict[int, int]) -> OutlineEntry:
    size = _measure(value, sizes)
    if isinstance(value, dict | list):
        return OutlineEntry(path, type_of(value), size, len(value), None)
    return OutlineEntry(path, type_of(value), size, None, shown(dump(value)))


def _more(path: str, left: list[tuple[str | int, Any]], sizes: dict[int, int]) -> OutlineEntry:
    total = sum(_measure(member, sizes) for _, member in left)
    return OutlineEntry(path, "more", total, len(left), None)


def _entry_size(entry: OutlineEntry) -> int:
    return len(dump(vars(entry))) + 1


def _more_size(path: str) -> int:
    return _entry_size(OutlineEntry(path, "more", MAX_BYTES, MAX_BYTES, None))
