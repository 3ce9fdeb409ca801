"""How a connection's cursors moved, as lines: of the entries on one page of its time line."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise

from pydantic import TypeAdapter, ValidationError

from fivetran_state.models import HistoryEntry

MAX_CHARTS = 4
WIDTH, HEIGHT = 320, 48
_MARGIN = 4
_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_parse_time = TypeAdapter(datetime).validate_python


@dataclass(frozen=True)
class _Point:
    at: str
    value: float
    text: str
    """The value as the time line shows it."""


@dataclass(frozen=True)
class Chart:
    """One cursor's line, and what it says in words."""

    path: str
    points: str
    """For SVG's polyline, in a box of WIDTH and HEIGHT."""
    count: int
    first_at: str
    first: str
    last_at: str
    last: str
    backwards: int
    """How often the value fell."""


def of_page(entries: Iterable[HistoryEntry]) -> list[Chart]:
    """A chart for each of the first cursors that are times or numbers, and moved at least twice.

    The entries are newest first, as on a page of the time line. Each point is a value that a
    version had. Versions in which too much moved do not tell about all cursors.
    """
    found: dict[str, list[_Point]] = {}
    for entry in reversed(list(entries)):
        for change in entry.changes or ():
            value = None if change.after is None else _value(change.after)
            if entry.version is not None and value is not None and change.after is not None:
                point = _Point(entry.at, value, change.after)
                found.setdefault(change.path, []).append(point)
    longest = sorted(found.items(), key=lambda each: -len(each[1]))
    return [_chart(path, points) for path, points in longest[:MAX_CHARTS] if len(points) > 1]


def _chart(path: str, points: Sequence[_Point]) -> Chart:
    times = [_seconds(point.at) for point in points]
    across = _scaled(times, WIDTH)
    down = _scaled([-point.value for point in points], HEIGHT)
    return Chart(
        path=path,
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True)),
        count=len(points),
        first_at=points[0].at,
        first=points[0].text,
        last_at=points[-1].at,
        last=points[-1].text,
        backwards=sum(b.value < a.value for a, b in pairwise(points)),
    )


def _scaled(values: Sequence[float], size: int) -> list[float]:
    """The values as places from the margin to the other margin; all in the middle if they are equal."""
    low, high = min(values), max(values)
    room = size - 2 * _MARGIN
    if high == low:
        return [size / 2] * len(values)
    return [_MARGIN + room * (value - low) / (high - low) for value in values]


def _value(text: str) -> float | None:
    """The number, or the time in seconds, of a value as JSON text; None for anything else."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if not text.startswith('"') or not text.endswith('"'):
        return None
    try:
        inside = json.loads(text)
        return _seconds(inside) if _TIME.match(inside) else None
    except (ValueError, ValidationError):
        return None


def _seconds(text: str) -> float:
    """Seconds since 1970 of a time; without a zone it counts as UTC. Raises `ValidationError`."""
    moment: datetime = _parse_time(text)
    seconds = moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
    return seconds if math.isfinite(seconds) else 0.0
