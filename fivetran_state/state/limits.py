"""How large a document may be."""

import simplejson

from fivetran_state.state.values import InvalidState, JsonValue, members_of
from fivetran_state.state.writing import dump

MAX_BYTES = 9_999_999
"""The largest document, in bytes of UTF-8."""
MAX_DEPTH = 100
"""The deepest nesting of objects and arrays."""
MAX_VALUES = 500_000
"""The most values in one document, nested ones included. A value of two bytes takes a hundred bytes
of memory, and several copies are made."""


def refuse_deep(value: JsonValue) -> None:
    """Raises InvalidState beyond MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [member for parent in level for _, member in members_of(parent)]
    if any(isinstance(member, dict | list) for member in level):
        raise too_deep()


def refuse_large(value: JsonValue) -> None:
    """Raises InvalidState beyond MAX_BYTES."""
    # The ASCII text is never shorter than the UTF-8 that the limit counts, and quicker to make.
    if len(dump(value)) > MAX_BYTES:
        readable = simplejson.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if len(readable.encode(errors="surrogatepass")) > MAX_BYTES:
            raise too_large()


def too_deep() -> InvalidState:
    return InvalidState(f"it is nested deeper than {MAX_DEPTH} levels", "flatten it")


def too_many() -> InvalidState:
    return InvalidState(f"it has more than {MAX_VALUES:,} values", "make it smaller")


def too_large() -> InvalidState:
    return InvalidState(f"it is larger than {MAX_BYTES:,} bytes", "make it smaller")
