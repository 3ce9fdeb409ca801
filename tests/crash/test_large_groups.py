"""Many connections as a group: after any failure, and any kill, every state and every flag is right."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from fivetran_state import state
from fivetran_state.changes import GroupOptions, Inline, for_each
from fivetran_state.errors import TooLateToCancel
from fivetran_state.models import Mode
from fivetran_state.sandbox import LoggedRequest, Sandbox
from tests.support.calls import is_pause, is_resume
from tests.support.commands import finish
from tests.support.grouped import (
    AFTER,
    BEFORE,
    changed,
    changing,
    group_of,
    name,
    not_as,
    only_grouped,
)
from tests.support.matrix import each_with_each
from tests.support.watching import service_in

COUNT = int(os.environ.get("GROUPED_CONNECTIONS", "40"))
PATIENCE = 30 + COUNT
"""Seconds."""
WHICH = {"first": 0, "middle": COUNT // 2, "last": COUNT - 1}


@dataclass(frozen=True)
class Failure:
    """How a connection fails in one phase."""

    kind: Any
    method: str
    path: str
    code: str
    status: int = 403
    skip: int = 0
    body: str | None = None


FAILURES = {
    "pause": Failure("status", "PATCH", "{}$", "forbidden"),
    # After the plan's look and the update's own.
    "snapshot": Failure("status", "GET", "{}/state$", "forbidden", skip=2),
    "write": Failure("status", "PATCH", "{}/state$", "forbidden"),
    "verify": Failure("wrong_state", "PATCH", "{}/state$", "verification_failed", body='{"x":1}'),
}


def is_write(request: LoggedRequest) -> bool:
    return request.method == "PATCH" and request.path.endswith("/state")


def is_read_back(request: LoggedRequest) -> bool:
    return request.method == "GET" and request.state == AFTER


PHASES = {"pause": is_pause, "write": is_write, "verify": is_read_back, "resume": is_resume}


async def half_way(sandbox: Sandbox, phase: str) -> None:
    """Returns when half of the connections have reached this phase."""
    seen: set[str | None] = set()

    def is_half_way(request: LoggedRequest) -> bool:
        if PHASES[phase](request):
            seen.add(request.connection_id)
        return len(seen) >= COUNT // 2

    await to_thread.run_sync(sandbox.wait_for, is_half_way, PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize(("phase", "which"), each_with_each(FAILURES, WHICH))
async def test_a_failure_of_one_leaves_all_as_they_were(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, phase: str, which: str
) -> None:
    only_grouped(sandbox, COUNT)
    failure = FAILURES[phase]
    sandbox.fault(
        failure.kind,
        method=failure.method,
        path=failure.path.format(name(WHICH[which])),
        status=failure.status,
        skip=failure.skip,
        body=failure.body,
    )

    told = await to_thread.run_sync(changed, on_either, tmp_path, COUNT, "all_or_nothing")

    assert (told["status"], told["counts"]) == ("failed", {failure.code: 1})
    assert not not_as(sandbox, BEFORE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "mode"), each_with_each(PHASES, ["all_or_nothing", "independent"])
)
async def test_killed_half_way_all_are_changed_by_the_next_process(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, phase: str, mode: Mode
) -> None:
    only_grouped(sandbox, COUNT)

    with changing(on_either, tmp_path, COUNT, mode):
        await half_way(sandbox, phase)
    finished = await to_thread.run_sync(finish, on_either, tmp_path, PATIENCE)

    assert finished.returncode == 0, finished.stderr
    assert not not_as(sandbox, AFTER)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
async def test_killed_while_a_failure_is_undone_all_are_put_back_by_the_next_process(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, phase: str
) -> None:
    only_grouped(sandbox, COUNT)
    sandbox.fault("status", method="PATCH", path=f"{name(COUNT - 1)}/state$", status=403)

    with changing(on_either, tmp_path, COUNT, "all_or_nothing"):
        await half_way(sandbox, phase)
    finished = await to_thread.run_sync(finish, on_either, tmp_path, PATIENCE)

    assert finished.returncode == 0, finished.stderr
    assert not not_as(sandbox, BEFORE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "mode"), each_with_each(PHASES, ["all_or_nothing", "independent"])
)
async def test_cancelled_half_way_no_connection_is_left_between(
    sandbox: Sandbox,
    on_either: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
    mode: Mode,
) -> None:
    only_grouped(sandbox, COUNT)
    change = Inline(state.Change("merge_patch", {"cursor": "2020"}))
    wanted = for_each([name(number) for number in range(COUNT)], change)
    async with service_in(on_either, monkeypatch) as service:
        started = await group_of(service, wanted, GroupOptions(mode))
        await half_way(sandbox, phase)
        with suppress(TooLateToCancel):
            await service.groups.cancel_updates(started.workflow_id, wait_seconds=PATIENCE)
        ended = await service.groups.updates_status(started.workflow_id, wait_seconds=PATIENCE)

    unlike_before, unlike_after = not_as(sandbox, BEFORE), not_as(sandbox, AFTER)
    assert not set(unlike_before) & set(unlike_after), "a flag is wrong, or a state"
    if mode == "all_or_nothing":
        assert not (unlike_after if ended.status == "updated" else unlike_before)
    else:
        assert ended.counts.get("updated", 0) == len(unlike_before)
        assert ended.counts.get("cancelled", 0) == len(unlike_after)
