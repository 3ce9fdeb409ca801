"""MCP on stdin and stdout. Every line gets an answer, even a malformed one."""

import io
import logging
import os
from contextlib import suppress
from typing import BinaryIO

import anyio
from mcp.server import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

from fivetran_state.mcp_server.messages import BYTE_ORDER_MARK, Refused, message_in

logger = logging.getLogger(__name__)


async def serve(server: Server[None]) -> None:
    """Serve until stdin ends."""
    wire = _claimed_stdin()
    received, messages = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    # Use the SDK only for writing: its reader would replace bytes that are not UTF-8.
    async with (
        stdio_server(stdin=anyio.wrap_file(io.StringIO())) as (_, answers),
        anyio.create_task_group() as group,
    ):

        async def read() -> None:
            async with received:
                async for line in anyio.wrap_file(wire):
                    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                        await take(line)

        async def take(line: bytes) -> None:
            if not line.strip():
                return
            if line.startswith(BYTE_ORDER_MARK):
                logger.warning("Ignored a byte order mark on stdin")
            try:
                message = message_in(line)
            except Refused as refused:
                logger.warning("Refused a line on stdin: %s", refused)
                await answers.send(SessionMessage(refused.answer))
            else:
                await received.send(SessionMessage(message))

        group.start_soon(read)
        await server.run(messages, answers, server.create_initialization_options())


def _claimed_stdin() -> BinaryIO:
    """Take stdin for the protocol alone. Any other reader of stdin sees the end of input."""
    wire, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # Do not close it: a thread may still wait for a line when the server has ended.
    return os.fdopen(wire, "rb", closefd=False)
