"""A stopped server gives its updates some time, and hands over the rest."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, Watch, arrival, until
from tests.support.http_server import http_forked, http_process
from tests.support.updates import resumed

HANDS_OVER = "Handed the updates in flight over"


async def start_update(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.post(
            "/state/update",
            json={
                "connection_id": IDLE,
                "merge_patch": {"cursor": "2020"},
                "expected_version": "*",
            },
            headers={"Prefer": "respond-async"},
        )
    assert answer.status_code == 202


async def refuses(url: str) -> None:
    async with httpx.AsyncClient() as client:

        async def is_closed() -> bool:
            try:
                await client.get(f"{url}/healthz")
            except httpx.HTTPError:
                return True
            return False

        await until(is_closed)


@pytest.mark.slow
async def test_a_stopped_server_takes_no_requests_and_ends_when_its_updates_have(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    watch = Watch(sandbox, IDLE)
    write = sandbox.fault("hang", method="PATCH", path="/state$")

    async def release_once_it_is_stopping(url: str) -> None:
        await refuses(url)
        write.release()

    async with http_process(environment, tmp_path) as url:
        await start_update(url)
        await arrival(sandbox, lambda request: request.fault == "hang")
        stopping = asyncio.create_task(release_once_it_is_stopping(url))
    await stopping

    watch.ended_with(watch.old | {"cursor": "2020"})
    assert HANDS_OVER not in (tmp_path / "stderr.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP"])
async def test_what_does_not_end_in_time_is_handed_over(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path, how: str
) -> None:
    watch = Watch(sandbox, IDLE)
    write = sandbox.fault("hang", method="PATCH", path="/state$")
    hurried = environment | {"FIVETRAN_STATE_SHUTDOWN_WAIT": "0"}
    async with http_forked(hurried, tmp_path) as server:
        await start_update(str(server.client.base_url))
        await arrival(sandbox, lambda request: request.fault == "hang")
        assert server.process.pid is not None
        os.kill(server.process.pid, signal.Signals[how])
        await server.ended()
    write.release()
    await arrival(sandbox, resumed(IDLE))

    watch.ended_with(watch.old | {"cursor": "2020"})
    assert HANDS_OVER in (tmp_path / "stderr.txt").read_text()
