"""Documents as JSON text, their versions, and when two of them are the same."""

import hashlib
import re
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

import simplejson

from fivetran_state.state.numbers import is_integer
from fivetran_state.state.values import Document, JsonValue, RawDocument
from fivetran_state.text import HIDDEN, escape, visible

_VERSION = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}", re.ASCII)
# normalize() rounds to its context; this context can hold every number.
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


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


def preview(value: JsonValue | RawDocument, limit: int = 200) -> str:
    """The JSON text, cut to `limit` characters and with its full size: ``{"a":… (5,120 bytes)``."""
    text = dump(value)
    cut = visible(text[:limit])  # JSON does not escape one control character: delete.
    return cut if len(text) <= limit else f"{cut}… ({len(text.encode()):,} bytes)"


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


def _canonical_number(number: Decimal) -> str:
    # The suffix distinguishes 100.0, which normalizes to 1E+2, and 5.0, to 5, from every integer.
    return str(number) if is_integer(str(number)) else f"{number.normalize(_EXACT)}f"


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
