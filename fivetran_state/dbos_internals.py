"""What this project uses of DBOS that DBOS does not publish, all in one place.

DBOS recovers only the workflows of its own executor id, and only through a queue that every
process polls. We recover the workflows of executors that have died, and we choose who runs them.
`tests/unit/test_dbos_internals.py` fails by name when a new version of DBOS takes something away.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

import sqlalchemy as sa
from dbos import DBOSClient, WorkflowHandleAsync, WorkflowStatusString
from dbos._context import get_local_dbos_context
from dbos._core import WorkflowHandleAsyncTask, execute_dequeued_workflow
from dbos._dbos import _get_dbos_instance
from dbos._migration import get_migration_versions, get_sqlite_migration_versions
from dbos._schemas import SCHEMA_PLACEHOLDER
from dbos._serialization import DBOSDefaultSerializer, DBOSPortableJSON, serialize_args
from dbos._utils import GlobalParams, generate_uuid

from fivetran_state.errors import UnusableKey

_PENDING = WorkflowStatusString.PENDING.value
_INDEXED = (
    (_PENDING,),
    (WorkflowStatusString.ENQUEUED.value, _PENDING),
    (WorkflowStatusString.DELAYED.value,),
    (
        WorkflowStatusString.ERROR.value,
        WorkflowStatusString.CANCELLED.value,
        WorkflowStatusString.MAX_RECOVERY_ATTEMPTS_EXCEEDED.value,
    ),
)
"""The statuses in each of DBOS's partial indexes. Others it does not index."""
_ENDED = (WorkflowStatusString.SUCCESS.value, WorkflowStatusString.ERROR.value)


def read_only_what_is_sealed() -> None:
    """Make DBOS open stored values only with the serializer that it is configured with.

    Each row says how it is to be read, and pickle is one of the ways: a row that somebody else has
    written could run code here. DBOS writes one value unsealed: the time until which a workflow sleeps.
    """
    DBOSDefaultSerializer.deserialize = _refuse  # type: ignore[method-assign]
    DBOSPortableJSON.deserialize = _only_a_number  # type: ignore[method-assign]


def _refuse(serialized_data: str) -> NoReturn:
    raise UnusableKey("A stored value was not sealed by this program, so it was not read.")


def _only_a_number(serialized_data: str) -> float:
    try:
        return float(serialized_data)
    except ValueError:
        _refuse(serialized_data)


def running_here() -> set[str]:
    """The ids of the workflows that run in this process, until DBOS has recorded their end."""
    return set(_get_dbos_instance()._active_workflows_set.activeList())


def was_started_here(handle: WorkflowHandleAsync[Any]) -> bool:
    """True for the handle that this process got when it started the workflow."""
    return isinstance(handle, WorkflowHandleAsyncTask)


def next_step_number() -> int:
    """The `function_id` that the workflow's next step will be recorded under."""
    context = get_local_dbos_context()
    assert context is not None, "within a workflow"
    return context.function_id + 1


def claim(
    workflow_id: str,
    *,
    executor_id: str | None,
    status: str,
    versions: Sequence[str],
    before_it_runs: Callable[[], None],
) -> bool:
    """Take the workflow over from this executor and run it here; False if somebody else was first.

    The row has to have this status and one of the application `versions`. It becomes this executor's
    in the same statement, so of several that claim it, one runs it.
    """
    dbos = _get_dbos_instance()
    database = dbos._sys_db
    row = database.tables.workflow_status
    owner_xid = generate_uuid()
    with database.engine.begin() as connection:
        claimed = connection.execute(
            sa.update(row)
            .where(row.c.workflow_uuid == workflow_id)
            .where(row.c.executor_id == executor_id)
            .where(row.c.status == status)
            .where(row.c.application_version.in_(versions))
            .values(
                status=_PENDING,
                executor_id=GlobalParams.executor_id,
                application_version=GlobalParams.app_version,
                owner_xid=owner_xid,
                queue_name=None,
                deduplication_id=None,
                workflow_deadline_epoch_ms=None,
                completed_at=None,
                started_at_epoch_ms=database._now_ms_sql(),
                updated_at=database._now_ms_sql(),
            )
        )
    if not claimed.rowcount:
        return False
    claimed_row = database.get_workflow_status(workflow_id)
    if claimed_row is None:
        return False
    before_it_runs()
    execute_dequeued_workflow(dbos, claimed_row, owner_xid)
    return True


