"""A server that may not change a connection does not continue an update of it either."""

from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, PAUSED, state_of, until
from tests.support.commands import doctor, finish
from tests.support.http_server import http_forked
from tests.support.outside import dbos_client
from tests.support.processes import running
from tests.support.rest import ANY, post
from tests.support.updates import AFTER, WRITE, start_update_that_hangs

pytestmark = pytest.mark.slow

LIMITS = {
    "read-only": {"FIVETRAN_STATE_READ_ONLY": "true"},
    "limited": {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": "none_of_these, nor_*"},
}


async def begin_and_kill(environment: dict[str, str], folder: Path, sandbox: Sandbox) -> str:
    """The id of an update with a dead server and a paused connection."""
    async with running(environment, folder) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, AFTER, at_call=WRITE)
        await server.kill()
    assert sandbox.connection(IDLE).paused is True
    return workflow_id


def changes(sandbox: Sandbox) -> int:
    """The number of changes at Fivetran."""
    return sum(request.method != "GET" for request in sandbox.log)


@pytest.mark.parametrize("limit", LIMITS)
async def test_an_update_of_a_dead_server_is_left_to_one_that_may_change_its_connection(
    on_both: dict[str, str], sandbox: Sandbox, tmp_path: Path, limit: str
) -> None:
    limited = on_both | LIMITS[limit]
    workflow_id = await begin_and_kill(on_both, tmp_path, sandbox)
    before = changes(sandbox)
    # Each server looks for dead servers before it ends.
    ended = await anyio.to_thread.run_sync(finish, limited, tmp_path)
    report = await anyio.to_thread.run_sync(doctor, limited, tmp_path)
    async with http_forked(limited, tmp_path) as server:
        ready = await server.client.get("/readyz")

    assert (ended.returncode, ready.status_code) == (3, 200)
    assert f"{IDLE} is still paused by {workflow_id}" in ended.stderr
    assert report.returncode == 1
    assert f"BAD  update {workflow_id}: The process that ran it has ended." in report.stdout
    assert "FIVETRAN_STATE_READ_ONLY" in report.stdout
    assert changes(sandbox) == before
    assert (await anyio.to_thread.run_sync(finish, on_both, tmp_path)).returncode == 0
    assert sandbox.connection(IDLE).paused is False
    well = await anyio.to_thread.run_sync(doctor, limited, tmp_path)
    assert (well.returncode, "ok   updates" in well.stdout) == (0, True), well.stdout


async def test_an_update_that_dbos_itself_gives_to_a_limited_server_is_left_to_others(
    on_postgres: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    workflow_id = await begin_and_kill(on_postgres, tmp_path, sandbox)
    before = changes(sandbox)
    async with http_forked(on_postgres | LIMITS["limited"], tmp_path):
        with dbos_client(on_postgres, sandbox) as client:
            client.cancel_workflow(workflow_id)
            client.resume_workflow(workflow_id)
        log = anyio.Path(tmp_path / "again-stderr.txt")

        async def is_left() -> bool:
            return f"Leaving {workflow_id} to others" in await log.read_text()

        await until(is_left)
    assert changes(sandbox) == before

    assert (await anyio.to_thread.run_sync(finish, on_postgres, tmp_path)).returncode == 0
    assert sandbox.connection(IDLE).paused is False


async def test_a_group_is_left_to_a_server_that_may_change_all_of_it(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    limited = environment | {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": PAUSED}
    before = state_of(sandbox, IDLE)
    sandbox.fault("hang", method="PATCH", path=f"/{PAUSED}/state$")
    body = ANY | {"connection_ids": [PAUSED, IDLE], "new_state": {"cursor": "2020"}}
    async with http_forked(environment, tmp_path) as server:
        await post(
            server.client, "/state/update-multiple", body, status=202, Prefer="respond-async"
        )
        await anyio.to_thread.run_sync(sandbox.wait_for, lambda request: request.fault == "hang")
        await server.kill()

    ended = await anyio.to_thread.run_sync(doctor, limited, tmp_path)

    assert "together:" in ended.stdout
    assert state_of(sandbox, IDLE) == before
    assert (await anyio.to_thread.run_sync(finish, environment, tmp_path)).returncode == 0
    assert state_of(sandbox, IDLE) == {"cursor": "2020"}
