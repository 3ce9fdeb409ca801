"""A key is revoked in the middle of an update and replaced: a process with the new key goes on."""

from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from fivetran_state.sandbox import LoggedRequest, Sandbox
from tests.support.calls import (
    API_SECRET,
    IDLE,
    Watch,
    arrival,
    is_pause,
    state_of,
    status_once,
    version_of,
)
from tests.support.hand_over import wait_until_nobody_is_left
from tests.support.matrix import CALLS
from tests.support.outside import NEW_KEY, replace_key
from tests.support.processes import Server, ended, running
from tests.support.updates import (
    AFTER,
    BEFORE,
    SLOW,
    assert_updated_once,
    is_poll_of_a_sync,
    resumed,
    start_update,
    start_update_that_hangs,
)

pytestmark = pytest.mark.slow

PATIENCE = 30
"""Maximum seconds from a restart with a new key until the connection is resumed."""
PAUSE, VERIFY = (CALLS[name].position + 1 for name in ("pause", "verify"))


async def start_and_wait_for_a_sync(server: Server, sandbox: Sandbox) -> str:
    """The id of an update that has paused its connection and waits."""
    workflow_id = await start_update(server.client, SLOW)
    await arrival(sandbox, lambda each: is_poll_of_a_sync(each) and each.status is not None)
    return workflow_id


def is_refused(request: LoggedRequest) -> bool:
    return request.status == 401


async def test_closed_then_restarted_with_a_new_key(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    watch = Watch(sandbox, SLOW)
    async with running(on_either, tmp_path) as server:
        workflow_id = await start_and_wait_for_a_sync(server, sandbox)
        replace_key(sandbox)
    await arrival(sandbox, is_refused)  # The process that took the update over cannot go on.

    with anyio.fail_after(PATIENCE):
        async with running(on_either, tmp_path, FIVETRAN_API_KEY=NEW_KEY) as server:
            await arrival(sandbox, resumed(SLOW))
            status = await ended(server.client, workflow_id)

    assert (status["status"], status["paused_by_update"]) == ("failed", False)
    assert status["error"]["code"] == "unauthorized"
    watch.ended_with(slow)


async def test_killed_then_restarted_with_a_new_key(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    async with running(on_either, tmp_path) as server:
        workflow_id = await start_and_wait_for_a_sync(server, sandbox)
        await server.kill()
    replace_key(sandbox)
    sandbox.finish_sync(SLOW)

    with anyio.fail_after(PATIENCE):
        async with running(on_either, tmp_path, FIVETRAN_API_KEY=NEW_KEY) as server:
            await arrival(sandbox, resumed(SLOW))
            await assert_updated_once(server.client, sandbox, workflow_id, slow)


@pytest.mark.parametrize("ends_by", ["closing", "SIGKILL"])
async def test_what_was_written_is_verified_with_a_new_key(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, ends_by: str
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(on_either, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, BEFORE, at_call=VERIFY)
        replace_key(sandbox)
        if ends_by == "SIGKILL":
            await server.kill()

    with anyio.fail_after(PATIENCE):
        async with running(on_either, tmp_path, FIVETRAN_API_KEY=NEW_KEY) as server:
            await arrival(sandbox, resumed(IDLE))
            await assert_updated_once(server.client, sandbox, workflow_id, before)


async def test_a_pause_that_the_old_key_made_is_undone(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    watch = Watch(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, AFTER, at_call=PAUSE)
        await server.kill()
    replace_key(sandbox)
    async with running(environment, tmp_path):  # It finds that the pause is refused.
        await arrival(sandbox, lambda each: is_refused(each) and is_pause(each))
        async with running(environment, tmp_path, FIVETRAN_API_KEY=NEW_KEY) as server:
            with anyio.fail_after(PATIENCE):
                await arrival(sandbox, resumed(IDLE))
            status = await ended(server.client, workflow_id)

    assert (status["status"], status["error"]["code"]) == ("failed", "unauthorized")
    watch.ended_with(watch.old)


async def test_a_server_with_the_new_key_takes_over(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    sandbox.add_key(NEW_KEY, API_SECRET)
    watch = Watch(sandbox, SLOW)
    async with (
        running(on_either, tmp_path) as refused,
        running(on_either, tmp_path, FIVETRAN_API_KEY=NEW_KEY) as other,
    ):
        await version_of(other.client, IDLE)
        workflow_id = await start_and_wait_for_a_sync(refused, sandbox)
        replace_key(sandbox)
        with anyio.fail_after(PATIENCE):
            await arrival(sandbox, resumed(SLOW))
        status = await ended(other.client, workflow_id)

    assert (status["status"], status["error"]["code"]) == ("failed", "unauthorized")
    watch.ended_with(slow)


async def test_a_server_with_the_new_key_verifies(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    sandbox.add_key(NEW_KEY, API_SECRET)
    async with (
        running(on_either, tmp_path) as refused,
        running(on_either, tmp_path, FIVETRAN_API_KEY=NEW_KEY) as other,
    ):
        await version_of(other.client, IDLE)
        hold = sandbox.fault("hang", method="GET", path=f"/{IDLE}/state$", skip=3)
        workflow_id = await start_update(refused.client)
        await arrival(sandbox, lambda each: each.fault == "hang")
        replace_key(sandbox)
        hold.release()
        with anyio.fail_after(PATIENCE):
            await arrival(sandbox, resumed(IDLE))
        await assert_updated_once(other.client, sandbox, workflow_id, before)


async def test_another_server_with_the_refused_key_leaves_it_alone(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    asked = 0

    def is_third_question(request: LoggedRequest) -> bool:
        nonlocal asked
        asked += request.status == 401 and request.path == "/v1/account/info"
        return asked == 3

    async with running(environment, tmp_path) as refused, running(environment, tmp_path) as other:
        await version_of(other.client, IDLE)
        hold = sandbox.fault("hang", method="GET", path=f"/{IDLE}/state$", skip=3)
        workflow_id = await start_update(refused.client)
        await arrival(sandbox, lambda each: each.fault == "hang")
        replace_key(sandbox)
        hold.release()
        await arrival(sandbox, is_third_question)
        async with running(environment, tmp_path, FIVETRAN_API_KEY=NEW_KEY) as third:
            await assert_updated_once(third.client, sandbox, workflow_id, before)

    refusals = [each for each in sandbox.log if each.status == 401 and each.connection_id == IDLE]
    assert len(refusals) == 1


async def test_one_key_that_is_made_valid_again(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        hold = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$", skip=1)
        workflow_id = await start_update(server.client)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.revoke_key(environment["FIVETRAN_API_KEY"])
        hold.release()
        await arrival(sandbox, is_refused)
        waiting = await status_once(
            server.client, workflow_id, lambda status: status.get("phase") == "wait"
        )
        sandbox.add_key(environment["FIVETRAN_API_KEY"], environment["FIVETRAN_API_SECRET"])
        await assert_updated_once(server.client, sandbox, workflow_id, before)

    assert (waiting["status"], waiting["paused_by_update"]) == ("running", True)
    assert "still paused" in waiting["message"]


async def test_nobody_is_left_when_the_new_key_has_finished(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, slow: dict[str, Any]
) -> None:
    async with running(environment, tmp_path) as server:
        await start_and_wait_for_a_sync(server, sandbox)
        replace_key(sandbox)
    await arrival(sandbox, is_refused)
    async with running(environment, tmp_path, FIVETRAN_API_KEY=NEW_KEY):
        await arrival(sandbox, resumed(SLOW))
        await anyio.to_thread.run_sync(partial(wait_until_nobody_is_left, environment, besides=1))
