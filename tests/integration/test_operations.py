"""The operator's work: run the doctor, delete old updates, change the key."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from tests.conftest import Connect
from tests.support.calls import (
    IDLE,
    PAUSED,
    call,
    refused,
    until,
    version_of,
)
from tests.support.commands import doctor
from tests.support.postgres import KEY

OLD, NEW = "the-old-key-which-is-long-enough", "the-new-key-which-is-long-enough"


# The doctor


def verdicts(report: str) -> dict[str, str]:
    """Each check of the report → 'ok' or 'BAD'."""
    return {
        line.partition(" ")[2].strip().partition(":")[0]: line.partition(" ")[0]
        for line in report.splitlines()
    }


def test_the_doctor_finds_everything_well_in_the_sandbox(tmp_path: Path) -> None:
    report = doctor({"FIVETRAN_STATE_DATA_DIR": str(tmp_path / "data")}, tmp_path, "--sandbox")

    assert report.returncode == 0, report
    assert verdicts(report.stdout) == {
        "versions": "ok",
        "data directory": "ok",
        "database": "ok",
        "Fivetran": "ok",
        "key": "ok",
        "updates": "ok",
    }
    assert "fivetran-state 0" in report.stdout
    assert "12 connections, 11 of which keep a state" in report.stdout
    assert "state.db" in report.stdout
    assert "0 running" in report.stdout


# Retention


async def update(client: Client, connection_id: str, cursor: str, **more: Any) -> str:
    """Makes an update and waits for its end; its id."""
    updated = await call(
        client,
        "update_state",
        connection_id=connection_id,
        merge_patch={"cursor": cursor},
        expected_version=await version_of(client, connection_id),
        wait_seconds=50,
        **more,
    )
    assert updated["status"] == "updated"
    workflow_id: str = updated["workflow_id"]
    return workflow_id


@pytest.mark.slow
async def test_old_updates_are_forgotten_but_never_a_connections_latest_ten(
    connect: Connect,
) -> None:
    async with connect() as client:
        for number in range(1, 13):
            await update(client, IDLE, f"{number}", idempotency_key=f"key {number}")
        await update(client, PAUSED, "1")

    async with connect(FIVETRAN_STATE_RETENTION_DAYS="0.00001") as client:
        await version_of(client, IDLE)

        async def has_forgotten() -> bool:
            second = {"workflow_id": f"{IDLE}:2"}
            return (await client.call_tool("workflow_status", second)).is_error

        await until(has_forgotten)
        for forgotten in (1, 2):
            missing = await refused(client, "workflow_status", workflow_id=f"{IDLE}:{forgotten}")
            assert missing["code"] == "workflow_not_found"
        for kept in (*(f"{IDLE}:{number}" for number in range(3, 13)), f"{PAUSED}:1"):
            assert (await call(client, "workflow_status", workflow_id=kept))["status"] == "updated"

        # A deleted key counts as new; a key that was kept still belongs to its update.
        assert await update(client, IDLE, "2", idempotency_key="key 2") == f"{IDLE}:13"
        assert await update(client, PAUSED, "2") == f"{PAUSED}:2"
        reused = await refused(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "something else"},
            expected_version=await version_of(client, IDLE),
            idempotency_key="key 3",
        )
        assert reused["code"] == "idempotency_key_reused"
        assert reused["workflow_id"] == f"{IDLE}:3"


@pytest.mark.slow
async def test_nothing_is_forgotten_with_a_retention_of_zero(connect: Connect) -> None:
    async with connect() as client:
        for number in range(1, 13):
            await update(client, IDLE, f"{number}")

    async with connect(FIVETRAN_STATE_RETENTION_DAYS="0") as client:
        assert await update(client, IDLE, "once more") == f"{IDLE}:13"
        first = await call(client, "workflow_status", workflow_id=f"{IDLE}:1")
        assert first["status"] == "updated"


# The key


async def test_a_new_key_in_front_of_the_old_one_opens_what_the_old_one_sealed(
    connect: Connect,
) -> None:
    async with connect(**{KEY: OLD}) as client:
        first = await update(client, IDLE, "1")

    async with connect(**{KEY: NEW}) as client:
        error = await refused(client, "get_state", connection_id=IDLE)
        assert error["code"] == "unusable_key"
        assert KEY in error["hint"]

    async with connect(**{KEY: f"{NEW},{OLD}"}) as client:
        status = await call(client, "workflow_status", workflow_id=first)
        assert status["status"] == "updated"
        second = await update(client, IDLE, "2")

    # Values that were sealed with the new key need it, and earlier values still need the old key.
    async with connect(**{KEY: OLD}) as client:
        assert (await refused(client, "get_state", connection_id=IDLE))["code"] == "unusable_key"
    async with connect(**{KEY: f"{OLD},{NEW}"}) as client:
        for workflow_id in (first, second):
            status = await call(client, "workflow_status", workflow_id=workflow_id)
            assert status["status"] == "updated"


async def test_the_new_key_alone_does_not_make_a_riddle_of_what_the_old_one_sealed(
    connect: Connect,
) -> None:
    """The latest update is sealed with the new key, an earlier one with the old key."""
    async with connect(**{KEY: OLD}) as client:
        first = await update(client, IDLE, "1")
    async with connect(**{KEY: f"{NEW},{OLD}"}) as client:
        await update(client, IDLE, "2")

    async with connect(**{KEY: NEW}) as client:
        error = await refused(client, "workflow_status", workflow_id=first)

    assert error["code"] == "unusable_key"


async def test_a_key_that_is_set_later_leaves_what_the_key_file_sealed_readable(
    connect: Connect, tmp_path: Path
) -> None:
    async with connect() as client:
        first = await update(client, IDLE, "1")
    assert (tmp_path / "data" / "key").exists()

    async with connect(**{KEY: NEW}) as client:
        status = await call(client, "workflow_status", workflow_id=first)
        assert status["status"] == "updated"
        assert await update(client, IDLE, "2") == f"{IDLE}:2"


@pytest.mark.parametrize("setting", ["short", f"{NEW},short"])
async def test_a_key_that_is_too_short_is_the_tools_answer(connect: Connect, setting: str) -> None:
    async with connect(**{KEY: setting}) as client:
        error = await refused(client, "get_state", connection_id=IDLE)

    assert error["code"] == "unusable_key"
    assert "16 characters" in error["message"]


async def test_a_process_that_died_within_its_first_start_keeps_no_later_one_from_starting(
    connect: Connect, environment: dict[str, str]
) -> None:
    async with connect() as client:
        await version_of(client, IDLE)
    with sqlite3.connect(Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "state.db") as database:
        # Such a process leaves the row that checks the key unfinished.
        changed = database.execute(
            "UPDATE workflow_status SET status = 'PENDING', executor_id = 'dead', output = NULL"
            " WHERE workflow_uuid LIKE 'key:%'"
        )
    assert changed.rowcount == 1

    async with connect() as client:
        update = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2020"},
            expected_version=await version_of(client, IDLE),
        )
    assert update["status"] == "updated"
