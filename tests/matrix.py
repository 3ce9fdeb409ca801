"""Parameters that are tested in all their combinations, most of them in the slow suite."""

import itertools
from collections.abc import Collection
from typing import Any

import pytest


def each_with_each(first: Collection[Any], second: Collection[Any]) -> list[Any]:
    """All pairs; in the quick suite only so many that each value comes up."""
    few = min(len(first), len(second))
    return [
        pytest.param(
            one,
            other,
            id=f"{one}-{other}",
            marks=() if row % few == column % few else pytest.mark.slow,
        )
        for (row, one), (column, other) in itertools.product(enumerate(first), enumerate(second))
    ]