def release(workflow_id: str, to: str) -> None:
    """Give a workflow that has stopped in this executor to the executor `to`."""
    database = _get_dbos_instance()._sys_db
    row = database.tables.workflow_status
    with database.engine.begin() as connection:
        connection.execute(
            sa.update(row)
            .where(row.c.workflow_uuid == workflow_id)
            .where(row.c.executor_id == GlobalParams.executor_id)
            .where(row.c.status == _PENDING)
            .values(executor_id=to, owner_xid=generate_uuid())
        )


def tables(reader: DBOSClient) -> tuple[sa.Engine, Any]:
    """The database's engine, and DBOS's tables as attributes."""
    return reader._sys_db.engine, reader._sys_db.tables


def schema(reader: DBOSClient) -> str | None:
    """The PostgreSQL schema of DBOS's tables; None on SQLite."""
    schemas = reader._sys_db.engine.get_execution_options()["schema_translate_map"]
    found: str | None = schemas[SCHEMA_PLACEHOLDER]
    return found


def is_migrated(reader: DBOSClient) -> bool:
    """True if DBOS's tables are those of this version of DBOS, or of a later one."""
    database = reader._sys_db
    if database.engine.dialect.name == "sqlite":
        # DBOS's own check takes the URI of a file for its path.
        current, needed = get_sqlite_migration_versions(database.engine)
    else:
        assert database.schema is not None, "on Postgres"
        current, needed = get_migration_versions(database.engine, database.schema, True)
    return current >= needed


def last_of_series(reader: DBOSClient, names: Collection[str]) -> sa.Select[tuple[str, str, int]]:
    """A query for application, series and last number of all workflows with ids `{series}:{number}`.

    It reads all workflows.
    """
    row = reader._sys_db.tables.workflow_status
    beginning = sa.func.rtrim(row.c.workflow_uuid, "0123456789")
    series = sa.func.substr(beginning, 1, sa.func.length(beginning) - 1)
    digits = sa.func.substr(row.c.workflow_uuid, sa.func.length(beginning) + 1)
    return (
        sa.select(row.c.application_name, series, sa.func.max(sa.cast(digits, sa.BigInteger)))
        .where(row.c.name.in_(names))
        .where(row.c.application_name.is_not(None))
        .where(beginning.like("_%:"))
        .where(sa.func.length(digits).between(1, 18))
        .group_by(row.c.application_name, series)
    )


def with_status(
    reader: DBOSClient, statuses: Collection[str]
) -> list[tuple[str, str, str | None, str, str | None]]:
    """This application's workflows with one of these statuses, in any order.

    Of each its id, name, executor, status and application version. DBOS's own list is in order of
    time, for which SQLite reads all workflows.
    """
    row = reader._sys_db.tables.workflow_status
    columns = row.c.workflow_uuid, row.c.name, row.c.executor_id, row.c.status
    version = row.c.application_version.label("version")
    query = sa.union_all(
        *(
            sa.select(*columns, version)
            .where(_of_index(row, status))
            .where(row.c.status == status)
            .where(_is_ours(reader, row))
            for status in statuses
        )
    )
    with reader._sys_db.engine.connect() as connection:
        return [
            (found.workflow_uuid, found.name, found.executor_id, found.status, found.version)
            for found in connection.execute(query)
        ]


def _of_index(row: Any, status: str) -> sa.ColumnElement[bool]:
    """The condition of the partial index that has this status, as DBOS wrote it.

    Only so do both databases know that the index serves.
    """
    indexed = next(each for each in _INDEXED if status in each)
    literals: list[sa.ColumnElement[str]] = [sa.literal_column(f"'{each}'") for each in indexed]
    condition: sa.ColumnElement[bool] = (
        row.c.status == literals[0] if len(literals) == 1 else row.c.status.in_(literals)
    )
    return condition


def completed_before(reader: DBOSClient, names: Collection[str], moment: int) -> list[str]:
    """The ids of this application's workflows with these names that had ended by then."""
    row = reader._sys_db.tables.workflow_status
    query = (
        sa.select(row.c.workflow_uuid)
        .where(row.c.completed_at <= moment)
        .where(row.c.name.in_(names))
        .where(_is_ours(reader, row))
    )
    with reader._sys_db.engine.connect() as connection:
        return list(connection.scalars(query))


def created_at(reader: DBOSClient, workflow_ids: Collection[str]) -> dict[str, int]:
    """When these workflows were started, as far as they are this application's."""
    row = reader._sys_db.tables.workflow_status
    query = (
        sa.select(row.c.workflow_uuid, row.c.created_at)
        .where(row.c.workflow_uuid.in_(workflow_ids))
        .where(_is_ours(reader, row))
    )
    with reader._sys_db.engine.connect() as connection:
        return {workflow_id: round(moment) for workflow_id, moment in connection.execute(query)}


