"""The MCP endpoint gets malformed requests, in both eras of the protocol."""

import asyncio
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from h11 import RemoteProtocolError
from mcp_types import INTERNAL_ERROR

from fivetran_state.errors import FivetranStateError
from fivetran_state.sandbox import Sandbox
from tests.conftest import ERAS, Serve
from tests.support.calls import API_KEY, API_SECRET, IDLE, ROOT, call, until
from tests.support.frames import KINDS, Answer, Frame, RawClient, frame, too_large
from tests.support.http_server import HttpServer, authorization

SEED = 20260728
AT_ONCE = 8
FRAMES = 10_000
WARM_UP = 10 * len(KINDS)
POOLED = 30
"""Maximum number of additional open files after the warm-up: to the database, to Fivetran."""
UNEXPECTED = (INTERNAL_ERROR, 0)
"""The SDK's codes when a handler raises: older clients get the second."""
NEVER = ["Traceback", 'File "', "site-packages", "internal_error", API_KEY, API_SECRET]
NEVER += [str(ROOT), sys.prefix, str(Path.home())]


def messages_in(answer: Answer) -> Iterator[Any]:
    """Every JSON value in the answer."""
    kind, text = answer.headers.get("content-type", ""), answer.body.decode()
    if answer.is_stream:
        yield from map(json.loads, re.findall(r"^data:(.*?)\r?$", text, re.MULTILINE))
    elif "json" in kind and text:
        yield json.loads(text)


def faults_of(made: Frame, answer: Answer | None, never: list[str]) -> Iterator[str]:
    if answer is None:
        if made.ends and made.waits:
            yield "no answer"
        return
    if answer.status >= 500:
        yield f"status {answer.status}"
    if made.kind == too_large.__name__ and answer.status != 413:
        yield f"it is too large, and yet {answer.status}"
    text = answer.body.decode()
    yield from (f"{word!r} is in the answer" for word in never if word in text)
    for message in messages_in(answer):
        match message:
            case {"error": {"code": code}} if code in UNEXPECTED:
                yield "an internal error"


class Fuzz:
    """Sends frames from several clients at the same time, and records everything that is wrong.

    Each client has its own session, which ends only between two of its frames. `test_mcp_endpoint`
    covers requests whose session ends meanwhile.
    """

    def __init__(self, server: HttpServer) -> None:
        self._port = server.port
        self._tokens = [server.new_token("write"), server.new_token("read")]
        self.found: list[str] = []
        self.kinds: Counter[str] = Counter()

    async def run(self, numbers: range) -> None:
        async with anyio.create_task_group() as clients:
            for first in range(AT_ONCE):
                clients.start_soon(self._send, numbers[first::AT_ONCE], self._tokens[first % 2])

    async def _send(self, numbers: range, token: str) -> None:
        client = RawClient(self._port, token)
        await client.open_session()
        for number in numbers:
            made, answer = frame(SEED, number), None
            try:
                with anyio.fail_after(30):
                    answer = await client.send(made)
                faults = list(faults_of(made, answer, [*NEVER, *self._tokens]))
            except (TimeoutError, OSError, ValueError, RemoteProtocolError) as error:
                faults = [repr(error)]
            said = answer and answer.body[:300]
            self.found += [f"frame({SEED}, {number}): {fault}: {said!r}" for fault in faults]
            self.kinds[made.kind] += 1
            if answer is not None and answer.status == 200:
                await client.keep_one_session(made, answer)
        await client.end_session()


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def updates_have_ended(server: HttpServer, token: str) -> None:
    """The updates that were started, and refused because of the version, have ended."""
    headers = authorization(token)

    async def none_runs() -> bool:
        answer = await server.client.get("/workflows?limit=100", headers=headers)
        return "running" not in {update["status"] for update in answer.json()["workflows"]}

    await until(none_runs, 60)


async def tasks_besides(known: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Tasks that do not end by themselves."""
    others = asyncio.all_tasks() - known
    return (await asyncio.wait(others, timeout=10))[1] if others else set()


def is_accident(record: logging.LogRecord) -> bool:
    """True for a logged error, except a refused update."""
    error = record.exc_info[1] if record.exc_info else None
    is_bad = record.levelno > logging.WARNING or error is not None
    return is_bad and not isinstance(error, FivetranStateError)


@pytest.mark.slow
async def test_no_malformed_frame_meets_a_5xx_finds_a_leak_or_harms_the_server(
    http: Serve, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    paused = {each.id for each in sandbox.world.connections() if each.paused}
    async with http(FIVETRAN_STATE_RATE_LIMIT="0") as server:
        fuzz = Fuzz(server)
        token = server.new_token("read")
        await fuzz.run(range(FRAMES, FRAMES + WARM_UP))
        await updates_have_ended(server, token)
        tasks, files = asyncio.all_tasks(), open_files()
        await fuzz.run(range(FRAMES))
        await updates_have_ended(server, token)
        left = await tasks_besides(tasks)
        files_after = open_files()
        for era in ERAS:
            async with server.mcp(era, token=token) as client:
                state = await call(client, "get_state", connection_id=IDLE)
                assert state["connection_id"] == IDLE

    assert fuzz.found == []
    assert set(fuzz.kinds) == {make.__name__ for make in KINDS}
    assert [each for each in caplog.records if is_accident(each)] == []
    assert left == set()
    assert files_after < files + POOLED
    patches = {each.path.rpartition("/")[2] for each in sandbox.log if each.method == "PATCH"}
    assert "state" not in patches
    assert {each.id for each in sandbox.world.connections() if each.paused} == paused
