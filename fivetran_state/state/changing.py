"""Changes of a state: what they are, and the state after them."""

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from fivetran_state.state.doubles import Kept, restored
from fivetran_state.state.json_patch import apply_json_patch, check_json_patch, put, remove
from fivetran_state.state.limits import MAX_VALUES, refuse_deep, refuse_large, too_many
from fivetran_state.state.pointers import NotThere, at_tokens, pointer_of, shown_path, tokens_of
from fivetran_state.state.reading import decode
from fivetran_state.state.values import (
    Document,
    InvalidChange,
    InvalidState,
    JsonValue,
    RawDocument,
    State,
    copied,
    has_more_values,
    with_article,
)
from fivetran_state.text import shown

MAX_KEPT = 50
"""The most paths that `Applied` lists."""


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
            raise InvalidChange(f"a state is a JSON object, but this is {with_article(value)}")
    elif change.kind == "part":
        _check_part(value)
    else:
        if change.kind == "json_patch":
            check_json_patch(value)
        elif not isinstance(value, dict):
            raise InvalidChange(
                f"a merge patch is a JSON object, but this is {with_article(value)}"
            )
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
    kept: Kept = None if change.exact or change.kind == "part" else {}
    result: Any
    if change.kind == "new_state":
        result = restored(change.value, before, (), kept)
    elif isinstance(before, RawDocument):
        raise InvalidChange(
            f"the current state is not usable ({before.problem}); replace the whole "
            "state with new_state"
        )
    elif change.kind == "merge_patch":
        result = _merge(copied(before), restored(change.value, before, (), kept))
    elif change.kind == "json_patch":
        result = apply_json_patch(copied(before), change.value, kept)
    else:
        result = _with_part(copied(before), change.value)
    if not isinstance(result, dict):
        raise InvalidChange(
            f"a state is a JSON object, but the change makes it {with_article(result)}"
        )
    try:
        if has_more_values(result, MAX_VALUES):
            raise too_many()
        refuse_deep(result)
        refuse_large(result)
    except InvalidState as error:
        raise InvalidChange(f"the change makes the state too big: {error}") from None
    kept = kept or {}
    paths = (shown_path(pointer_of(path)) for path in islice(kept, MAX_KEPT))
    return Applied(result, tuple(paths), len(kept))


def part_of(source: State, pointer: str) -> Change:
    """The change that sets the value at a JSON Pointer to its value in `source`.

    If `source` has no value there, the change removes it. Raises NotThere if the pointer is
    malformed.
    """
    tokens = tokens_of(pointer)
    part: State = {"path": pointer}
    with suppress(NotThere):
        part["value"] = copied(at_tokens(source, tokens))
    return Change("part", part)


def parse_change(
    kind: Literal["new_state", "merge_patch", "json_patch", "part"], text: str, exact: bool = True
) -> Change:
    """A change from a value that `dump` wrote.

    The limits of `parse` do not apply: a part of the largest state is larger than a state. Raises
    InvalidState if the text is not JSON.
    """
    return Change(kind, decode(text), exact)


def _check_part(part: JsonValue) -> None:
    if not isinstance(part, dict) or not isinstance(part.get("path"), str):
        raise InvalidChange("a part is a JSON object with a path, which is a string")
    try:
        tokens = tokens_of(part["path"])
    except NotThere as error:
        raise InvalidChange(str(error)) from None
    if not tokens and "value" not in part:
        raise InvalidChange("the whole state cannot be removed; give a value")


def _merge(target: Any, patch: JsonValue) -> Any:
    """Apply RFC 7386, in place."""
    if not isinstance(patch, dict):
        return copied(patch)
    merged = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


def _with_part(state: Any, part: Any) -> Any:
    tokens = tokens_of(part["path"])
    try:
        if "value" in part:
            return put(state, tokens, copied(part["value"]), inserts=False)
        with suppress(NotThere):
            return remove(state, tokens)
        return state
    except NotThere as error:
        raise InvalidChange(f"part {shown(part['path'])}: {shown(str(error), 250)}") from None
