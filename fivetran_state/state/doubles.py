"""What JavaScript and others lose, whose numbers are doubles, and what can be given back."""

import math
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice, zip_longest
from typing import Any, TypeAlias

from fivetran_state.state.numbers import is_integer, is_number
from fivetran_state.state.pointers import pointer_of, shown_path
from fivetran_state.state.values import JsonValue, KeyPath, copied, members_of
from fivetran_state.state.writing import same
from fivetran_state.text import HIDDEN, escape

Kept: TypeAlias = dict[KeyPath, None] | None
"""The places of the numbers that were recognized as rounded; None for an exact change."""


def hides(value: JsonValue) -> bool:
    """True if JSON text of the value may contain invisible characters; `dump` escapes them."""
    if isinstance(value, str):
        return HIDDEN.search(value) is not None
    if isinstance(value, dict) and any(map(hides, value)):
        return True
    return any(hides(member) for _, member in members_of(value))


def plain(value: JsonValue) -> object:
    """The value for libraries that know only doubles. It may lose precision, and what `hides`.

    A Decimal becomes the nearest double; an invisible character becomes the text of its escape.
    """
    if isinstance(value, dict):
        return {_plain_text(key): plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, Decimal):
        return nearest_double(value)
    return _plain_text(value) if isinstance(value, str) else value


def inexact(value: JsonValue, limit: int = 50) -> dict[str, str]:
    """Path → exact text, for the first `limit` numbers whose value `plain` may change."""
    lost = ((path, str(leaf)) for path, leaf in _leaves(value) if _loses_as_double(leaf))
    return {shown_path(pointer_of(path)): number for path, number in islice(lost, limit)}


def nearest_double(value: int | Decimal) -> float:
    """The nearest double, within the range of doubles."""
    try:
        nearest = float(value)
    except OverflowError:
        nearest = math.inf if value > 0 else -math.inf
    return min(max(nearest, -sys.float_info.max), sys.float_info.max)


def is_rounding(value: JsonValue, original: JsonValue) -> bool:
    """True if the value is spelled as JavaScript prints the double of the original.

    JavaScript prints integers below 1e21 without a fraction or exponent, and -0 as 0. The spelling
    of a float is not known here, so its value is compared.
    """
    if not is_number(value) or not is_number(original):
        return False
    nearest = nearest_double(original)
    printed = Decimal(repr(nearest))  # The same shortest digits as in JavaScript.
    if repr(nearest) == "-0.0" and str(value) == "-0.0":
        return True  # JavaScript prints 0, but this program shows -0 as -0.0.
    if nearest.is_integer() and abs(nearest) < 1e21:
        return str(value) == str(int(printed))
    return isinstance(value, Decimal) and not is_integer(str(value)) and value == printed


def restored(value: Any, original: object, path: Iterable[str], kept: Kept) -> Any:
    """A copy of the value that keeps each number of `original` of which it has only a rounding."""
    if kept is None:
        return copied(value)
    if isinstance(value, dict):
        members = original if isinstance(original, dict) else {}
        return {
            key: restored(member, members.get(key), (*path, key), kept)
            for key, member in value.items()
        }
    if isinstance(value, list):
        items = original if isinstance(original, list) else []
        return [
            restored(item, old, (*path, str(index)), kept)
            for index, (item, old) in enumerate(zip_longest(value, items[: len(value)]))
        ]
    if not is_number(value) or not is_number(original):
        return value
    if same(value, original):
        return original
    if is_rounding(value, original):
        kept[tuple(path)] = None
        return original
    return value


def _leaves(value: JsonValue, path: KeyPath = ()) -> Iterator[tuple[KeyPath, JsonValue]]:
    if not isinstance(value, dict | list):
        yield path, value
    for key, member in members_of(value):
        yield from _leaves(member, (*path, key))


def _loses_as_double(value: JsonValue) -> bool:
    if isinstance(value, Decimal):
        return is_integer(str(value)) or Decimal(repr(nearest_double(value))) != value
    return isinstance(value, int) and abs(value) > 2**53


def _plain_text(text: str) -> str:
    return HIDDEN.sub(lambda found: escape(found[0]), text)
