"""Each stored value is sealed together with the place it belongs to.

DBOS tells a serializer nothing about the row that it works for, so someone who can write to the
database could put one update's value in place of another's. So each reader compares the
sealed place with the one that it reads.
"""

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from dbos import DBOS

from fivetran_state import dbos_internals, tracing
from fivetran_state.errors import FivetranStateError, Tampered, UnusableKey
from fivetran_state.vault import Bound

P = ParamSpec("P")
T = TypeVar("T")


def input_of(workflow_id: str, name: str) -> str:
    return f"{workflow_id} input {name}"


def output_of(workflow_id: str) -> str:
    return f"{workflow_id} output"


def step_of(workflow_id: str, number: int, name: str) -> str:
    """`number` is DBOS's `function_id`."""
    return f"{workflow_id} step {number} {name}"


def event_of(workflow_id: str, name: str) -> str:
    return f"{workflow_id} event {name}"


def message_to(workflow_id: str, topic: str) -> str:
    return f"{workflow_id} message {topic}"


def opened(found: object, place: str) -> Any:
    """The value inside. Raises `Tampered` if it belongs to another place.

    Raises `UnusableKey` if it could not be opened: DBOS returns such a value as it is stored.
    """
    if not isinstance(found, Bound):
        raise UnusableKey(
            f"A stored value ({_shown(place)}) was sealed with another key, or by an older version "
            "that still runs, or not by this program."
        )
    if found.place != place:
        raise _tampered(place)
    return found.value


def check(error: FivetranStateError, place: str) -> None:
    """Raise `Tampered` if a stored error belongs to another place."""
    if error.place != place:
        raise _tampered(place) from error


def _shown(place: str) -> str:
    return f"the {place.partition(' ')[2]} of {place.partition(' ')[0]}"


def _tampered(place: str) -> Tampered:
    return Tampered(
        f"{_shown(place).capitalize()} is not what this program stored there: someone has "
        "changed the database."
    )


@contextmanager
def bound_errors(place: str) -> Iterator[None]:
    """Bind an error that is raised inside, because DBOS stores it at this place."""
    try:
        yield
    except Exception as error:
        vars(error)["place"] = place
        raise


def step(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """A DBOS step whose recorded result or error is bound to its place. It is a span of the trace.

    DBOS stores the name: a new name needs a new application version.
    """

    def decorate(body: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def recorded(place: str, *args: P.args, **kwargs: P.kwargs) -> Bound:
            with tracing.step(name, DBOS.workflow_id or ""), bound_errors(place):
                return Bound(place, await body(*args, **kwargs))

        @functools.wraps(body)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            place = step_of(DBOS.workflow_id or "", dbos_internals.next_step_number(), name)
            try:
                found = await DBOS.run_step_async({"name": name}, recorded, place, *args, **kwargs)
            except FivetranStateError as error:
                check(error, place)
                raise
            value: T = opened(found, place)
            return value

        return run

    return decorate


async def send(workflow_id: str, message: object, topic: str) -> None:
    """Send a workflow a message that only it can receive, under this topic alone."""
    place = message_to(workflow_id, topic)
    await DBOS.send_async(workflow_id, Bound(place, message), topic=topic)


async def receive(topic: str, seconds: float) -> Any:
    """The next message to this workflow, or None after `seconds`; raises `Tampered`."""
    found = await DBOS.recv_async(topic, seconds)
    return None if found is None else opened(found, message_to(DBOS.workflow_id or "", topic))
