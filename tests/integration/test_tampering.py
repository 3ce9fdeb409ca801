"""Somebody has moved values to another place of the database: the server trusts none of them."""

from typing import Any

import pytest
import sqlalchemy as sa
from mcp import Client

from fivetran_state import vault
from fivetran_state.config import Settings
from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import IDLE, arrival, call, end_of, refused, state_of, until, version_of
from tests.support.outside import opened

OTHER = "bold_heron"


@pytest.fixture
def sandbox(sandbox: Sandbox) -> Sandbox:
    """A sandbox with another connection that is not paused and does not sync."""
    sandbox.add_connection(OTHER, state='{"cursor":"2019"}')
    return sandbox


async def two_updates(client: Client) -> tuple[str, str]:
    """The ids of updates of two connections."""
    ids = [
        await update_once(client, connection_id, {"cursor": "2020"})
        for connection_id in (IDLE, OTHER)
    ]
    return ids[0], ids[1]


async def update_once(client: Client, connection_id: str, patch: dict[str, Any]) -> str:
    version = await version_of(client, connection_id)
    done = await call(
        client,
        "update_state",
        connection_id=connection_id,
        merge_patch=patch,
        expected_version=version,
    )
    return str(done["workflow_id"])


def run(environment: dict[str, str], *statements: str, **values: str) -> None:
    with opened(environment) as database:
        if database.dialect.name == "postgresql":
            database.execute(sa.text("SET search_path TO dbos"))
        for statement in statements:
            database.execute(sa.text(statement), values)


AS_IF_ITS_SERVER_HAD_DIED = (
    "UPDATE workflow_status SET status = 'PENDING', executor_id = 'dead' "
    "WHERE workflow_uuid = :mine"
)


def take_over(table: str, column: str, where: str = "") -> str:
    """Replaces my value with the other update's value."""
    return (
        f"UPDATE {table} SET {column} = (SELECT theirs.{column} FROM {table} AS theirs "
        f"WHERE theirs.workflow_uuid = :theirs {where}) WHERE workflow_uuid = :mine {where}"
    )


@pytest.mark.parametrize(
    ("table", "column"), [("workflow_input", "inputs"), ("workflow_output", "output")]
)
async def test_another_updates_value_is_not_shown(
    connect: Connect, on_both: dict[str, str], table: str, column: str
) -> None:
    async with connect(**on_both) as client:
        mine, theirs = await two_updates(client)
        run(on_both, take_over(table, column), mine=mine, theirs=theirs)
        error = await refused(client, "workflow_status", workflow_id=mine)

    assert error["code"] == "tampered"
    assert mine in error["message"]


async def test_another_updates_error_is_not_shown(
    connect: Connect, sandbox: Sandbox, on_both: dict[str, str]
) -> None:
    async with connect(**on_both) as client:
        ids = []
        for connection_id in (IDLE, OTHER):
            sandbox.fault("status", method="PATCH", path=f"/{connection_id}$", status=400)
            version = await version_of(client, connection_id)
            change = {"merge_patch": {"a": 1}, "expected_version": version}
            failed = await refused(client, "update_state", connection_id=connection_id, **change)
            ids.append(failed["workflow_id"])
        run(on_both, take_over("workflow_output", "error"), mine=ids[0], theirs=ids[1])
        error = await refused(client, "workflow_status", workflow_id=ids[0])

    assert error["code"] == "tampered"


async def test_another_connections_state_is_not_put_back(
    connect: Connect, sandbox: Sandbox, on_both: dict[str, str]
) -> None:
    async with connect(**on_both) as client:
        mine, theirs = await two_updates(client)
        before = state_of(sandbox, IDLE)
        where = "AND function_name = 'inspect'"
        run(on_both, take_over("operation_outputs", "output", where), mine=mine, theirs=theirs)
        error = await refused(client, "update_state", connection_id=IDLE, restore_from=mine)

    assert error["code"] == "tampered"
    assert state_of(sandbox, IDLE) == before


async def test_another_updates_progress_is_not_shown(
    connect: Connect, sandbox: Sandbox, on_both: dict[str, str]
) -> None:
    async with connect(**on_both) as client:
        theirs = await update_once(client, OTHER, {"cursor": "2020"})
        version = await version_of(client, IDLE)
        hold = sandbox.fault("hang", method="GET", path=f"/{IDLE}/state$", skip=2)
        started = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"a": 1},
            expected_version=version,
            wait_seconds=0,
        )
        mine = started["workflow_id"]
        await arrival(sandbox, lambda each: each.fault == "hang")
        run(on_both, take_over("workflow_events", "value"), mine=mine, theirs=theirs)
        error = await refused(client, "workflow_status", workflow_id=mine)
        hold.release()
        await ended_in_database(on_both, mine)

    assert error["code"] == "tampered"


