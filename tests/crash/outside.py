"""What people do to an update from outside of every server: revoke its key, end or delete its row."""

from collections.abc import Iterator
from contextlib import contextmanager

from dbos import DBOSClient

from fivetran_state.sandbox import Sandbox
from tests.calls import API_KEY, API_SECRET

NEW_KEY = "key-made-later"


def replace_key(sandbox: Sandbox) -> None:
    """The account's key is revoked, and there is `NEW_KEY`."""
    sandbox.add_key(NEW_KEY, API_SECRET)
    sandbox.revoke_key(API_KEY)


@contextmanager
def dbos_client(environment: dict[str, str], sandbox: Sandbox) -> Iterator[DBOSClient]:
    """DBOS's own client of the servers' database, as `dbos workflow ...` has it."""
    sqlite = f"sqlite:///{environment['FIVETRAN_STATE_DATA_DIR']}/state.db"
    client = DBOSClient(
        system_database_url=environment.get("DBOS_SYSTEM_DATABASE_URL", sqlite),
        application_name=f"fivetran-state-{sandbox.api.account_id}",
    )
    yield client
    client.destroy()


def end_in_database(environment: dict[str, str], sandbox: Sandbox, workflow_id: str) -> None:
    """`dbos workflow cancel`"""
    with dbos_client(environment, sandbox) as client:
        client.cancel_workflow(workflow_id)


def delete_in_database(environment: dict[str, str], sandbox: Sandbox, workflow_id: str) -> None:
    """The update's row, and all that it has recorded."""
    with dbos_client(environment, sandbox) as client:
        client.delete_workflows([workflow_id])
