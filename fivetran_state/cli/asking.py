"""Asking the person at the terminal."""

import asyncio
import os
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from fivetran_state import large
from fivetran_state.cli.output import Output
from fivetran_state.errors import NotConfirmed
from fivetran_state.question import of_plan

if TYPE_CHECKING:
    from fivetran_state.plan import Plan

_YES = ("y", "yes")
_LONGEST = 1000


class TerminalConfirmation:
    """A `plan.Confirmation` by the person at the terminal."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._agreed: tuple[str, str, int] | None = None

    @property
    def version(self) -> str | None:
        return None if self._agreed is None else self._agreed[0]

    async def covers(self, plan: "Plan", latest: int) -> bool:
        asked = (plan.version_before, plan.version_after, latest)
        if asked == self._agreed:
            return True
        text = await large.run_if(plan.is_large, of_plan, plan)
        await agree(self._output, text)
        self._agreed = asked
        return False


async def agree(output: Output, question: str) -> None:
    """Put the question; raise `NotConfirmed` unless the answer is a yes."""
    await agree_or_look(output, question, "Type yes to agree:", ())


async def agree_or_look(
    output: Output, question: str, prompt: str, names: Collection[str]
) -> str | None:
    """Put the question; the one of the names that was answered, or None for a yes.

    Raises `NotConfirmed` for every other answer.
    """
    output.question(f"\n{question}\n\n{prompt}")
    try:
        answer = (await _line()).strip()
    except asyncio.CancelledError:
        raise NotConfirmed("The question was interrupted; nothing was written.") from None
    if answer.lower() in _YES:
        return None
    if answer not in names:
        raise NotConfirmed("You have not agreed; nothing was written.")
    return answer


async def _line() -> str:
    """The next line from the terminal. Leaving it does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()

    def tell(read: bytes) -> None:
        if not line.done():
            line.set_result(read)

    def read() -> None:
        # Not sys.stdin, whose lock would hold up the end of the interpreter.
        try:
            found = os.read(sys.stdin.fileno(), _LONGEST)
        except OSError:  # The terminal is gone.
            found = b""
        with suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(tell, found)

    threading.Thread(target=read, daemon=True).start()
    return (await line).decode(errors="replace")