@pytest.mark.parametrize("step", ["inspect", "pause", "snapshot", "write", "verify"])
async def test_another_updates_step_is_not_gone_on_with(
    connect: Connect, sandbox: Sandbox, on_both: dict[str, str], step: str
) -> None:
    async with connect(**on_both) as client:
        mine, theirs = await two_updates(client)
    before = state_of(sandbox, IDLE)
    where = f"AND function_name = '{step}'"
    run(
        on_both,
        take_over("operation_outputs", "output", where),
        "DELETE FROM workflow_output WHERE workflow_uuid = :mine",
        AS_IF_ITS_SERVER_HAD_DIED,
        mine=mine,
        theirs=theirs,
    )
    writes = writes_of(sandbox)
    async with connect(**on_both) as client:
        status = await end_of(client, mine)

    assert (status["status"], status["error"]["code"]) == ("failed", "tampered")
    assert writes_of(sandbox) == writes
    assert state_of(sandbox, IDLE) == before
    assert not sandbox.connection(IDLE).paused


@pytest.mark.slow
@pytest.mark.parametrize("name", ["update_state", "together"])
async def test_an_old_request_in_a_new_row_is_not_carried_out(
    connect: Connect, sandbox: Sandbox, on_both: dict[str, str], name: str
) -> None:
    async with connect(**on_both) as client:
        mine = await update_once(client, IDLE, {"cursor": "2020"})
        await update_once(client, IDLE, {"cursor": "2021"})
    theirs = f"{IDLE}:3" if name == "update_state" else f"together:{32 * '1'}"
    before, writes = state_of(sandbox, IDLE), writes_of(sandbox)
    forge(on_both, mine, theirs, name)

    async with connect(**on_both) as client:
        await ended_in_database(on_both, theirs)
        error = await refused(client, "workflow_status", workflow_id=f"{IDLE}:3")
        await update_once(client, IDLE, {"cursor": "2022"})

    assert error["code"] == ("tampered" if name == "update_state" else "workflow_not_found")
    assert state_of(sandbox, IDLE) == before | {"cursor": "2022"}
    assert writes_of(sandbox) == writes + 1


async def test_a_request_of_an_earlier_day_is_not_carried_out(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str]
) -> None:
    async with connect() as client:
        mine = await update_once(client, IDLE, {"cursor": "2020"})
    with opened(environment) as database:
        application, text = database.execute(
            sa.text(
                "SELECT application_name, workflow_input.inputs FROM workflow_status "
                "JOIN workflow_input USING (workflow_uuid) WHERE workflow_uuid = :mine"
            ),
            {"mine": mine},
        ).one()
    sealer = vault.SealingSerializer(vault.keys(Settings()), application)
    inputs = sealer.deserialize(text)
    inputs["args"][0].value["asked_at"] -= 25 * 3600
    run(
        environment,
        "UPDATE workflow_input SET inputs = :inputs WHERE workflow_uuid = :mine",
        "DELETE FROM workflow_output WHERE workflow_uuid = :mine",
        "DELETE FROM operation_outputs WHERE workflow_uuid = :mine",
        AS_IF_ITS_SERVER_HAD_DIED,
        mine=mine,
        inputs=sealer.serialize(inputs),
    )
    writes = writes_of(sandbox)
    async with connect() as client:
        status = await end_of(client, mine)

    assert status["status"] == "cancelled"
    assert writes_of(sandbox) == writes


def writes_of(sandbox: Sandbox) -> int:
    return len(
        [each for each in sandbox.log if each.method == "PATCH" and each.path.endswith("/state")]
    )


def forge(environment: dict[str, str], mine: str, theirs: str, name: str) -> None:
    """Adds a row of a dead process, with the input of an old row."""
    with opened(environment) as database:
        if database.dialect.name == "postgresql":
            database.execute(sa.text("SET search_path TO dbos"))
        changed = {
            "workflow_uuid": ":theirs",
            "name": ":name",
            "status": "'PENDING'",
            "executor_id": "'dead'",
            "owner_xid": "NULL",
            "completed_at": "NULL",
        }
        for table in ("workflow_status", "workflow_input"):
            names = [column["name"] for column in sa.inspect(database).get_columns(table)]
            values = ", ".join(changed.get(name, name) for name in names)
            database.execute(
                sa.text(
                    f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} "
                    "WHERE workflow_uuid = :mine"
                ),
                {"mine": mine, "theirs": theirs, "name": name},
            )


async def ended_in_database(environment: dict[str, str], workflow_id: str) -> str:
    async def look() -> str | None:
        with opened(environment) as database:
            schema = "" if database.dialect.name == "sqlite" else "dbos."
            status = database.scalar(
                sa.text(f"SELECT status FROM {schema}workflow_status WHERE workflow_uuid = :id"),
                {"id": workflow_id},
            )
        return None if status == "PENDING" else str(status)

    return await until(look)
