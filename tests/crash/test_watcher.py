"""`kill -9` of watchers at each of their calls, and several at once: no gap, and nothing twice."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from anyio import to_thread

from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.service import Service
from tests.support.calls import API_KEY, API_SECRET, api_calls, arrival, until
from tests.support.commands import doctor, finish
from tests.support.matrix import each_with_each
from tests.support.outside import NEW_KEY, opened
from tests.support.watching import (
    is_list,
    is_state_of,
    killed_look,
    only,
    service_in,
    sync,
    versions_of,
    watching,
)

FIRST, SECOND, THIRD = (f"connection_{number:04}" for number in range(3))
CALLS = {
    "list": "/v1/connections$",
    "first state": f"{FIRST}/state",
    "last state": f"{SECOND}/state",
}
MIN_WRITES = 6
"""Of a look that reads a state: its row, three steps, the state, its end."""
WHEN = ["before its answer", "at its answer"]


@pytest.mark.slow
@pytest.mark.parametrize(("at_call", "when"), each_with_each(CALLS, WHEN))
async def test_a_look_killed_at_any_call_is_finished_by_the_next_process(
    sandbox: Sandbox,
    on_either: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_call: str,
    when: str,
) -> None:
    only(sandbox, 3)
    async with service_in(on_either, monkeypatch) as service:
        await service.operations.look()
    for connection_id in (FIRST, SECOND):
        sync(sandbox, connection_id, {"cursor": "after"})
    begin = len(sandbox.log)
    # Before it looks, it lists the connections once, to tell the cost.
    skip = 1 if at_call == "list" else 0
    if when == "before its answer":
        sandbox.fault("hang", path=CALLS[at_call], skip=skip)
    with watching(on_either, tmp_path):
        await _arrived(sandbox, begin, at_call, when)

    async with service_in(on_either, monkeypatch) as service:
        await service.operations.look()
        await service.operations.look()
        for connection_id, number in ((FIRST, 0), (SECOND, 1)):
            found = await versions_of(service, connection_id)
            assert found == [{"cursor": f"{number} before"}, {"cursor": "after"}]
            # The one before the kill, and at most one that was repeated.
            assert len(api_calls(sandbox, connection_id, begin)) <= 2
        assert await versions_of(service, THIRD) == [{"cursor": "2 before"}]
    assert not api_calls(sandbox, THIRD, begin)


@pytest.mark.slow
async def test_a_look_killed_at_any_write_is_finished_by_the_next_process(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 2)
    expected = [{"cursor": "0 before"}]
    async with service_in(on_either, monkeypatch) as service:
        await service.operations.look()
    for at_write in range(1, 100):
        expected.append({"cursor": f"sync {at_write}"})
        sync(sandbox, FIRST, expected[-1])
        begin = len(sandbox.log)

        looked = await to_thread.run_sync(killed_look, on_either, tmp_path, at_write)

        async with service_in(on_either, monkeypatch) as service:
            await service.operations.look()
            await service.operations.look()
            assert await versions_of(service, FIRST) == expected
        # The one before the kill, and at most one that was repeated.
        assert len(api_calls(sandbox, FIRST, begin)) <= 2
        if looked.returncode == 0:
            break
        assert looked.returncode == -signal.SIGKILL, looked.stderr
    assert at_write >= MIN_WRITES
    assert api_calls(sandbox, SECOND) == ["GET state"]


async def _arrived(sandbox: Sandbox, begin: int, at_call: str, when: str) -> None:
    """Return when the call has arrived, or has been answered."""
    if when == "before its answer":
        await arrival(sandbox, lambda request: request.fault == "hang")
        return

    def is_answered(request: LoggedRequest) -> bool:
        if request.index < begin or request.status is None:
            return False
        if at_call == "list":
            lists = [each.index for each in sandbox.log if each.index >= begin and is_list(each)]
            return lists[1:2] == [request.index]
        return is_state_of(FIRST if at_call == "first state" else SECOND, request)

    await arrival(sandbox, is_answered)


@pytest.mark.slow
async def test_a_living_watcher_finishes_the_look_of_a_dead_one(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 3)
    sandbox.fault("hang", path=f"{SECOND}/state")
    async with service_in(on_either, monkeypatch) as service:
        with watching(on_either, tmp_path), watching(on_either, tmp_path):
            await arrival(sandbox, lambda request: request.fault == "hang")
            os.kill(await _pid_of_the_look(service), signal.SIGKILL)

            await _until_remembered(service, SECOND, [{"cursor": "1 before"}])
            await _until_remembered(service, FIRST, [{"cursor": "0 before"}])
            sync(sandbox, FIRST, {"cursor": "after"})
            await _until_remembered(service, FIRST, [{"cursor": "0 before"}, {"cursor": "after"}])


async def _pid_of_the_look(service: Service) -> int:
    launched = await service._engine.up()
    (row,) = await launched.storage.reader.find(name="look", status="PENDING")
    return int(str(row.executor_id).partition("-")[0])


@pytest.mark.slow
async def test_finish_does_not_wait_for_a_look(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    only(sandbox, 3)
    sandbox.fault("hang", path=f"{SECOND}/state", times=10)
    with watching(environment, tmp_path):
        await arrival(sandbox, lambda request: request.fault == "hang")

    finished = await to_thread.run_sync(finish, environment, tmp_path)

    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
async def test_doctor_finds_nothing_wrong_with_a_look_that_nobody_finishes(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    only(sandbox, 3)
    sandbox.fault("hang", path=f"{SECOND}/state", times=10)
    with watching(environment, tmp_path):
        await arrival(sandbox, lambda request: request.fault == "hang")
    others = environment | {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": FIRST}

    found = await to_thread.run_sync(doctor, others, tmp_path)

    assert found.returncode == 0, found.stdout


@pytest.mark.slow
async def test_two_watchers_at_once_read_each_sync_once(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 3)
    expected = [{"cursor": "0 before"}]
    async with service_in(on_either, monkeypatch) as service:
        with watching(on_either, tmp_path), watching(on_either, tmp_path):
            await _until_remembered(service, FIRST, expected)
            for number in range(5):
                expected.append({"cursor": f"sync {number}"})
                sync(sandbox, FIRST, expected[-1])
                await _until_remembered(service, FIRST, expected)

    assert api_calls(sandbox, FIRST) == ["GET state"] * len(expected)
    assert api_calls(sandbox, THIRD) == ["GET state"]


async def _until_remembered(service: Service, connection_id: str, expected: list[Any]) -> None:
    """Return when these versions are remembered, and fail on any others."""

    async def are_remembered() -> bool:
        launched = await service._engine.up()
        if await launched.storage.history.latest(connection_id) is None:
            return False  # The time line would ask Fivetran.
        found = await versions_of(service, connection_id)
        assert found == expected[: len(found)]
        return found == expected

    await until(are_remembered)


@pytest.mark.slow
async def test_a_process_whose_key_is_refused_leaves_the_looks_to_others(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 2)
    sandbox.add_key(NEW_KEY, API_SECRET)
    expected = [{"cursor": "0 before"}]
    async with service_in(on_either, monkeypatch, FIVETRAN_API_KEY=NEW_KEY) as service:
        with watching(on_either, tmp_path):
            await _until_remembered(service, FIRST, expected)
            sandbox.revoke_key(API_KEY)
            await arrival(sandbox, lambda each: is_list(each) and each.status == 401)

            with watching(on_either | {"FIVETRAN_API_KEY": NEW_KEY}, tmp_path):
                for number in range(3):
                    expected.append({"cursor": f"sync {number}"})
                    sync(sandbox, FIRST, expected[-1])
                    await _until_remembered(service, FIRST, expected)
    assert api_calls(sandbox, FIRST) == ["GET state"] * len(expected)


@pytest.mark.slow
async def test_a_look_that_a_suspended_process_runs_is_passed_over_in_the_end(
    sandbox: Sandbox, on_either: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 2)
    sandbox.fault("hang", path=f"{FIRST}/state")
    async with service_in(on_either, monkeypatch) as service:
        with watching(on_either, tmp_path):
            await arrival(sandbox, lambda request: request.fault == "hang")
            with opened(on_either) as database:
                schema = "dbos." if database.dialect.name == "postgresql" else ""
                aged = f"UPDATE {schema}workflow_status SET created_at = created_at - 7200001"
                database.execute(sa.text(f"{aged} WHERE name = 'look'"))

            with watching(on_either, tmp_path):
                await _until_remembered(service, FIRST, [{"cursor": "0 before"}])
