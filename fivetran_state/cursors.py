"""Times and numbers in cursors, however a connector spells them."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

MINUTE = 60_000
"""Milliseconds, as are the next two."""
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<time>\d\d:\d\d(?::\d\d)?)(?:[.,](?P<fraction>\d{1,9}))?"
    r" ?(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_DIGITS = re.compile(r"\d{1,40}(\.\d{1,20})?", re.ASCII)


@dataclass(frozen=True)
class Time:
    """A value that may be a time. `unit` is milliseconds of one, for numbers."""

    at: Decimal
    """Milliseconds since 1970, in UTC as far as known."""
    form: str
    unit: Decimal | None = None


ZONED, NAIVE, DATE = "a time with a zone", "a time without a zone", "a date"
_UNITS = {
    Decimal(1000): "seconds",
    Decimal(1): "milliseconds",
    Decimal("0.001"): "microseconds",
    Decimal("0.000001"): "nanoseconds",
}
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def time_of(value: Any) -> Time | None:
    """The time that a value is, or may be: numbers are taken for times since 2001."""
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        number = number_of(value)
        if number is not None:
            for unit, name in _UNITS.items():
                if 10**9 <= number * unit / 1000 < 10**10:
                    return Time(number * unit, name, unit)
        return None
    clock, zone = found["time"] or "00:00", _zone(found["zone"])
    try:
        moment = datetime.fromisoformat(f"{found['day']}T{clock}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):  # Its zone may lead out of the years 1 to 9999.
        return None
    at = Decimal(int((moment - EPOCH) / timedelta(milliseconds=1)))
    if found["fraction"]:
        at += Decimal(f"0.{found['fraction']}") * 1000
    if found["time"] is None:
        return Time(at, DATE)
    return Time(at, NAIVE if found["zone"] is None else ZONED)


def _zone(zone: str | None) -> str:
    """As `datetime` reads it."""
    if zone is None or zone.upper() in ("Z", "UTC"):
        return "+00:00"
    return f"{zone[:3]}:{zone[-2:]}"


def number_of(value: Any) -> Decimal | None:
    """A number, or text of digits, unless it is larger than any cursor."""
    if isinstance(value, str):
        return Decimal(value) if _DIGITS.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if not -(10**40) < value < 10**40:
        return None
    return Decimal(value)
