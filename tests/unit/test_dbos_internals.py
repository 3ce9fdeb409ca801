"""The parts of DBOS that `fivetran_state.dbos_internals` uses still exist, and still work.

If a new version of DBOS fails one of these tests, recovery needs another way before that version
can be used.
"""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import sqlalchemy as sa
from dbos import DBOS, DBOSClient, Serializer, SetWorkflowID, WorkflowStatus, WorkflowStatusString
from dbos._core import execute_dequeued_workflow
from dbos._dbos import _get_dbos_instance
from dbos._sys_db import SystemDatabase
from dbos._utils import GlobalParams, generate_uuid

from fivetran_state import dbos_internals, vault

PENDING = WorkflowStatusString.PENDING.value
CANCELLED = WorkflowStatusString.CANCELLED.value
OURS, THEIRS = "executor-1", "executor-2"
VERSION = "the-version"
WORKFLOW_ID = "one"

runs: list[str] = []
"""The ids of the workflows that have run."""
here: list[set[str]] = []
"""The workflows that ran here while each of them did."""
told: list[list[str]] = []
"""For each claim that succeeded, what had run by then."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SystemDatabase]:
    """The database of a DBOS that was launched in this process and has run one workflow."""
    DBOS(
        config={
            "name": "test-dbos-internals",
            "application_version": VERSION,
            "executor_id": OURS,
            "system_database_url": f"sqlite:///{tmp_path / 'state.db'}",
            # As in the program: another test may have removed DBOS's other formats.
            "serializer": cast(Serializer, vault.SealingSerializer([os.urandom(32)], "test")),
            "log_level": "WARNING",
        }
    )

    @DBOS.workflow(name="test_dbos_internals", max_recovery_attempts=None)
    def remember_run() -> None:
        runs.append(DBOS.workflow_id or "")
        here.append(dbos_internals.running_here())

    DBOS.launch()
    with SetWorkflowID(WORKFLOW_ID):
        remember_run()
    runs.clear()
    here.clear()
    told.clear()
    yield _get_dbos_instance()._sys_db
    DBOS.destroy(destroy_registry=True)


def left_by(database: SystemDatabase, executor_id: str, status: str = PENDING) -> None:
    """The workflow looks as if this executor had left it so."""
    row = database.tables.workflow_status
    values = {"executor_id": executor_id, "status": status, "output": None, "completed_at": None}
    with database.engine.begin() as connection:
        connection.execute(
            sa.update(row).where(row.c.workflow_uuid == WORKFLOW_ID).values(**values)
        )


def found() -> WorkflowStatus:
    status = DBOS.get_workflow_status(WORKFLOW_ID)
    assert status is not None
    return status


def claim(
    *, executor_id: str = THEIRS, status: str = PENDING, versions: tuple[str, ...] = (VERSION,)
) -> bool:
    return dbos_internals.claim(
        WORKFLOW_ID,
        executor_id=executor_id,
        status=status,
        versions=versions,
        before_it_runs=lambda: told.append(list(runs)),
    )


# The parts in use


def test_dbos_has_the_columns(database: SystemDatabase) -> None:
    used = {
        *("workflow_uuid", "status", "executor_id", "application_version", "owner_xid"),
        *("queue_name", "deduplication_id", "workflow_deadline_epoch_ms"),
        *("completed_at", "started_at_epoch_ms", "updated_at"),
    }

    assert used - {column.name for column in database.tables.workflow_status.c} == set()


def test_dbos_records_steps_in_these_columns(database: SystemDatabase) -> None:
    used = {"workflow_uuid", "function_id", "function_name", "completed_at_epoch_ms", "error"}

    assert used - {column.name for column in database.tables.operation_outputs.c} == set()


def test_dbos_runs_a_claimed_workflow() -> None:
    parameters = inspect.signature(execute_dequeued_workflow).parameters

    assert list(parameters) == ["dbos", "status", "owner_xid"]


def test_dbos_tells_its_instance(database: SystemDatabase) -> None:
    assert _get_dbos_instance()._sys_db is database


def test_dbos_reads_one_row(database: SystemDatabase) -> None:
    row = database.get_workflow_status(WORKFLOW_ID)

    assert row is not None
    assert (row["workflow_uuid"], row["executor_id"]) == (WORKFLOW_ID, OURS)
    assert database.get_workflow_status("another") is None


def test_dbos_tells_the_databases_time(database: SystemDatabase) -> None:
    with database.engine.begin() as connection:
        [milliseconds] = connection.execute(sa.select(database._now_ms_sql())).one()

    created_at = found().created_at
    assert created_at is not None
    assert int(milliseconds) >= created_at


def test_dbos_knows_its_executor_and_version(database: SystemDatabase) -> None:
    assert (GlobalParams.executor_id, GlobalParams.app_version) == (OURS, VERSION)


def test_dbos_makes_unique_ids() -> None:
    assert generate_uuid() != generate_uuid()


# Their behaviour


def test_a_claimed_workflow_is_run(database: SystemDatabase) -> None:
    left_by(database, THEIRS)

    assert claim()
    DBOS.retrieve_workflow(WORKFLOW_ID).get_result()

    assert runs == [WORKFLOW_ID]
    assert (found().executor_id, found().status) == (OURS, "SUCCESS")


def test_it_is_known_which_workflows_run_here(database: SystemDatabase) -> None:
    assert dbos_internals.running_here() == set()
    left_by(database, THEIRS)

    assert claim()
    DBOS.retrieve_workflow(WORKFLOW_ID).get_result()

    assert here == [{WORKFLOW_ID}]


def test_of_two_claims_one_wins(database: SystemDatabase) -> None:
    left_by(database, THEIRS)

    assert [claim(), claim()] == [True, False]
    DBOS.retrieve_workflow(WORKFLOW_ID).get_result()

    assert runs == [WORKFLOW_ID]
    assert told == [[]]


def test_one_that_was_cancelled_is_run(database: SystemDatabase) -> None:
    left_by(database, THEIRS, CANCELLED)

    assert claim(status=CANCELLED)
    DBOS.retrieve_workflow(WORKFLOW_ID).get_result()

    assert (found().executor_id, found().status) == (OURS, "SUCCESS")


@pytest.mark.parametrize(
    "other", [{"status": CANCELLED}, {"versions": ("another",)}, {"executor_id": "executor-3"}]
)
def test_another_row_is_not_taken(database: SystemDatabase, other: dict[str, str]) -> None:
    left_by(database, THEIRS)

    assert not claim(**other)  # type: ignore[arg-type]

    assert runs == []
    assert (found().executor_id, found().status) == (THEIRS, PENDING)


def test_an_unknown_workflow_is_not_taken(database: SystemDatabase) -> None:
    assert not dbos_internals.claim(
        "another",
        executor_id=THEIRS,
        status=PENDING,
        versions=[VERSION],
        before_it_runs=lambda: None,
    )


def test_a_released_workflow_is_nobodys(database: SystemDatabase) -> None:
    left_by(database, OURS)

    dbos_internals.release(WORKFLOW_ID, "released")

    assert (found().executor_id, found().status) == ("released", PENDING)
    assert claim(executor_id="released")
    DBOS.retrieve_workflow(WORKFLOW_ID).get_result()


@pytest.mark.parametrize(("executor_id", "status"), [(THEIRS, PENDING), (OURS, "SUCCESS")])
def test_only_our_own_is_released(database: SystemDatabase, executor_id: str, status: str) -> None:
    left_by(database, executor_id, status)

    dbos_internals.release(WORKFLOW_ID, "released")

    assert found().executor_id == executor_id


def test_the_input_of_an_ended_workflow_is_replaced_and_its_attribute_dropped(
    database: SystemDatabase,
) -> None:
    name = "test_dbos_internals"
    row = database.tables.workflow_status
    with database.engine.begin() as connection:
        connection.execute(sa.update(row).values(attributes={"guest": True, "other": 1}))

    def found(*versions: str) -> list[str]:
        return dbos_internals.ended((name,), attribute="guest", or_versions=versions, after=0)

    assert found() == [WORKFLOW_ID]
    dbos_internals.replace_input(WORKFLOW_ID, ("another",), drop_attribute="guest")
    status = database.get_workflow_status(WORKFLOW_ID)
    assert (found(), found(VERSION)) == ([], [WORKFLOW_ID])
    assert status is not None
    assert status["attributes"] == {"other": 1}
    (listed,) = database.list_workflows(workflow_ids=[WORKFLOW_ID])
    assert listed.input is not None
    assert tuple(listed.input["args"]) == ("another",)

    left_by(database, THEIRS)
    dbos_internals.replace_input(WORKFLOW_ID, ("a third",), drop_attribute="other")
    (listed,) = database.list_workflows(workflow_ids=[WORKFLOW_ID])
    assert listed.input is not None
    assert tuple(listed.input["args"]) == ("another",)


def test_schema_is_none_on_sqlite(database: SystemDatabase, tmp_path: Path) -> None:
    client = DBOSClient(system_database_url=f"sqlite:///{tmp_path / 'state.db'}")
    try:
        assert dbos_internals.schema(client) is None
    finally:
        client.destroy()
