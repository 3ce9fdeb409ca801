"""The rows that map an idempotency key to its update."""

import hashlib

from dbos import DBOS, SetWorkflowID

from fivetran_state.updates import binding
from fivetran_state.updates.records import REMEMBER_KEY, UpdateRequest, owner
from fivetran_state.vault import Bound


class Keys:
    """The idempotency keys of one account. Each is a workflow that does nothing else."""

    def __init__(self, application: str) -> None:
        """Register the workflow with DBOS, which must not have been launched."""
        self._application = application

        @DBOS.workflow(name=REMEMBER_KEY, max_recovery_attempts=None)
        async def remember_key(workflow_id: Bound) -> None:
            pass

        self._workflow = remember_key

    def row_id(self, request: UpdateRequest) -> str:
        """The workflow id under which an update remembers the idempotency key it was given."""
        # Accounts may have connections of the same name, and share a database.
        whose = f"{self._application}\n{request['idempotency_key']}"
        return f"key:{owner(request)}:{hashlib.sha256(whose.encode()).hexdigest()}"

    async def remember(self, row_id: str, workflow_id: str | None) -> None:
        """Store a workflow's id in a row with the id `row_id`, unless that row exists."""
        place = binding.input_of(row_id, REMEMBER_KEY)
        with SetWorkflowID(row_id):
            await DBOS.start_workflow_async(self._workflow, Bound(place, workflow_id))
