"""This version takes over the databases of earlier ones; `tests/recorded/record.py` recorded them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
import sqlalchemy as sa
from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect, Serve
from tests.recorded.record import IDEMPOTENCY_KEY, ON_POSTGRES, SITUATIONS
from tests.recorded.recording import (
    KEY_FILE,
    POSTGRES,
    RECORDED,
    SCENARIO,
    Scenario,
    load,
    restore_postgres,
    restore_sqlite,
)
from tests.support.accounts import Accounts
from tests.support.calls import (
    API_KEY,
    API_SECRET,
    Watch,
    call,
    refused,
    until,
    updates_in,
    version_of,
)
from tests.support.outside import opened
from tests.support.postgres import Postgres
from tests.support.processes import ended
from tests.support.rest import ANY, get, post

SCENARIOS = {path.parent: load(path.parent) for path in RECORDED.glob(f"*/*/{SCENARIO}")}
ALWAYS_TESTED = {"draining", "history"}

IN_FLIGHT = {
    path: scenario
    for path, scenario in SCENARIOS.items()
    if scenario.updates and not scenario.group and not scenario.guest
}
GROUPS = {path: scenario for path, scenario in SCENARIOS.items() if scenario.group}
GUESTS = {path: scenario for path, scenario in SCENARIOS.items() if scenario.guest}
STOPPED = {path: scenario for path, scenario in SCENARIOS.items() if scenario.from_outside}
HISTORIES = {path: scenario for path, scenario in SCENARIOS.items() if scenario.told}


def each(recordings: Iterable[Path]) -> list[Any]:
    return [
        pytest.param(
            path,
            id=f"{path.parent.name}-{path.name}",
            marks=() if path.name in ALWAYS_TESTED else pytest.mark.slow,
        )
        for path in sorted(recordings)
    ]


class Restored:
    """A recording: the restored database, and the connections as the killed server left them."""

    def __init__(self, scenario: Scenario, account: Accounts, environment: dict[str, str]) -> None:
        self.scenario = scenario
        self.environment = environment
        self.sandbox: Sandbox = account
        account.api.account_id = scenario.account_id
        if scenario.guest is not None:
            guest = scenario.guest
            self.sandbox = Sandbox(api_key=guest.api_key, api_secret=guest.api_secret, seed=False)
            self.sandbox.api.account_id = guest.account_id
            account.add(guest.api_key, guest.api_secret, self.sandbox)
        for name, left in scenario.connections.items():
            self.sandbox.add_connection(name, state=left.state, paused=left.paused)
        self._watches = {name: Watch(self.sandbox, name) for name in scenario.connections}

    def assert_completed_once(self) -> None:
        """Each connection has the state of its update, and is paused only if it was paused before."""
        for name, expected in self.scenario.connections.items():
            watch = self._watches[name]
            watch.was_paused = expected.was_paused
            watch.ended_with(json.loads(expected.wanted))
            found = self.sandbox.connection(name).state
            assert found is not None
            assert exactly(found) == exactly(expected.wanted)
            writes = watch.requests("PATCH", state=True)
            assert len(writes) == (exactly(expected.state) != exactly(expected.wanted))


def exactly(text: str) -> Any:
    """The state, with decimals as they are spelt."""
    return json.loads(text, parse_float=str)


@pytest.fixture
def sandbox() -> Iterator[Accounts]:
    """The server's own account; tests may add a guest's account."""
    sandbox = Accounts(api_key=API_KEY, api_secret=API_SECRET, seed=False)
    yield sandbox
    sandbox.close()


@pytest.fixture
def restored(
    recording: Path,
    sandbox: Accounts,
    environment: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Restored:
    if (recording / POSTGRES).exists():
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.new_database()
        restore_postgres(recording, postgres, url)
        environment |= {
            "DBOS_SYSTEM_DATABASE_URL": url,
            "FIVETRAN_STATE_SECRET_KEY": (recording / KEY_FILE).read_text(),
        }
    else:
        restore_sqlite(recording, tmp_path / "data")
    return Restored(SCENARIOS[recording], sandbox, environment)


async def assert_repeated_requests_attach(client: Client, scenario: Scenario) -> None:
    for workflow_id, request in scenario.requests.items():
        answer = await call(client, "update_state", **request)
        assert answer["workflow_id"] == workflow_id


# Updates in flight


@pytest.mark.parametrize("recording", each(IN_FLIGHT))
async def test_an_update_is_completed_once(connect: Connect, restored: Restored) -> None:
    scenario = restored.scenario
    async with connect(**restored.environment) as client:
        for workflow_id, expected in scenario.updates.items():
            connection_id = workflow_id.partition(":")[0]
            status = await ended(client, workflow_id)
            assert status["status"] == expected, status
            assert status["was_paused"] is scenario.connections[connection_id].was_paused
            assert status["paused_by_update"] is False
            if expected == "updated":
                assert status["version_after"] == await version_of(client, connection_id)
        await assert_repeated_requests_attach(client, scenario)

    restored.assert_completed_once()


@pytest.mark.parametrize("recording", each(GROUPS))
async def test_a_group_is_completed_once(http: Serve, restored: Restored) -> None:
    scenario = restored.scenario
    async with http(**restored.environment) as server:
        status = await get(server.client, f"/workflows/{scenario.group}", wait=50)
        for body in scenario.requests.values():
            path = "/state/update-multiple"
            again = await post(server.client, path, ANY | body, Idempotency_Key=IDEMPOTENCY_KEY)

    assert status["status"] == "updated", status
    updates = {update["workflow_id"]: update["status"] for update in status["updates"]}
    assert updates == scenario.updates
    assert [update["workflow_id"] for update in again.values()] == list(updates)
    restored.assert_completed_once()


@pytest.mark.parametrize("recording", each(GUESTS))
async def test_a_guests_update_is_completed_once(http: Serve, restored: Restored) -> None:
    guest = restored.scenario.guest
    assert guest is not None
    headers = {"Fivetran-Api-Key": guest.api_key, "Fivetran-Api-Secret": guest.api_secret}
    async with http(**restored.environment) as server:
        for workflow_id, expected in restored.scenario.updates.items():
            path = f"/workflows/{workflow_id}"
            answer = await server.client.get(path, params={"wait": 50}, headers=headers)
            assert answer.json()["status"] == expected, answer.text
        for workflow_id, body in restored.scenario.requests.items():
            again = await post(server.client, "/state/update", ANY | body)
            assert again["workflow_id"] == workflow_id

    restored.assert_completed_once()


@pytest.mark.parametrize("recording", each(STOPPED))
async def test_one_stopped_by_dbos_is_resumed(connect: Connect, restored: Restored) -> None:
    workflow_id = restored.scenario.from_outside
    assert workflow_id is not None

    def wait_for_the_resume() -> None:
        restored.sandbox.wait_for(lambda request: request.method == "PATCH" and request.applied, 60)

    async with connect(**restored.environment) as client:
        await anyio.to_thread.run_sync(wait_for_the_resume)
        status = await ended(client, workflow_id)

    assert status["status"] in ("cancelled", "failed"), status
    assert status["paused_by_update"] is False
    restored.assert_completed_once()


# What has ended

AS_IT_WAS_TOLD = (
    "status",
    "version_before",
    "version_after",
    "changes",
    "changes_total",
    "was_paused",
    "steps",
    "reason",
    "started_at",
    "ended_at",
)


def facts(status: dict[str, Any]) -> dict[str, Any]:
    """The facts that later versions must report the same; they may improve messages and hints."""
    told = {name: status[name] for name in AS_IT_WAS_TOLD if name in status}
    return told | {"error": status.get("error", {}).get("code")}


@pytest.mark.parametrize("recording", each(HISTORIES))
async def test_history_reads_as_it_was(connect: Connect, restored: Restored) -> None:
    scenario = restored.scenario
    [connection_id] = scenario.connections
    async with connect(**restored.environment) as client:
        listed = await call(client, "state_history", connection_id=connection_id)
        statuses = {
            workflow_id: await call(client, "workflow_status", workflow_id=workflow_id)
            for workflow_id in scenario.told
        }
        await assert_repeated_requests_attach(client, scenario)

    assert len(updates_in(listed)) == len(scenario.listed)
    for found, expected in zip(updates_in(listed), scenario.listed, strict=True):
        kept = expected.keys() - {"started_at", "version_before", "version_after"}
        assert {name: found[name] for name in kept} == {name: expected[name] for name in kept}
    for workflow_id, status in statuses.items():
        assert facts(status) == facts(scenario.told[workflow_id])
        assert status["paused_by_update"] is False
    restored.assert_completed_once()


@pytest.mark.parametrize("recording", each(HISTORIES))
async def test_old_updates_are_undone(connect: Connect, restored: Restored) -> None:
    sandbox, scenario = restored.sandbox, restored.scenario
    [connection_id] = scenario.connections
    async with connect(**restored.environment) as client:
        for workflow_id, before in scenario.before.items():
            undo = await call(
                client,
                "update_state",
                connection_id=connection_id,
                restore_from=workflow_id,
                expected_version=await version_of(client, connection_id),
                wait_seconds=50,
            )
            assert undo["status"] == "updated", undo
            assert exactly(sandbox.connection(connection_id).state or "") == exactly(before)


def test_every_situation_is_recorded() -> None:
    assert {path.name for path in SCENARIOS} >= {*SITUATIONS, *ON_POSTGRES}


# Values that 0.1 sealed have no place: they are sealed again, and then the old ones are refused


@pytest.mark.parametrize("recording", each(HISTORIES))
async def test_a_value_of_0_1_is_accepted_once(connect: Connect, restored: Restored) -> None:
    workflow_id = next(iter(restored.scenario.told))
    old = values_of(restored.environment, workflow_id)
    async with connect(**restored.environment) as client:
        await call(client, "workflow_status", workflow_id=workflow_id)
        await until_closed(restored.environment)
        put_back(restored.environment, workflow_id, old)
        error = await refused(client, "workflow_status", workflow_id=workflow_id)

    assert error["code"] == "unusable_key"


@pytest.mark.parametrize("recording", each([RECORDED / "0.1.0" / "history"]))
async def test_a_value_that_cannot_be_opened_keeps_no_other_waiting(
    connect: Connect, restored: Restored
) -> None:
    spoilt, other, *_ = restored.scenario.told
    put_back(restored.environment, spoilt, ("fivetran_state_sealed_v1", "no seal"))
    async with connect(**restored.environment) as client:
        told = await call(client, "workflow_status", workflow_id=other)
        error = await refused(client, "workflow_status", workflow_id=spoilt)

    assert told["workflow_id"] == other
    assert error["code"] == "unusable_key"


@pytest.mark.parametrize("recording", each(GUESTS))
async def test_a_database_is_closed_when_all_has_ended(http: Serve, restored: Restored) -> None:
    async with http(**restored.environment):
        await until_closed(restored.environment)

    restored.assert_completed_once()


@pytest.mark.parametrize("recording", each([RECORDED / "0.1.0" / "history"]))
async def test_an_older_copy_of_a_closed_database_is_refused(
    connect: Connect, restored: Restored, recording: Path, tmp_path: Path
) -> None:
    connection_id = next(iter(restored.scenario.connections))
    for _ in range(2):  # The first server may end before it has recorded its work.
        async with connect(**restored.environment) as client:
            await version_of(client, connection_id)
            await until_closed(restored.environment)
    for file in (tmp_path / "data").glob("state.db*"):
        file.unlink()
    restore_sqlite(recording, tmp_path / "older")
    (tmp_path / "older" / "state.db").rename(tmp_path / "data" / "state.db")
    async with connect(**restored.environment) as client:
        error = await refused(client, "state_history", connection_id=connection_id)

    assert error["code"] == "unusable_key"


def values_of(environment: dict[str, str], workflow_id: str) -> tuple[str, str]:
    """How the workflow's values are sealed, and its input."""
    with opened(environment) as database:
        schema = "" if database.dialect.name == "sqlite" else "dbos."
        row = database.execute(
            sa.text(
                f"SELECT serialization, i.inputs FROM {schema}workflow_status "
                f"JOIN {schema}workflow_input AS i USING (workflow_uuid) WHERE workflow_uuid = :id"
            ),
            {"id": workflow_id},
        ).one()
    return row.serialization, row.inputs


def put_back(environment: dict[str, str], workflow_id: str, old: tuple[str, str]) -> None:
    with opened(environment) as database:
        schema = "" if database.dialect.name == "sqlite" else "dbos."
        for table, column, value in (
            ("workflow_status", "serialization", old[0]),
            ("workflow_input", "inputs", old[1]),
        ):
            database.execute(
                sa.text(f"UPDATE {schema}{table} SET {column} = :value WHERE workflow_uuid = :id"),
                {"value": value, "id": workflow_id},
            )


async def until_closed(environment: dict[str, str]) -> None:
    """Waits until the database has no value that 0.1 sealed."""

    async def look() -> bool | None:
        with opened(environment) as database:
            schema = "" if database.dialect.name == "sqlite" else "dbos."
            left = [
                database.scalar(
                    sa.text(f"SELECT count(*) FROM {schema}{table} WHERE serialization LIKE '%v1'")
                )
                for table in (
                    "workflow_status",
                    "operation_outputs",
                    "workflow_events",
                    "workflow_events_history",
                    "notifications",
                )
            ]
        return None if any(left) else True

    await until(look, seconds=60)
