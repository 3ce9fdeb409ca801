"""What an earlier version began, this one completes; `tests/recorded/record.py` recorded it."""

import gzip
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

from fivetran_state.sandbox import Sandbox
from tests.calls import api_calls, call, state_of
from tests.crash.processes import ended, running
from tests.crash.test_kill import took_effect
from tests.crash.test_many_processes import letter

RECORDED = Path(__file__).parent.parent / "recorded"
SCENARIOS = sorted(path.parent for path in RECORDED.glob("*/*/scenario.json"))
WHAT_IS_LEFT = {"draining": "wr", "written": "r"}


def restored(recording: Path, data: Path, sandbox: Sandbox) -> dict[str, Any]:
    """The data directory and the connection as they were when the server was killed."""
    data.mkdir()
    (data / "state.db").write_bytes(gzip.decompress((recording / "state.db.gz").read_bytes()))
    shutil.copyfile(recording / "key", data / "key")
    scenario: dict[str, Any] = json.loads((recording / "scenario.json").read_text())
    sandbox.add_connection(
        scenario["connection_id"], state=scenario["state"], paused=scenario["paused"]
    )
    return scenario


@pytest.mark.parametrize("recording", SCENARIOS, ids=lambda path: f"{path.parent.name}-{path.name}")
async def test_an_update_that_an_earlier_version_began_is_completed_once(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, recording: Path
) -> None:
    scenario = restored(recording, tmp_path / "data", sandbox)
    connection_id, workflow_id = scenario["connection_id"], scenario["workflow_id"]

    async with running(environment, tmp_path) as server:
        status = await ended(server, workflow_id)
        seen = await call(server.client, "get_state", connection_id=connection_id)

    assert status["status"] == "updated", status
    assert status["was_paused"] is False
    assert status["version_after"] == seen["version"]
    target = json.loads(scenario["state_before"]) | {"cursor": "2020"}
    assert state_of(sandbox, connection_id) == target
    assert sandbox.connection(connection_id).paused is False
    changes = [r for r in took_effect(sandbox, connection_id) if r.method == "PATCH"]
    assert "".join(map(letter, changes)) == WHAT_IS_LEFT[recording.name]
    assert "GET state" in api_calls(sandbox, connection_id)


def test_there_are_recordings_of_both_situations() -> None:
    assert {path.name for path in SCENARIOS} == set(WHAT_IS_LEFT)


def test_dbos_still_has_the_private_call_that_recovers_the_updates_of_others() -> None:
    """If this fails: `engine._recover` needs another way, or nobody's update is ever recovered."""
    signature = inspect.signature(DBOS._recover_pending_workflows)

    assert list(signature.parameters) == ["executor_ids"]
    assert inspect.ismethod(DBOS._recover_pending_workflows)
