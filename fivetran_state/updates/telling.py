"""Tells the events of one run of an update.

The steps tell them from inside their bodies, which DBOS does not run again once it has recorded them.
Only the first event of a recovered run may repeat one: the run before it may have died between an
event and its record.
"""

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from fivetran_state.errors import Cancelled, FivetranStateError
from fivetran_state.events import Event, Events, Name
from fivetran_state.updates.records import Outcome, UpdateRequest

P = ParamSpec("P")
T = TypeVar("T")


class Telling:
    """One run of one update."""

    def __init__(
        self, events: Events, workflow_id: str, request: UpdateRequest, *, is_recovered: bool
    ) -> None:
        self._events = events
        self._workflow_id = workflow_id
        self._request = request
        self._may_repeat = is_recovered
        self._began = time.monotonic()
        self._paused_at: float | None = None

    def tell(self, name: Name, **facts: Any) -> None:
        """Record the event; `facts` are further fields of `Event`."""
        if name is Name.PAUSED:
            self._paused_at = time.monotonic()
        elif name is Name.RESUMED and self._paused_at is not None:
            facts["paused_seconds"] = time.monotonic() - self._paused_at
        self._events.record(
            Event(
                name,
                workflow_id=self._workflow_id,
                connection=self._request["connection_id"],
                principal=self._request.get("asked_by"),
                agreed_by=self._request.get("agreed_by"),
                part_of=self._request.get("part_of"),
                replayed=self._may_repeat,
                **facts,
            )
        )

    def settle(self) -> None:
        """Note that a step has run here, so whatever follows is new."""
        self._may_repeat = False

    async def to_end(self, run: Awaitable[Outcome]) -> Outcome:
        """The outcome of the run, whose end is told. The seconds are those of this run alone.

        A run that is broken off has no end: another one goes on.
        """
        try:
            outcome = await run
        except FivetranStateError as error:
            how = "cancelled" if isinstance(error, Cancelled) else "failed"
            self._ended(how, error.code)
            raise
        self._ended(outcome["outcome"])
        return outcome

    def _ended(self, outcome: str, error: str | None = None) -> None:
        self.tell(Name.ENDED, outcome=outcome, error=error, seconds=time.monotonic() - self._began)


class Tells(Protocol):
    """An object whose methods tell events."""

    @property
    def telling(self) -> Telling: ...


S = TypeVar("S", bound=Tells)


def told(
    name: Name, phase: str, when: Callable[[Any], bool] = lambda _: True
) -> Callable[
    [Callable[Concatenate[S, P], Awaitable[T]]], Callable[Concatenate[S, P], Awaitable[T]]
]:
    """Tell the end of the method, or its failure, with the seconds that it took.

    `when`: only if this is true of its result.
    """

    def decorate(
        body: Callable[Concatenate[S, P], Awaitable[T]],
    ) -> Callable[Concatenate[S, P], Awaitable[T]]:
        @functools.wraps(body)
        async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            began = time.monotonic()
            try:
                result = await body(self, *args, **kwargs)
            except FivetranStateError as error:
                seconds = time.monotonic() - began
                self.telling.tell(Name.STEP_FAILED, phase=phase, error=error.code, seconds=seconds)
                self.telling.settle()
                raise
            if when(result):
                self.telling.tell(name, phase=phase, seconds=time.monotonic() - began)
            self.telling.settle()
            return result

        return run

    return decorate
