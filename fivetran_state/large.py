"""Work on large values: one at a time in its own thread, so that small calls do not wait for it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from fivetran_state import state

Given = ParamSpec("Given")
Result = TypeVar("Result")

LARGE_TEXT = 64 * 1024
"""Characters or bytes of text that is large."""
LARGE_VALUE = 2_000
"""Values, with all those inside, of an object or array that is large."""
LONGEST = 60.0
"""Seconds of a turn. A request that takes longer is waiting for something, or is a stream."""

_let_others: ContextVar[Callable[[], None] | None] = ContextVar("let_others", default=None)

# One thread: the interpreter runs one at a time anyway, and each value takes its memory.
_IN_TURN = ThreadPoolExecutor(1, thread_name_prefix="large")


async def run(
    function: Callable[Given, Result], *args: Given.args, **named: Given.kwargs
) -> Result:
    """The function's result. With a large argument it waits its turn in the thread; else it runs at once."""
    return await run_if(is_any(*args), function, *args, **named)


async def run_if(
    is_large: bool, function: Callable[Given, Result], *args: Given.args, **named: Given.kwargs
) -> Result:
    """Like `run`; the caller says whether the work is large."""
    if not is_large:
        return function(*args, **named)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_IN_TURN, _uncollected, lambda: function(*args, **named))


def _uncollected(function: Callable[[], Result]) -> Result:
    """Call the function without garbage collection.

    States have no cycles. While hundreds of thousands of values are made, collections would stop all
    threads again and again.
    """
    gc.disable()
    try:
        return function()
    finally:
        gc.enable()


@asynccontextmanager
async def turn(*turns: asyncio.Semaphore) -> AsyncIterator[None]:
    """Hold one of each of the turns until `let_others`, the end of the block, or for `LONGEST`."""
    with ExitStack() as held:
        for each in turns:
            await each.acquire()
            held.callback(each.release)
        timer = asyncio.get_running_loop().call_later(LONGEST, held.close)
        token = _let_others.set(held.close)
        try:
            yield
        finally:
            _let_others.reset(token)
            timer.cancel()


def let_others() -> None:
    """Release the turn: the large part of this request is done, and the rest is waiting."""
    end = _let_others.get()
    if end is not None:
        end()


def is_any(*values: object) -> bool:
    """True if any value is a large text, or a document or change with many values."""
    return any(map(_is_large, values))


def _is_large(value: object) -> bool:
    if isinstance(value, state.Change):
        value = value.value
    elif isinstance(value, state.RawDocument):
        value = value.text
    if isinstance(value, str | bytes):
        return len(value) > LARGE_TEXT
    return isinstance(value, dict | list) and state.has_more_values(value, LARGE_VALUE)
