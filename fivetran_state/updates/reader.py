"""Reads DBOS's tables without DBOS, which would wait for a database that is gone."""

from collections.abc import Collection, Sequence
from typing import Any

from dbos import DBOSClient, StepInfo, WorkflowStatus

from fivetran_state import database, dbos_internals

READ_BATCH = 50
"""Workflows that one look-up reads with their output."""
ID_BATCH = 1000
"""Ids in one look-up: the Postgres driver blocks the event loop for 10 µs for each."""


class Reader:
    """Every method raises `DatabaseUnavailable`. The queries are those of `DBOSClient`.

    It returns workflows in order of time. For that, SQLite and sometimes Postgres read all of them,
    unless they are asked for by their ids, their parent, or the newest first.
    """

    def __init__(self, client: DBOSClient) -> None:
        self.client = client

    async def find(
        self, *, load_input: bool = False, load_output: bool = False, **query: Any
    ) -> list[WorkflowStatus]:
        """The workflows of the query, without what may be large unless asked for."""
        with database.answering():
            return await self.client.list_workflows_async(
                load_input=load_input, load_output=load_output, **query
            )

    def find_now(
        self, *, load_input: bool = False, load_output: bool = False, **query: Any
    ) -> list[WorkflowStatus]:
        """Like `find`, for threads."""
        with database.answering():
            return self.client.list_workflows(
                load_input=load_input, load_output=load_output, **query
            )

    def with_status(
        self, statuses: Collection[str]
    ) -> list[tuple[str, str, str | None, str, str | None]]:
        """Id, name, executor, status and version of each; see `dbos_internals`. It blocks."""
        with database.answering():
            return dbos_internals.with_status(self.client, statuses)

    def completed_before(self, names: Collection[str], moment: int) -> list[str]:
        """The ids of workflows that had ended by then. It blocks."""
        with database.answering():
            return dbos_internals.completed_before(self.client, names, moment)

    def created_at(self, workflow_ids: Collection[str]) -> dict[str, int]:
        """When they were started, as far as they are there. It blocks."""
        with database.answering():
            return dbos_internals.created_at(self.client, workflow_ids)

    def children(self, workflow_id: str) -> list[str]:
        """The ids of the workflows that this one has started. It blocks."""
        with database.answering():
            return dbos_internals.children(self.client, workflow_id)

    def with_hex_ids(self, beginning: str) -> dict[str, int]:
        """The workflows whose ids are this and hex digits, and when they were started. It blocks."""
        with database.answering():
            return dbos_internals.with_hex_ids(self.client, beginning)

    def steps_completed(
        self, names: Collection[str], workflow_ids: Collection[str]
    ) -> list[tuple[str, str, int, bool]]:
        """See `dbos_internals`. It blocks."""
        with database.answering():
            return dbos_internals.steps_completed(self.client, names, workflow_ids)

    async def steps(self, workflow_id: str, *, load_output: bool = True) -> list[StepInfo]:
        with database.answering():
            return await self.client.list_workflow_steps_async(workflow_id, load_output=load_output)

    async def event(self, workflow_id: str, name: str) -> Any:
        """The event's present value; None if it was not set."""
        with database.answering():
            return await self.client.get_event_async(workflow_id, name, timeout_seconds=0)

    async def delete(self, workflow_ids: Sequence[str], *, children: bool = False) -> None:
        with database.answering():
            await self.client.delete_workflows_async(list(workflow_ids), delete_children=children)
