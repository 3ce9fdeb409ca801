"""JSON patches (RFC 6902)."""

from typing import Any

from fivetran_state.state.doubles import Kept, is_rounding, restored
from fivetran_state.state.limits import MAX_BYTES
from fivetran_state.state.pointers import NotThere, at_tokens, index_of, place_of, tokens_of
from fivetran_state.state.values import InvalidChange, JsonValue, copied, count_values, with_article
from fivetran_state.state.writing import dump, preview
from fivetran_state.text import shown

MAX_OPERATIONS = 10_000
"""The most operations of a JSON patch."""
MAX_COPIED = 200_000
"""The most values, in total, that a JSON patch may copy."""

_OPERATIONS = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("from", "path"),
    "copy": ("from", "path"),
    "test": ("path", "value"),
}


def check_json_patch(patch: JsonValue) -> None:
    """Raises InvalidChange if the patch would be wrong for every state."""
    if not isinstance(patch, list):
        raise InvalidChange(
            f"a JSON patch is an array of operations, but this is {with_article(patch)}"
        )
    if len(patch) > MAX_OPERATIONS:
        raise InvalidChange(f"more than {MAX_OPERATIONS:,} operations; use fewer operations")
    for index, operation in enumerate(patch):
        _check_operation(f"operation {index}", operation)


def _check_operation(name: str, operation: JsonValue) -> None:
    known = "its op is one of " + ", ".join(_OPERATIONS)
    if not isinstance(operation, dict):
        raise InvalidChange(
            f"{name} is {with_article(operation)}; it must be an object, and {known}"
        )
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
            raise InvalidChange(
                f"{name} ({kind}): its {member} is {with_article(pointer)}, not a string"
            )
        try:
            tokens_of(pointer)
        except NotThere as error:
            raise InvalidChange(f"{name} ({kind}): its {member} {error}") from None


class _CopyBudget:
    """Each copy of the whole into itself doubles it: a few dozen copies would fill the memory."""

    def __init__(self) -> None:
        self._values, self._bytes = MAX_COPIED, MAX_BYTES

    def spend_on(self, value: JsonValue) -> None:
        self._values -= count_values(value, self._values)
        if self._values < 0:
            raise InvalidChange(f"copies more than {MAX_COPIED:,} values; copy less")
        self._bytes -= len(dump(value))
        if self._bytes < 0:
            raise InvalidChange(f"copies more than {MAX_BYTES:,} bytes; copy less")


def apply_json_patch(state: Any, patch: Any, kept: Kept) -> Any:
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


def _operate(state: Any, operation: dict[str, Any], budget: _CopyBudget, kept: Kept) -> Any:
    kind, path = operation["op"], tokens_of(operation["path"])
    if kind == "remove":
        return remove(state, path)
    if kind in ("move", "copy"):
        source = tokens_of(operation["from"])
        value = at_tokens(state, source)
        if kind == "copy":
            budget.spend_on(value)
            return put(state, path, copied(value), inserts=True)
        if path == source:
            return state
        if path[: len(source)] == source:
            raise InvalidChange("a value cannot be moved into itself")
        return put(remove(state, source), path, value, inserts=True)
    value = operation["value"]
    if kind == "test":
        _test(at_tokens(state, path), value, exact=kept is None)
        return state
    if kind == "replace":
        return put(state, path, restored(value, at_tokens(state, path), path, kept), inserts=False)
    return put(state, path, restored(value, _overwritten(state, path), path, kept), inserts=True)


def _overwritten(state: JsonValue, path: list[str]) -> JsonValue:
    """The value that an add replaces; None if it inserts."""
    try:
        parent = at_tokens(state, path[:-1])
    except NotThere:
        return None
    if not path:
        return state
    return parent.get(path[-1]) if isinstance(parent, dict) else None


def put(state: Any, path: list[str], value: Any, *, inserts: bool) -> Any:
    """The state, changed in place, with the value at the path.

    In an array, the value goes before the item at the index (`inserts`) or replaces the item.
    """
    if not path:
        return value
    parent, last = at_tokens(state, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
        return state
    place = place_of(path[:-1])
    if not isinstance(parent, list):
        raise NotThere(f"{place} is {with_article(parent)}; only an object or array has members")
    index = len(parent) if last == "-" and inserts else index_of(last)
    if index is None or index > len(parent):
        raise NotThere(
            f"{shown(last)} is not an index of {place}, an array of {len(parent)}; "
            f"use 0 to {len(parent)}"
        )
    parent[index : index if inserts else index + 1] = [value]
    return state


def remove(state: Any, path: list[str]) -> Any:
    """The state, changed in place, without the value at the path. Raises NotThere."""
    if not path:
        raise InvalidChange("the whole state cannot be removed; replace it with new_state")
    at_tokens(state, path)  # Raises NotThere.
    parent: Any = at_tokens(state, path[:-1])
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
    return a == b or (not exact and is_rounding(b, a))
