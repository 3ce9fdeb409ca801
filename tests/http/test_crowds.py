"""More callers than the process may open files."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import SYNCING, arrival, is_pause, state_of, sync_runs_on, until
from tests.support.http_server import http_forked, lines_of
from tests.support.rest import ANY, post

CROWD = 300
CHANGE = {"connection_id": SYNCING, "new_state": {"cursor": "2020"}}


@contextmanager
def crowd(url: httpx.URL) -> Iterator[None]:
    """This many connections, all opened at the same time, that send nothing."""
    with ExitStack() as stack:
        for _ in range(CROWD):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.connect((url.host, url.port))
        yield


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_files", "complaint"),
    [
        (
            256,
            "More than 128 connections are open: closing those that have been silent for longest",
        ),
        # The server itself needs more than half of them.
        (44, "Connections cannot be accepted: [Errno 24] Too many open files"),
    ],
)
async def test_a_crowd_takes_no_file_from_an_update_and_is_logged_in_a_line(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path, max_files: int, complaint: str
) -> None:
    sync_runs_on(sandbox)
    async with http_forked(environment, tmp_path, max_files=max_files) as server:
        url = server.client.base_url
        started = await post(
            server.client, "/state/update", ANY | CHANGE, status=202, Prefer="respond-async"
        )
        await arrival(sandbox, is_pause)

        async def is_answered() -> httpx.Response | None:
            with crowd(url), suppress(httpx.TransportError):
                async with httpx.AsyncClient(base_url=url, timeout=10) as client:
                    return await client.get(f"/workflows/{started['workflow_id']}")
            return None

        async def has_ended() -> bool:
            answer = await is_answered()
            return answer is not None and answer.json()["status"] == "updated"

        assert (await until(is_answered)).json()["status"] == "running"
        sandbox.finish_sync(SYNCING)
        await until(has_ended)

    logged = [line for line in lines_of(tmp_path / "stderr.txt") if "duration_ms" not in line]
    assert state_of(sandbox, SYNCING) == {"cursor": "2020"}
    messages = [line["message"] for line in logged if line["level"] != "info"]
    assert messages.count(complaint) == 1
    assert len(messages) < 10  # DBOS may say that it had no file for a connection to the database.
