"""The agent's side of `libraries.py`: runs inside a library's own environment, standard library only."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

_wire, sys.stdout = sys.stdout, sys.stderr  # Some libraries print.


async def converse(
    tools: list[dict[str, Any]],
    call: Callable[[str, dict[str, Any]], Awaitable[tuple[bool | None, str]]],
) -> None:
    """Print the tools as a model would see them, then make the calls that arrive on stdin.

    `call` returns True if the library reports the answer as an error (None: it does not say), and
    the text that the model would read.
    """
    print(json.dumps(tools), file=_wire, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await call(*json.loads(line))), file=_wire, flush=True)


def server() -> dict[str, Any]:
    """The stdio parameters of the server: command, args, env."""
    parameters: dict[str, Any] = json.loads(sys.argv[1])
    return parameters
