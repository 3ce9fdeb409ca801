"""JSON numbers that keep their spelling: Python's own JSON turns 1.10 into 1.1."""

import re
from decimal import MAX_EMAX, Decimal, InvalidOperation
from typing import Any, TypeGuard

from fivetran_state.state.values import InvalidState
from fivetran_state.text import shown

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
# Python refuses to convert longer ints where its lowest limit is set (4300 is the default).
_INT_DIGITS = 640


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


def integer(text: str) -> int | Decimal:
    """The value of digits, maybe after a minus; a Decimal where an int could not carry them."""
    return number(text) if len(text) > _INT_DIGITS or text == "-0" else int(text)


def is_integer(text: str) -> bool:
    """True if a number is spelled without a fraction and exponent."""
    return text.lstrip("-").isdigit()


def is_number(value: object) -> TypeGuard[int | Decimal]:
    """True for a JSON number."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)
