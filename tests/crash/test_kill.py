"""`kill -9` at every point of an update: another process completes the update, and makes it only
once."""

from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.faults import FaultKind
from fivetran_state.sandbox.server import SandboxServer
from tests.conftest import Connect
from tests.support import matrix
from tests.support.calls import (
    API_SECRET,
    IDLE,
    PAUSED,
    SYNCING,
    api_calls,
    arrival,
    call,
    in_order,
    is_resume,
    refused,
    state_of,
    status_once,
    sync_runs_on,
    version_of,
    written_down,
)
from tests.support.matrix import each_with_each
from tests.support.processes import Server, ended, running, simulated_account
from tests.support.updates import (
    AFTER,
    BEFORE,
    CALLS,
    CALLS_TO_READ,
    RUNNING_CALLS,
    SLOW,
    WRITE,
    assert_failed_with,
    assert_updated_once,
    assert_written_once_while_paused,
    is_poll_of_a_sync,
    kill_while_draining,
    start_update,
    start_update_that_hangs,
)


@pytest.mark.parametrize(("at_call", "kind"), each_with_each(CALLS, [BEFORE, AFTER]))
async def test_killed_at_any_call_then_restarted(
    connect: Connect,
    sandbox: Sandbox,
    on_either: dict[str, str],
    tmp_path: Path,
    at_call: int,
    kind: FaultKind,
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(on_either, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, kind, at_call=at_call)
        await server.kill()

    async with connect(**on_either) as client:
        await assert_updated_once(client, sandbox, workflow_id, before)


@pytest.mark.parametrize("kind", [BEFORE, AFTER])
async def test_killed_while_the_sync_is_started(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, kind: FaultKind
) -> None:
    before = state_of(sandbox, IDLE)
    at_call = matrix.SYNC.position + 1
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(
            server.client, sandbox, kind, at_call=at_call, then_sync=True
        )
        await server.kill()

    async with connect() as client:
        await assert_updated_once(client, sandbox, workflow_id, before)
        status = await ended(client, workflow_id)

    assert "A sync was started." in status["message"]
    assert status["since"]["sync"] == "running"


@pytest.mark.parametrize(
    ("at_call", "kind"),
    each_with_each(range(1, len(matrix.PAUSED) + 1), [BEFORE, AFTER]),
)
async def test_killed_at_any_call_it_stays_paused(
    connect: Connect,
    sandbox: Sandbox,
    environment: dict[str, str],
    tmp_path: Path,
    at_call: int,
    kind: FaultKind,
) -> None:
    before = state_of(sandbox, PAUSED)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(
            server.client, sandbox, kind, at_call=at_call, connection_id=PAUSED
        )
        await server.kill()

    async with connect() as client:
        status = await ended(client, workflow_id)

    assert (status["status"], status["was_paused"]) == ("updated", True)
    assert state_of(sandbox, PAUSED) == before | {"cursor": "2020"}
    assert_written_once_while_paused(sandbox, PAUSED)
    assert sandbox.connection(PAUSED).paused is True
    assert not [each for each in sandbox.log if is_resume(each)]


async def test_a_sync_that_ends_while_no_server_lives_is_noticed_by_the_next_one(
    connect: Connect,
    sandbox: Sandbox,
    on_either: dict[str, str],
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    async with running(on_either, tmp_path) as server:
        workflow_id = await kill_while_draining(server, sandbox)
    sandbox.finish_sync(SLOW)

    async with connect(**on_either) as client:
        await assert_updated_once(client, sandbox, workflow_id, slow)


async def test_a_recovered_update_goes_on_waiting_for_the_running_sync(
    connect: Connect,
    sandbox: Sandbox,
    environment: dict[str, str],
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    async with running(environment, tmp_path) as server:
        workflow_id = await kill_while_draining(server, sandbox)
    killed_at = len(sandbox.log)

    async with connect() as client:
        await arrival(sandbox, lambda r: r.index >= killed_at and is_poll_of_a_sync(r))
        assert state_of(sandbox, SLOW) == slow
        sandbox.advance(3601)
        await assert_updated_once(client, sandbox, workflow_id, slow)


async def test_a_sync_that_moves_the_cursor_while_no_server_lives_is_a_conflict(
    connect: Connect,
    sandbox: Sandbox,
    environment: dict[str, str],
    tmp_path: Path,
    slow: dict[str, Any],
) -> None:
    async with running(environment, tmp_path) as server:
        workflow_id = await kill_while_draining(server, sandbox)
    sandbox.finish_sync(SLOW)
    sandbox.set_state(SLOW, '{"cursor":"2026-02-02T00:00:00Z"}')

    async with connect() as client:
        status = await ended(client, workflow_id)

    assert_failed_with(status, "conflict")
    assert state_of(sandbox, SLOW) == {"cursor": "2026-02-02T00:00:00Z"}
    assert sandbox.connection(SLOW).paused is False


@pytest.mark.parametrize("kind", [BEFORE, AFTER])
async def test_what_somebody_else_wrote_after_the_kill_is_not_overwritten(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path, kind: FaultKind
) -> None:
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, kind, at_call=WRITE)
        await server.kill()
    sandbox.set_state(IDLE, '{"cursor":"by somebody else"}')

    async with connect() as client:
        status = await ended(client, workflow_id)

    assert_failed_with(status, "conflict")
    assert state_of(sandbox, IDLE) == {"cursor": "by somebody else"}
    assert sandbox.connection(IDLE).paused is False


async def test_a_rollback_that_was_killed_is_completed(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"cursor":"mangled"}')
        sandbox.fault("hang", method="PATCH", path="/state$")
        workflow_id = await start_update(server.client)
        await arrival(sandbox, lambda request: request.fault == "hang")
        assert state_of(sandbox, IDLE) == {"cursor": "mangled"}
        await server.kill()

    async with connect() as client:
        status = await ended(client, workflow_id)

    assert_failed_with(status, "verification_failed")
    assert state_of(sandbox, IDLE) == before
    assert sandbox.connection(IDLE).paused is False


async def test_an_update_whose_recovery_is_killed_too_is_completed_once(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, AFTER, at_call=WRITE)
        await server.kill()
    sandbox.fault("hang", method="GET", path="/state$")
    async with running(environment, tmp_path) as server:
        await arrival(sandbox, lambda request: request.fault == "hang")
        await server.kill()

    async with connect() as client:
        await assert_updated_once(client, sandbox, workflow_id, before)


async def test_an_update_killed_while_it_waits_for_an_outage_to_end_is_completed_once(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        sandbox.fault("status", status=503, path=IDLE, skip=CALLS_TO_READ + 4, times=1000)
        workflow_id = await start_update(server.client)
        waiting = await status_once(
            server.client, workflow_id, lambda status: status.get("phase") == "wait"
        )
        assert waiting["paused_by_update"] is True
        assert "the connection is still paused" in waiting["message"]
        await server.kill()
    sandbox.clear_faults()

    async with connect() as client:
        await assert_updated_once(client, sandbox, workflow_id, before)


async def test_a_server_with_the_accounts_new_key_completes_what_the_old_key_began(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with running(environment, tmp_path) as server:
        workflow_id = await start_update_that_hangs(server.client, sandbox, BEFORE, at_call=WRITE)
        await server.kill()
    sandbox.api.api_key = "rotated-key"

    async with connect(FIVETRAN_API_KEY="rotated-key") as client:
        await assert_updated_once(client, sandbox, workflow_id, before)


async def test_living_servers_complete_a_dead_ones_update_once_without_a_restart(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    async with (
        running(environment, tmp_path) as living,
        running(environment, tmp_path) as another,
        running(environment, tmp_path) as dying,
    ):
        await version_of(living.client, IDLE)
        await version_of(another.client, IDLE)
        workflow_id = await start_update_that_hangs(dying.client, sandbox, BEFORE, at_call=WRITE)
        assert (await ended_within(living, workflow_id, 0))["status"] == "running"
        await dying.kill()

        recovered = await ended_within(living, workflow_id, 10)

        assert recovered["status"] == "updated"
        await assert_updated_once(another.client, sandbox, workflow_id, before)


async def test_a_living_servers_update_is_left_to_it_even_while_it_is_suspended(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    async with (
        running(environment, tmp_path) as suspended,
        running(environment, tmp_path) as dying,
        running(environment, tmp_path) as bystander,
    ):
        write = sandbox.fault(BEFORE, method="PATCH", path=f"/{IDLE}/state$")
        workflow_id = await start_update(suspended.client)
        await arrival(sandbox, lambda request: request.fault == BEFORE)
        await written_down(suspended.client, IDLE)
        with suspended.suspended():
            dead_ones = await start_update_that_hangs(
                dying.client, sandbox, BEFORE, at_call=3, connection_id=PAUSED
            )
            await dying.kill()
            # When the bystander has recovered the dead server's update, it has seen the other's
            # too.
            assert (await ended(bystander.client, dead_ones))["status"] == "updated"
        write.release()

        assert (await ended(suspended.client, workflow_id))["status"] == "updated"

    calls = api_calls(sandbox, IDLE)[CALLS_TO_READ:-CALLS_TO_READ]  # Without the status's calls.
    assert in_order(calls) == RUNNING_CALLS


async def ended_within(server: Server, workflow_id: str, seconds: float) -> dict[str, Any]:
    return await call(
        server.client, "workflow_status", workflow_id=workflow_id, wait_seconds=seconds
    )


async def test_a_server_of_another_account_leaves_a_dead_ones_update_alone(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    other = Sandbox(api_key="key-of-the-other", api_secret=API_SECRET)
    other.api.account_id = "other_account"
    with SandboxServer(other) as fivetran:
        others = environment | {
            "FIVETRAN_API_KEY": "key-of-the-other",
            "FIVETRAN_API_URL": fivetran.url,
        }
        async with (
            running(environment, tmp_path) as ours,
            running(others, tmp_path) as dying,
            running(others, tmp_path) as bystander,
        ):
            workflow_id = await start_update_that_hangs(ours.client, sandbox, BEFORE, at_call=WRITE)
            its_own = await start_update_that_hangs(
                dying.client, other, BEFORE, at_call=3, connection_id=PAUSED
            )
            await ours.kill()
            killed_at = len(sandbox.log)
            await dying.kill()

            # When it has recovered its own account's update, it has seen ours too.
            assert (await ended(bystander.client, its_own))["status"] == "updated"

            assert len(sandbox.log) == killed_at
            assert sandbox.connection(IDLE).paused is True
            unseen = await refused(bystander.client, "workflow_status", workflow_id=workflow_id)
            assert unseen["code"] == "workflow_not_found"

    async with connect() as client:
        await assert_updated_once(client, sandbox, workflow_id, before)


async def test_a_server_of_the_sandbox_leaves_a_dead_ones_update_alone(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    with simulated_account(environment) as simulated:
        sync_runs_on(simulated)
        async with (
            running(environment, tmp_path) as ours,
            running(environment, tmp_path, "--sandbox") as dying,
            running(environment, tmp_path, "--sandbox") as bystander,
        ):
            workflow_id = await start_update_that_hangs(ours.client, sandbox, BEFORE, at_call=WRITE)
            its_own = await start_update(dying.client, SYNCING)
            await status_once(dying.client, its_own, lambda status: status.get("phase") == "drain")
            await ours.kill()
            killed_at = len(sandbox.log)
            await dying.kill()
            simulated.finish_sync(SYNCING)

            # When it has recovered its own update, it has looked for others too.
            assert (await ended(bystander.client, its_own))["status"] == "updated"

            assert len(sandbox.log) == killed_at
            assert sandbox.connection(IDLE).paused is True

    async with connect() as client:
        await assert_updated_once(client, sandbox, workflow_id, before)
