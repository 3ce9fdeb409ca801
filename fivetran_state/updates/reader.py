"""Reads DBOS's tables without DBOS, which would wait for a database that is gone."""

from collections.abc import Sequence
from typing import Any

from dbos import DBOSClient, StepInfo, WorkflowStatus

from fivetran_state import database


class Reader:
    """Every method raises `DatabaseUnavailable`. The queries are those of `DBOSClient`."""

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
