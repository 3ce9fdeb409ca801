"""A proposal survives the death of every process, at each of its writes: one update, or none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from anyio import to_thread

from fivetran_state import access, changes, state
from fivetran_state.sandbox import Sandbox
from fivetran_state.service import Service
from tests.support.audited import AUDIT_FILE, names_in, told_twice_as_new
from tests.support.calls import IDLE, PAUSED, ROOT, Watch
from tests.support.commands import finish
from tests.support.outside import dbos_client
from tests.support.people import APPROVER, ASKER
from tests.support.updates import is_write, took_effect
from tests.support.watching import service_in

PATCH = {"cursor": "2020"}
TO_THE_START = 7
"""Writes of an approval until the update has started, at least."""
CHANGE = changes.Inline(state.Change("merge_patch", dict(PATCH), exact=False))


async def proposed(service: Service) -> str:
    with access.working_for(ASKER):
        asked = await service.changes.update_state(
            IDLE, CHANGE, expected_version=None, propose=True
        )
    return str(asked.workflow_id)


async def approved(service: Service, proposal: str, approver: access.Principal = APPROVER) -> str:
    """Approve what is seen now; returns the status of the update."""
    with access.working_for(approver):
        plan = await service.proposals.plan(proposal)
        version = str(getattr(plan, "version", None) or getattr(plan, "version_before", None))
        ended = await service.proposals.approve(proposal, expected_version=version, wait_seconds=30)
    return ended.status


def killed_approval(
    environment: dict[str, str], folder: Path, proposal: str, at_write: int
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.support.killed_approval", proposal, str(at_write)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
    )


async def test_a_proposal_waits_while_no_process_runs(
    sandbox: Sandbox, on_both: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(sandbox, IDLE)
    async with service_in(on_both, monkeypatch) as service:
        proposal = await proposed(service)
    # Nothing that runs on is left behind for it.
    async with service_in(on_both, monkeypatch) as service:
        (waiting,) = (await service.proposals.waiting()).proposals
        assert waiting.workflow_id == proposal
        assert await approved(service, proposal) == "updated"
    watch.ended_with(watch.old | PATCH)


async def test_nothing_waits_for_a_proposal_at_the_end_of_a_process(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service_in(on_either, monkeypatch) as service:
        await proposed(service)
    ended = await to_thread.run_sync(finish, on_either, tmp_path)
    assert ended.returncode == 0, ended.stderr


async def test_a_process_without_the_token_file_goes_on_with_what_a_token_has_approved(
    sandbox: Sandbox, on_either: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(sandbox, IDLE)
    approver = access.Principal("token:0a1b2c3d", access.SCOPES)
    async with service_in(on_either, monkeypatch) as service:
        proposal = await proposed(service)
        assert await approved(service, proposal, approver) == "updated"
    watch.ended_with(watch.old | PATCH)


@pytest.mark.slow
async def test_a_proposal_is_left_to_a_process_that_may_change_its_connection(
    sandbox: Sandbox, on_both: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = on_both | {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": PAUSED}
    async with service_in(on_both, monkeypatch) as service:
        proposal = await proposed(service)

    def holder() -> str | None:
        with dbos_client(on_both, sandbox) as client:
            (row,) = client.list_workflows(workflow_ids=[proposal], load_input=False)
            return row.executor_id

    dead = holder()
    # It looks for dead processes before it ends.
    assert (await to_thread.run_sync(finish, limited, tmp_path)).returncode == 0
    assert holder() == dead
    assert (await to_thread.run_sync(finish, on_both, tmp_path)).returncode == 0
    assert holder() != dead


# Each write of an approval in the slow suite; in the quick one, those around the start.
WRITES = [
    number if 1 < number <= TO_THE_START else pytest.param(number, marks=pytest.mark.slow)
    for number in range(1, 31)
]


@pytest.mark.slow
@pytest.mark.parametrize("at_write", WRITES)
async def test_an_approval_killed_at_any_write_makes_one_update(
    sandbox: Sandbox,
    on_either: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_write: int,
) -> None:
    watch = Watch(sandbox, IDLE)
    path = tmp_path / "audit.jsonl"
    on_either[AUDIT_FILE] = str(path)
    async with service_in(on_either, monkeypatch) as service:
        proposal = await proposed(service)
    died = await to_thread.run_sync(killed_approval, on_either, tmp_path, proposal, at_write)
    assert died.returncode in (-signal.SIGKILL, 0), died.stderr

    async with service_in(on_either, monkeypatch) as service:
        found = await service.proposals.proposal(proposal, wait_seconds=5)
        if found.status == "proposed":  # The approval had not been stored.
            assert await approved(service, proposal) == "updated"
        ended = await service.proposals.status(proposal, wait_seconds=30)
        made = (await service.workflows.list_workflows(IDLE)).workflows

    assert (ended.status, ended.workflow_id) == ("updated", f"{IDLE}:1")
    assert [each.workflow_id for each in made] == [f"{IDLE}:1"]
    assert sum(is_write(each) for each in took_effect(sandbox, IDLE)) == 1
    assert "proposal.approved" in names_in(path, f"{IDLE}:1")
    assert told_twice_as_new(path) == {}
    watch.ended_with(watch.old | PATCH)


@pytest.mark.slow
@pytest.mark.parametrize("at_write", [3, 2, 4, 5, 6, 8, 12])
async def test_an_approved_group_killed_at_any_write_changes_all(
    sandbox: Sandbox,
    on_either: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_write: int,
) -> None:
    watches = [Watch(sandbox, IDLE), Watch(sandbox, PAUSED)]
    async with service_in(on_either, monkeypatch) as service:
        with access.working_for(ASKER):
            asked = await service.groups.update_states(
                changes.for_each([IDLE, PAUSED], CHANGE), changes.GroupOptions(), propose=True
            )
        assert asked.status == "proposed"
        proposal = asked.workflow_id
    died = await to_thread.run_sync(killed_approval, on_either, tmp_path, proposal, at_write)
    assert died.returncode == -signal.SIGKILL, died.stderr

    async with service_in(on_either, monkeypatch) as service:
        found = await service.proposals.proposal(proposal, wait_seconds=5)
        if found.status == "proposed":  # The approval had not been stored.
            assert await approved(service, proposal) == "updated"
        ended = await service.proposals.status(proposal, wait_seconds=30)

    assert ended.status == "updated"
    for watch in watches:
        watch.ended_with(watch.old | PATCH)
