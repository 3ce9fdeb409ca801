"""Accounts share a database: none runs, sees or recovers another's work."""

from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.conftest import Connect
from tests.support.calls import (
    API_SECRET,
    IDLE,
    SYNCING,
    call,
    refused,
    state_of,
    status_once,
    sync_runs_on,
    version_of,
)
from tests.support.processes import ended, running, simulated_account
from tests.support.updates import (
    BEFORE,
    WRITE,
    assert_updated_once,
    start_update,
    start_update_that_hangs,
)


@pytest.mark.slow
async def test_two_accounts_and_the_sandbox_leave_each_others_updates_alone(
    connect: Connect, sandbox: Sandbox, on_both: dict[str, str], tmp_path: Path
) -> None:
    before = state_of(sandbox, IDLE)
    other = Sandbox(api_key="key-of-the-other", api_secret=API_SECRET)
    other.api.account_id = "other_account"
    with SandboxServer(other) as door, simulated_account(on_both) as third:
        sync_runs_on(third)
        others = on_both | {
            "FIVETRAN_API_KEY": "key-of-the-other",
            "FIVETRAN_API_URL": door.url,
        }
        async with (
            running(on_both, tmp_path) as ours,
            running(others, tmp_path) as theirs,
            running(on_both, tmp_path, "--sandbox") as simulated,
        ):
            our_update = await start_update_that_hangs(ours.client, sandbox, BEFORE, at_call=4)
            # The other account has a connection of this name. The id is taken, but this does not
            # block our update.
            their_update = await start_update_that_hangs(theirs.client, other, BEFORE, at_call=4)
            simulated_update = await start_update(simulated.client, SYNCING)
            await status_once(
                simulated.client, simulated_update, lambda found: found.get("phase") == "drain"
            )
            for server in (ours, theirs, simulated):
                await server.kill()
        third.finish_sync(SYNCING)
        assert (our_update, their_update) == (f"{IDLE}:1", f"{IDLE}:2")
        ours_until_now, theirs_until_now = len(sandbox.log), len(other.log)

        async with running(on_both, tmp_path, "--sandbox") as simulated:
            assert (await ended(simulated.client, simulated_update))["status"] == "updated"
            for hidden in (our_update, their_update):
                unseen = await refused(simulated.client, "workflow_status", workflow_id=hidden)
                assert unseen["code"] == "workflow_not_found"
        assert (len(sandbox.log), len(other.log)) == (ours_until_now, theirs_until_now)

        async with connect(**others) as client:
            assert (await ended(client, their_update))["status"] == "updated"
            for hidden in (our_update, simulated_update):
                unseen = await refused(client, "workflow_status", workflow_id=hidden)
                assert unseen["code"] == "workflow_not_found"
        assert len(sandbox.log) == ours_until_now
        assert sandbox.connection(IDLE).paused is True
        assert other.connection(IDLE).paused is False
    other.close()

    async with connect(**on_both) as client:
        await assert_updated_once(client, sandbox, our_update, before)


async def test_a_key_is_of_one_account_where_connections_have_the_same_name(
    connect: Connect, sandbox: Sandbox
) -> None:
    other = Sandbox(api_key="key-of-the-other", api_secret=API_SECRET)
    other.api.account_id = "other_account"
    with SandboxServer(other) as door:
        theirs = {"FIVETRAN_API_KEY": "key-of-the-other", "FIVETRAN_API_URL": door.url}
        ended = []
        for account in ({}, theirs):
            async with connect(**account) as client:
                ended += [
                    await call(
                        client,
                        "update_state",
                        connection_id=IDLE,
                        merge_patch={"cursor": "2020"},
                        expected_version=await version_of(client, IDLE),
                        idempotency_key="nightly",
                        wait_seconds=50,
                    )
                ]

        assert [each["status"] for each in ended] == ["updated", "updated"]
        assert state_of(sandbox, IDLE) == state_of(other, IDLE) == {"cursor": "2020"}
    other.close()


@pytest.mark.slow
async def test_a_rotated_key_of_the_account_keeps_its_history_and_its_work(
    connect: Connect, sandbox: Sandbox, on_both: dict[str, str], tmp_path: Path
) -> None:
    async with running(on_both, tmp_path) as server:
        first = await start_update(server.client)
        assert (await ended(server.client, first))["status"] == "updated"
        await call(
            server.client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2021"},
            expected_version=await version_of(server.client, IDLE),
            wait_seconds=50,
        )
        sandbox.set_state(IDLE, '{"cursor":"2022"}')
        third = await start_update_that_hangs(server.client, sandbox, BEFORE, at_call=WRITE)
        await server.kill()
    sandbox.api.api_key = "rotated-key"

    async with connect(**on_both | {"FIVETRAN_API_KEY": "rotated-key"}) as client:
        assert (await ended(client, third))["status"] == "updated"
        assert (await ended(client, first))["version_after"]
        assert third == f"{IDLE}:3"
        assert state_of(sandbox, IDLE) == {"cursor": "2020"}
        assert sandbox.connection(IDLE).paused is False
        fourth = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2023"},
            expected_version=await version_of(client, IDLE),
            wait_seconds=50,
        )
        assert fourth["workflow_id"] == f"{IDLE}:4"
