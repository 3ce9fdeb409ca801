"""Interference from outside of every server: revoke an update's key, end or delete its row."""

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from dbos import DBOSClient

from fivetran_state.sandbox import Sandbox
from tests.support.calls import API_KEY, API_SECRET

NEW_KEY = "key-made-later"


def replace_key(sandbox: Sandbox) -> None:
    """Revokes the account's key, and adds `NEW_KEY`."""
    sandbox.add_key(NEW_KEY, API_SECRET)
    sandbox.revoke_key(API_KEY)


@contextmanager
def dbos_client(environment: dict[str, str], sandbox: Sandbox) -> Iterator[DBOSClient]:
    """DBOS's own client for the servers' database, as `dbos workflow ...` uses it."""
    sqlite = f"sqlite:///{environment['FIVETRAN_STATE_DATA_DIR']}/state.db"
    client = DBOSClient(
        system_database_url=environment.get("DBOS_SYSTEM_DATABASE_URL", sqlite),
        application_name=f"fivetran-state-{sandbox.api.account_id}",
    )
    yield client
    client.destroy()


@contextmanager
def opened(environment: dict[str, str]) -> Iterator[sa.Connection]:
    url = environment.get("DBOS_SYSTEM_DATABASE_URL")
    if url is None:
        url = f"sqlite:///{environment['FIVETRAN_STATE_DATA_DIR']}/state.db"
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as database:
        yield database
    engine.dispose()


def end_in_database(environment: dict[str, str], sandbox: Sandbox, workflow_id: str) -> None:
    """`dbos workflow cancel`"""
    with dbos_client(environment, sandbox) as client:
        client.cancel_workflow(workflow_id)


def delete_in_database(environment: dict[str, str], sandbox: Sandbox, *workflow_ids: str) -> None:
    """Deletes the updates' rows, and all that they have recorded."""
    with dbos_client(environment, sandbox) as client:
        client.delete_workflows(list(workflow_ids))


def delete_after(environment: dict[str, str], sandbox: Sandbox, step: str) -> None:
    """Deletes the update's row when this step is recorded. It cannot be one of the first three
    steps."""
    delete = "DELETE FROM {} WHERE workflow_uuid = NEW.workflow_uuid;"
    with dbos_client(environment, sandbox) as client, client._sys_db.engine.begin() as database:
        if database.dialect.name == "sqlite":
            action = f"BEGIN {delete.format('workflow_status')} END"
            steps = "operation_outputs"
        else:
            body = f"BEGIN {delete.format('dbos.workflow_status')} RETURN NEW; END"
            database.exec_driver_sql(
                f"CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
            )
            action = "EXECUTE FUNCTION forget()"
            steps = "dbos.operation_outputs"
        database.exec_driver_sql(
            f"CREATE TRIGGER forgets AFTER INSERT ON {steps} FOR EACH ROW "
            f"WHEN (NEW.function_name = '{step}' AND NEW.function_id >= 3) {action}"
        )
