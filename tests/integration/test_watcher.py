"""The watcher remembers what syncs left, for few calls, and leaves everybody else alone."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from anyio import to_thread
from mcp import Client

from fivetran_state.errors import MissingCredentials, NotRemembered
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.world import HOUR
from tests.conftest import Connect
from tests.support.calls import (
    EMPTY,
    IDLE,
    PAUSED,
    STATELESS,
    api_calls,
    arrival,
    call,
    until,
    update,
)
from tests.support.commands import run
from tests.support.http_server import http_process
from tests.support.outside import opened
from tests.support.watching import (
    is_state_of,
    kinds_of,
    now_text,
    only,
    service_in,
    sync,
    versions_of,
)


@pytest.mark.slow
async def test_the_state_at_any_instant_between_twenty_syncs_comes_back_exactly(
    sandbox: Sandbox, on_either: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 3)
    seen: list[tuple[str, Any]] = []
    async with service_in(on_either, monkeypatch) as service:
        for number in range(20):
            found = {"cursor": f"sync {number}", "count": 2**53 + number}
            sync(sandbox, "connection_0001", found)
            await service.operations.look()
            seen.append((now_text(), found))

        for moment, expected in seen:
            past = await service.history.at("connection_0001", moment)
            assert past.document == expected
        kinds = await kinds_of(service, "connection_0001")

    assert kinds == ["first look"] + ["sync"] * 19


async def test_only_states_that_syncs_have_moved_are_read(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = only(sandbox, 3)
    async with service_in(environment, monkeypatch) as service:
        await service.operations.look()
        begin = len(sandbox.log)
        sync(sandbox, second, {"cursor": "after"})
        sandbox.set_state(first, '{"cursor":"by hand"}')
        await service.operations.look()

        assert await versions_of(service, second) == [{"cursor": "1 before"}, {"cursor": "after"}]
        assert len(await versions_of(service, first)) == 1

    calls = [request.path for request in sandbox.log[begin:]][:2]
    assert calls == ["/v1/connections", f"/v1/connections/{second}/state"]


async def test_a_failed_sync_is_noticed_too(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [connection_id] = only(sandbox, 1)
    async with service_in(environment, monkeypatch) as service:
        await service.operations.look()
        sandbox.delete_connection(connection_id)
        sandbox.add_connection(
            connection_id, state='{"cursor":"half"}', failed_at=sandbox.world.now()
        )
        looked = await service.operations.look()

    assert looked["read"] == 1


@pytest.mark.slow
async def test_fifty_syncs_among_a_thousand_connections_cost_fifty_one_calls(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 1000)
    async with service_in(environment, monkeypatch) as service:
        await service.operations.look()
        synced = ids[::20]
        for connection_id in synced:
            sync(sandbox, connection_id, {"cursor": "after"})
        begin = len(sandbox.log)
        looked = await service.operations.look()
        calls = len(sandbox.log) - begin

    assert looked["read"] == len(synced) == 50
    assert calls <= 51


async def test_connections_that_cannot_be_read_are_logged_once_and_tried_again(
    sandbox: Sandbox,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    well, forbidden, broken, vanishing = only(sandbox, 4)
    sandbox.delete_connection(forbidden)
    sandbox.add_connection(forbidden, state="{}", forbidden=True)
    sandbox.fault("status", path=f"{broken}/state", status=503, times=8)
    sandbox.fault("status", path=f"{vanishing}/state", status=404, times=2)
    caplog.set_level(logging.WARNING, "fivetran_state.watch")
    async with service_in(environment, monkeypatch) as service:
        first = await service.operations.look()
        second = await service.operations.look()
        third = await service.operations.look()
        assert await versions_of(service, well) == [{"cursor": "0 before"}]
        assert await versions_of(service, broken) == [{"cursor": "2 before"}]

    assert first["troubles"] == second["troubles"]
    assert first["troubles"].keys() == {forbidden, broken, vanishing}
    assert first["troubles"][forbidden] == "forbidden"
    assert third["troubles"] == {forbidden: "forbidden"}
    assert [first["read"], second["read"], third["read"]] == [1, 0, 2]
    for connection_id in (forbidden, broken, vanishing):
        named = [each for each in caplog.messages if connection_id in each]
        assert len(named) == 1, named


async def test_services_without_a_state_and_states_that_do_not_exist_yet_are_no_trouble(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service_in(environment, monkeypatch) as service:
        looked = await service.operations.look()
        again = await service.operations.look()

    assert looked["troubles"] == {}
    assert not api_calls(sandbox, STATELESS)
    assert api_calls(sandbox, EMPTY) == ["GET state"]
    assert again["read"] == 0


async def test_a_used_up_limit_ends_the_look_and_the_next_one_goes_on(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 30)
    sandbox.fault("status", path="/state$", status=429, headers={"Retry-After": "3600"}, skip=4)
    async with service_in(environment, monkeypatch) as service:
        first = await service.operations.look()
        second = await service.operations.look()
        for number, connection_id in enumerate(ids):
            assert await versions_of(service, connection_id) == [{"cursor": f"{number} before"}]

    assert first["stopped_by"] is not None
    assert first["read"] < 20
    assert second["stopped_by"] is None
    assert first["read"] + second["read"] == 30


@pytest.mark.slow
async def test_with_a_hundred_calls_left_ninety_are_left_alone(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 200)
    sandbox.api.requests_per_hour = 1000
    async with service_in(environment, monkeypatch) as service:
        await service.connections.list_connections()
        while sandbox.world.admit(1000)[0] > 100:
            pass
        begin = len(sandbox.log)
        looked = await service.operations.look()
        again = await service.operations.look()
        calls = len(sandbox.log) - begin
        sandbox.advance(HOUR + 1)
        after = await service.operations.look()

    assert calls <= 10
    assert "left for updates" in str(looked["stopped_by"])
    assert again["stopped_by"] is not None
    assert looked["read"] + again["read"] + after["read"] == 200


@pytest.mark.slow
async def test_syncs_that_outnumber_the_calls_are_all_read_in_the_end(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 60)
    sandbox.api.requests_per_hour = 1000
    sandbox.fault("status", path=f"/{ids[0]}/state$", status=403)
    reads = []
    async with service_in(environment, monkeypatch) as service:
        for number in range(4):
            for connection_id in ids:
                sync(sandbox, connection_id, {"cursor": f"sync {number}"})
            while sandbox.world.admit(1000)[0] > 130:
                pass
            looked = await service.operations.look()
            reads.append(looked["read"])

    assert max(reads) < 40
    read = {each.path for each in sandbox.log if each.path.endswith("/state") and each.applied}
    assert len(read) == 60


async def test_a_list_that_fails_loses_nothing(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [connection_id] = only(sandbox, 1)
    async with service_in(environment, monkeypatch) as service:
        await service.operations.look()
        sync(sandbox, connection_id, {"cursor": "after"})
        sandbox.fault("status", path="/v1/connections$", status=500, times=4)
        failed = await service.operations.look()
        looked = await service.operations.look()
        assert len(await versions_of(service, connection_id)) == 2

    assert failed["stopped_by"] is not None
    assert looked["read"] == 1


async def test_only_allowed_connections_are_read(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": "bullion_*"}
    async with service_in(environment, monkeypatch, **allowed) as service:
        looked = await service.operations.look()
    assert looked["keeping"] == looked["read"] == 1
    assert not api_calls(sandbox, PAUSED)

    all_ = {"FIVETRAN_STATE_ALLOWED_CONNECTIONS": "*"}
    async with service_in(environment, monkeypatch, **all_) as service:
        looked = await service.operations.look()
    assert looked["read"] > 1


async def test_a_deleted_connections_history_stays_for_the_retention(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = only(sandbox, 2)
    async with service_in(environment, monkeypatch) as service:
        await service.operations.look()
        sandbox.delete_connection(first)
        await service.operations.look()
        assert await versions_of(service, first) == [{"cursor": "0 before"}]

    short = {"FIVETRAN_STATE_RETENTION_DAYS": "0.0000001"}
    async with service_in(environment, monkeypatch, **short) as service:
        await service.operations.look()
        with pytest.raises(NotRemembered):
            await service.history.at(first, now_text())
        assert await versions_of(service, second) == [{"cursor": "1 before"}]


async def test_a_connection_that_the_key_may_not_see_keeps_its_history(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, seen = only(sandbox, 2)
    async with service_in(environment, monkeypatch) as service:
        await service.operations.look()
    sandbox.add_key("system-key", "system-secret", connections={seen})
    narrow = {
        "FIVETRAN_API_KEY": "system-key",
        "FIVETRAN_API_SECRET": "system-secret",
        "FIVETRAN_STATE_RETENTION_DAYS": "0.0000001",
    }
    async with service_in(environment, monkeypatch, **narrow) as service:
        for _ in range(3):
            await service.operations.look()
        assert await versions_of(service, hidden) == [{"cursor": "0 before"}]

    assert api_calls(sandbox, hidden).count("GET") == 1


async def test_looks_leave_two_rows_in_the_database(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(sandbox, 1)
    async with service_in(environment, monkeypatch) as service:
        for _ in range(5):
            await service.operations.look()
        launched = await service._engine.up()
        rows = await launched.storage.reader.find(name="look")

    assert len(rows) == 2


async def test_a_server_that_watches_says_what_it_costs_and_looks(
    connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fivetran_state.watch")
    async with connect(FIVETRAN_STATE_WATCH_INTERVAL="0.5") as client:
        await arrival(sandbox, lambda request: is_state_of(IDLE, request))

        async def first_look() -> list[str] | None:
            return await kinds(client) or None

        assert await until(first_look) == ["first look"]
        sync(sandbox, IDLE, {"cursor": "after"})

        async def another_look() -> list[str] | None:
            found = await kinds(client)
            return found if len(found) > 1 else None

        assert await until(another_look) == ["sync", "first look"]

    cost = next(each for each in caplog.messages if "It costs" in each)
    assert cost.startswith("Watching 11 connections that keep a state, every 0.5 s. It costs 7200")
    assert "of the account's 20000" in cost


async def kinds(client: Client) -> list[str]:
    history = await call(client, "state_history", connection_id=IDLE)
    return [each["kind"] for each in history["entries"]]


async def test_an_update_does_not_wait_for_the_watcher(connect: Connect, sandbox: Sandbox) -> None:
    look = sandbox.fault("hang", path=f"{PAUSED}/state")
    async with connect(FIVETRAN_STATE_WATCH_INTERVAL="900") as client:
        await arrival(sandbox, lambda request: request.fault == "hang")
        done = await update(client, IDLE, merge_patch={"cursor": "2020"})
        look.release()

    assert done["status"] == "updated"


async def test_a_server_that_stops_hands_nothing_over_for_a_look(
    connect: Connect, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.fault("hang", path=f"{PAUSED}/state")
    async with connect(FIVETRAN_STATE_WATCH_INTERVAL="900"):
        await arrival(sandbox, lambda request: request.fault == "hang")

    assert not [each for each in caplog.messages if "Handed" in each]


async def test_the_next_process_goes_on_with_a_look_that_was_broken_off(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 30)
    sandbox.fault("hang", path=f"{ids[25]}/state")
    async with service_in(environment, monkeypatch) as service:
        looking = asyncio.create_task(service.operations.look())
        await arrival(sandbox, lambda request: request.fault == "hang")
        looking.cancel()
    async with service_in(environment, monkeypatch) as service:
        looked = await service.operations.look()
        for number, connection_id in enumerate(ids):
            assert await versions_of(service, connection_id) == [{"cursor": f"{number} before"}]

    assert looked["read"] == 30
    assert api_calls(sandbox, ids[0]) == ["GET state"]


@pytest.mark.slow
async def test_a_forged_end_of_a_look_costs_calls_and_hides_nothing(
    sandbox: Sandbox,
    on_both: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = only(sandbox, 3)
    async with service_in(on_both, monkeypatch) as service:
        await service.operations.look()
        await service.operations.look()
        sync(sandbox, ids[0], {"cursor": "after"})
        with opened(on_both) as database:
            table = "workflow_output"
            if database.dialect.name == "postgresql":
                table = f"dbos.{table}"
            looks = sa.text(f"SELECT workflow_uuid FROM {table} WHERE workflow_uuid LIKE 'watch%'")
            first, second = sorted(database.scalars(looks))
            database.execute(
                sa.text(
                    f"UPDATE {table} SET output = (SELECT output FROM {table} "
                    "WHERE workflow_uuid = :first) WHERE workflow_uuid = :second"
                ),
                {"first": first, "second": second},
            )

        looked = await service.operations.look()

        assert await versions_of(service, ids[0]) == [{"cursor": "0 before"}, {"cursor": "after"}]
    assert looked["read"] == 3
    assert "Every state is read again" in caplog.text


@pytest.mark.slow
async def test_a_list_of_several_pages_is_read_to_its_end(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = only(sandbox, 3)
    for number in range(2000):
        sandbox.add_connection(f"b{number:04}", service="google_ads", state=None)
    async with service_in(environment, monkeypatch) as service:
        first = await service.operations.look()
        sync(sandbox, ids[-1], {"cursor": "after"})
        begin = len(sandbox.log)
        second = await service.operations.look()

    assert (first["keeping"], first["read"]) == (3, 3)
    assert (second["keeping"], second["read"]) == (3, 1)
    assert len(sandbox.log) - begin == 3 + 1


@pytest.mark.slow
async def test_an_http_server_watches_unless_it_is_told_not_to(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    only(sandbox, 1)
    del environment["FIVETRAN_STATE_WATCH_INTERVAL"]

    async with http_process(environment, tmp_path):
        await arrival(sandbox, lambda request: is_state_of("connection_0000", request))


async def test_a_server_without_an_account_of_its_own_cannot_look(
    fivetran_url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {"FIVETRAN_API_KEY": "", "FIVETRAN_API_SECRET": ""}
    async with service_in(environment, monkeypatch, **without) as service:
        with pytest.raises(MissingCredentials):
            await service.operations.look()


async def test_a_look_does_not_store_states_in_its_own_rows(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    [connection_id] = only(sandbox, 1)
    sandbox.set_state(connection_id, json.dumps({"cursor": "very secret"}))
    async with service_in(environment, monkeypatch) as service:
        await service.operations.look()
        launched = await service._engine.up()
        (row,) = await launched.storage.reader.find(name="look", load_output=True)
        steps = await launched.storage.reader.steps(row.workflow_id)

    assert [each["function_name"] for each in steps] == ["list", "read", "forget"]
    assert "very secret" not in repr((row.output, steps))


async def test_the_command_looks_once_and_says_what_it_did(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    only(sandbox, 3)

    looked = await to_thread.run_sync(run, environment, tmp_path, "watch", "--once")
    sandbox.fault("status", path="/v1/connections$", status=401, times=9)
    refused = await to_thread.run_sync(run, environment, tmp_path, "watch", "--once")

    assert looked.returncode == 0, looked.stderr
    assert "3 of 3 connections. It takes 3 more calls at most of the" in looked.stderr
    assert looked.stdout == "3 connections keep a state. 3 states were read, and 0 could not be.\n"
    assert refused.returncode == 1
    assert "The look ended early: unauthorized" in refused.stderr