def children(reader: DBOSClient, workflow_id: str) -> list[str]:
    """The ids of this application's workflows that this one has started, in any order."""
    row = reader._sys_db.tables.workflow_status
    query = (
        sa.select(row.c.workflow_uuid)
        .where(row.c.parent_workflow_id == workflow_id)
        .where(_is_ours(reader, row))
    )
    with reader._sys_db.engine.connect() as connection:
        return list(connection.scalars(query))


def with_hex_ids(reader: DBOSClient, beginning: str) -> dict[str, int]:
    """This application's workflows whose ids are this and hex digits, and when they were started.

    DBOS would search all workflows for a beginning. In every collation, `g` comes after the digits.
    """
    row = reader._sys_db.tables.workflow_status
    # Not in order of time: for that, the database would rather walk through all of them.
    query = (
        sa.select(row.c.workflow_uuid, row.c.created_at)
        .where(row.c.workflow_uuid >= beginning, row.c.workflow_uuid < f"{beginning}g")
        .where(_is_ours(reader, row))
    )
    with reader._sys_db.engine.connect() as connection:
        found = connection.execute(query)
        return {id_: round(moment) for id_, moment in found if id_.startswith(beginning)}


def steps_completed(
    reader: DBOSClient, names: Collection[str], workflow_ids: Collection[str]
) -> list[tuple[str, str, int, bool]]:
    """Workflow id, name, end and success of the recorded steps with these names, in their order."""
    step = reader._sys_db.tables.operation_outputs
    query = (
        sa.select(
            step.c.workflow_uuid,
            step.c.function_name,
            step.c.completed_at_epoch_ms,
            step.c.error.is_(None),
        )
        .where(step.c.workflow_uuid.in_(workflow_ids))
        .where(step.c.function_name.in_(names))
        .where(step.c.completed_at_epoch_ms.is_not(None))
        .order_by(step.c.workflow_uuid, step.c.function_id)
    )
    with reader._sys_db.engine.connect() as connection:
        return [(id_, name, end, bool(good)) for id_, name, end, good in connection.execute(query)]


def _is_ours(reader: DBOSClient, row: Any) -> sa.ColumnElement[bool]:
    # As in DBOS: what has no application belongs to every one.
    name = row.c.application_name
    return sa.or_(name == reader._sys_db.app_name, name.is_(None))


def ended(
    names: Sequence[str], *, attribute: str, or_versions: Sequence[str], after: int
) -> list[str]:
    """The ids of ended workflows with this attribute, or of one of these application versions.

    Only of those that ended after that moment, in milliseconds since 1970; 0 for all. DBOS cannot
    find attributes on SQLite.
    """
    database = _get_dbos_instance()._sys_db
    row = database.tables.workflow_status
    has_attribute = row.c.attributes[attribute].as_boolean().is_(sa.true())
    with database.engine.begin() as connection:
        found = connection.execute(
            sa.select(row.c.workflow_uuid)
            .where(row.c.completed_at > after if after else sa.true())
            .where(row.c.name.in_(names))
            .where(row.c.status.in_(_ENDED))
            .where(row.c.application_name == GlobalParams.app_name)
            .where(sa.or_(has_attribute, row.c.application_version.in_(or_versions)))
        )
        return [workflow_id for (workflow_id,) in found]


def replace_input(workflow_id: str, args: tuple[Any, ...], *, drop_attribute: str) -> None:
    """Store other arguments for a workflow that has ended.

    Its application version becomes this one's, so that `ended` passes it over from now on.
    """
    database = _get_dbos_instance()._sys_db
    row, input_row = database.tables.workflow_status, database.tables.workflow_input
    inputs, serialization = serialize_args(args, {}, None, database.serializer)
    with database.engine.begin() as connection:
        attributes = connection.execute(
            sa.select(row.c.attributes)
            .where(row.c.workflow_uuid == workflow_id)
            .where(row.c.status != _PENDING)
            .with_for_update()
        ).first()
        if attributes is None:
            return
        kept = {k: v for k, v in (attributes[0] or {}).items() if k != drop_attribute}
        moved = connection.execute(
            sa.update(input_row)
            .where(input_row.c.workflow_uuid == workflow_id)
            .values(inputs=inputs)
        )
        connection.execute(
            sa.update(row)
            .where(row.c.workflow_uuid == workflow_id)
            .values(
                attributes=kept,
                # Earlier versions of DBOS kept it in this table.
                inputs=None if moved.rowcount else inputs,
                serialization=serialization,
                application_version=GlobalParams.app_version,
            )
        )
