"""The main job, as an assistant does it: over real stdio, in both protocol eras."""

from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import ERAS, Connect
from tests.support.calls import IDLE, PAUSED, api_calls, call, in_order, state_of, version_of

RUNNING_CALLS = ["GET", "GET state", "PATCH", "GET state", "PATCH state", "GET state", "PATCH"]
PAUSED_CALLS = ["GET", "GET state", "PATCH state", "GET state"]


@pytest.mark.slow
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("connection_id", "calls"), [(IDLE, RUNNING_CALLS), (PAUSED, PAUSED_CALLS)]
)
async def test_an_assistant_lists_reads_plans_updates_and_follows(
    spawn: Connect, sandbox: Sandbox, era: str, connection_id: str, calls: list[str]
) -> None:
    was_paused = sandbox.connection(connection_id).paused
    reports: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    async with spawn(era) as client:
        listed = await call(client, "list_connections", name=connection_id)
        assert [(item["id"], item["keeps_state"]) for item in listed["connections"]] == [
            (connection_id, True)
        ]

        seen = await call(client, "get_state", connection_id=connection_id)
        assert seen["state"] == state_of(sandbox, connection_id)
        assert seen["paused"] == was_paused

        change: dict[str, Any] = {"connection_id": connection_id, "merge_patch": {"cursor": "2020"}}
        plan = await call(client, "update_state", **change)
        assert plan["status"] == "planned"
        assert plan["version_before"] == seen["version"]
        assert [entry["path"] for entry in plan["changes"]] == ["/cursor"]
        assert state_of(sandbox, connection_id) == seen["state"]

        before = len(sandbox.log)
        result = await client.call_tool(
            "update_state",
            {**change, "expected_version": seen["version"], "reason": "bad rows"},
            progress_callback=on_progress,
        )
        done = result.structured_content
        assert done is not None, result.content
        assert done["status"] == "updated"
        assert done["workflow_id"] == f"{connection_id}:1"
        assert done["version_after"] == plan["version_after"]
        assert done["changes"] == plan["changes"]
        assert in_order(api_calls(sandbox, connection_id, before)) == calls

        assert state_of(sandbox, connection_id) == seen["state"] | {"cursor": "2020"}
        assert await version_of(client, connection_id) == done["version_after"]
        assert sandbox.connection(connection_id).paused == was_paused

        status = await call(client, "workflow_status", workflow_id=done["workflow_id"])
        assert status["status"] == "updated"
        assert status["reason"] == "bad rows"
        assert [step["name"] for step in status["steps"]] == [
            name
            for name in ("inspect", "pause", "snapshot", "write", "verify", "resume")
            if not was_paused or name not in ("pause", "snapshot", "resume")
        ]

    assert reports
    assert [report[0] for report in reports] == sorted(report[0] for report in reports)
    assert all(message for _, _, message in reports)
