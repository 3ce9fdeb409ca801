"""An update's calls to Fivetran, and parameters that are tested in all combinations."""

import itertools
from collections.abc import Collection
from typing import Any, NamedTuple

import pytest


class Call(NamedTuple):
    """One call of an undisturbed update."""

    kind: str
    """The kind, by its name in `calls.api_calls`: 'GET', 'GET state'."""
    skip: int
    """The number of earlier calls of its kind."""
    position: int
    """The number of earlier calls."""

    @property
    def method(self) -> str:
        return self.kind.split()[0]

    def path(self, connection_id: str = r"\w+") -> str:
        """A regular expression for the paths of its kind."""
        ends = {"GET state": "/state", "PATCH state": "/state", "POST": "/sync"}
        return rf"/connections/{connection_id}{ends.get(self.kind, '')}$"


def _calls(**kinds: str) -> dict[str, Call]:
    made = list(kinds.values())
    return {
        name: Call(kind, made[:position].count(kind), position)
        for position, (name, kind) in enumerate(kinds.items())
    }


CALLS = _calls(
    inspect="GET",
    inspect_state="GET state",
    pause="PATCH",
    snapshot="GET state",
    write="PATCH state",
    verify="GET state",
    resume="PATCH",
    sync="POST",
)
"""The calls of an update of a running connection; the last one only with `then_sync`.

The first two are made at the same time, so they arrive in any order.
"""
SYNC = CALLS["sync"]
RUNNING = {name: call for name, call in CALLS.items() if call != SYNC}
"""The calls without `then_sync`."""
PAUSED = _calls(inspect="GET", inspect_state="GET state", write="PATCH state", verify="GET state")
"""The calls for a connection that the process has seen paused before."""

# A fault skips requests that an earlier fault takes, so it sees only the first of the two writes.
MORE = {
    "drain": Call("GET", 1, 3),
    "roll_back": Call("PATCH state", 0, 8),
    "verify_roll_back": Call("GET state", 4, 9),
}
"""Calls of an update that waits for a sync, or that puts the state back."""
OF_GROUPS = ("undo",)
"""Steps that only an update in a group makes: tests/crash/test_groups.py."""


def kinds(calls: dict[str, Call]) -> list[str]:
    return [call.kind for call in calls.values()]


def few(always: Collection[Any], all_: Collection[Any]) -> list[Any]:
    """All of them; the quick suite runs only those in `always`."""
    return [pytest.param(each, marks=() if each in always else pytest.mark.slow) for each in all_]


def each_with_each(first: Collection[Any], second: Collection[Any]) -> list[Any]:
    """All pairs; the quick suite runs only enough of them to use each value."""
    fewer = min(len(first), len(second))
    return [
        pytest.param(
            one,
            other,
            id=f"{one}-{other}",
            marks=() if row % fewer == column % fewer else pytest.mark.slow,
        )
        for (row, one), (column, other) in itertools.product(enumerate(first), enumerate(second))
    ]
