"""What is measured, in what unit, against what; and what came out."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One thing that is measured.

    `reference` is what a ratio is a ratio to. The target is the largest value that is good enough.
    `case` is the column of its table.
    """

    what: str
    unit: str
    reference: str = ""
    target: float | None = None
    case: str = "measured"


@dataclass(frozen=True)
class Figure:
    """The results of a line: one value for each round."""

    line: Line
    rounds: tuple[float, ...]

    @property
    def measured(self) -> float:
        """The median."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return min(self.rounds), max(self.rounds)

    @property
    def is_missed(self) -> bool:
        """True if the median is above the target."""
        return self.line.target is not None and self.measured > self.line.target


@dataclass(frozen=True)
class Table:
    """Lines that are measured together. `measure` takes the number of rounds."""

    name: str
    title: str
    first_column: str
    lines: tuple[Line, ...]
    measure: Callable[[int], Iterator[Figure]]
    rounds: int
    is_quick: bool = False
    """True if it takes a few minutes."""


def ratios(measured: list[float], reference: list[float]) -> tuple[float, ...]:
    """The ratio in each round."""
    return tuple(ours / theirs for ours, theirs in zip(measured, reference, strict=True))


def number(value: float) -> str:
    """Three digits or so."""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"
