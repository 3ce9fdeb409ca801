"""`kill -9` while a client follows a task: the client continues with another process."""

from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, arrival, call, state_of, version_of
from tests.support.processes import running
from tests.support.tasks import FollowsTasks, ask, ended_task, task_of

TASKS = [FollowsTasks()]


@pytest.mark.slow
async def test_a_task_outlives_its_server_and_ends_with_its_result(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    async with running(environment, tmp_path, extensions=TASKS) as server:
        request: dict[str, Any] = {
            "connection_id": IDLE,
            "merge_patch": {"cursor": "2020"},
            "expected_version": await version_of(server.client, IDLE),
        }
        hold = sandbox.fault("apply_then_hang", method="PATCH", path="/state$")
        created = await task_of(server.client, **request)
        await arrival(sandbox, lambda each: each.fault == "apply_then_hang")
        await server.kill()

    hold.release()
    async with running(environment, tmp_path, extensions=TASKS) as server:
        found = await ask(server.client, "tasks/get", created["taskId"])
        ended = await ended_task(server.client, created["taskId"])
        done = await call(server.client, "update_state", **request)

    assert found["createdAt"] == ended["createdAt"] == created["createdAt"]
    assert ended["status"] == "completed"
    assert ended["result"]["structuredContent"] == done
    assert done["status"] == "updated"
    assert done["workflow_id"] == created["taskId"] == f"{IDLE}:1"
    assert state_of(sandbox, IDLE)["cursor"] == "2020"
    assert not sandbox.connection(IDLE).paused
