"""`kill -9` at an update's calls: no event is told twice as new, and the audit file stays a chain."""

from pathlib import Path

import pytest

from fivetran_state import audit
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.faults import FaultKind
from tests.conftest import Connect
from tests.support.audited import AUDIT_FILE, events_in, names_in, told_twice_as_new
from tests.support.calls import IDLE, PAUSED, arrival, call
from tests.support.matrix import each_with_each
from tests.support.processes import ended, running
from tests.support.updates import AFTER, BEFORE, CALLS, start_update_that_hangs


@pytest.mark.parametrize(("at_call", "kind"), each_with_each(CALLS, [BEFORE, AFTER]))
async def test_what_a_killed_run_may_have_told_is_marked_as_replayed(
    connect: Connect,
    sandbox: Sandbox,
    environment: dict[str, str],
    tmp_path: Path,
    at_call: int,
    kind: FaultKind,
) -> None:
    path = tmp_path / "audit.jsonl"
    environment[AUDIT_FILE] = str(path)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, kind, at_call=at_call)
        await server.kill()

    async with connect(**environment) as client:
        assert (await ended(client, workflow_id))["status"] == "updated"

    names = names_in(path, workflow_id)
    assert told_twice_as_new(path) == {}
    assert audit.verify(path).wrong == []
    assert [names[0], names.count("recovery.taken_over"), names[-1]] == [
        "update.started",
        1,
        "update.ended",
    ]
    assert {"update.paused", "update.written", "update.verified", "update.resumed"} <= set(names)
    first = events_in(path)[names.index("recovery.taken_over") + 1]
    assert first["replayed"] is True


@pytest.mark.slow
async def test_neither_a_group_nor_its_members_are_told_twice_as_new(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    environment[AUDIT_FILE] = str(path)
    change = {"connection_ids": [IDLE, PAUSED], "merge_patch": {"cursor": "2020"}}
    async with running(environment, tmp_path) as server:
        plan = await call(server.client, "update_states", dry_run=True, **change)
        sandbox.fault("apply_then_hang", method="PATCH", path=f"/{IDLE}/state$")
        started = await call(
            server.client,
            "update_states",
            expected_version=plan["version"],
            wait_seconds=0,
            **change,
        )
        await arrival(sandbox, lambda request: request.fault == "apply_then_hang")
        await server.kill()

    async with connect(**environment) as client:
        done = await ended(client, started["workflow_id"])

    assert done["status"] == "updated"
    assert told_twice_as_new(path) == {}
    assert audit.verify(path).wrong == []
    assert set(names_in(path, started["workflow_id"])) == {
        "group.started",
        "recovery.taken_over",
        "group.ended",
    }
