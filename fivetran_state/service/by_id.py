"""What a workflow id stands for: an update, a group of updates, or a proposal of either."""

from fivetran_state.models import ProposalView, Update, UpdatesView, WorkflowView
from fivetran_state.service.changes import Changes, OnProgress, ignore
from fivetran_state.service.group_status import OnLook
from fivetran_state.service.groups import Groups
from fivetran_state.service.proposals import Proposals
from fivetran_state.service.views import Task
from fivetran_state.service.workflows import Workflows


class ById:
    """The capabilities that each of them has."""

    def __init__(
        self, changes: Changes, groups: Groups, workflows: Workflows, proposals: Proposals
    ) -> None:
        self._changes = changes
        self._groups = groups
        self._workflows = workflows
        self._proposals = proposals

    async def status(
        self,
        workflow_id: str,
        *,
        wait_seconds: float = 0,
        on_progress: OnProgress = ignore,
        on_look: OnLook | None = None,
    ) -> WorkflowView | UpdatesView:
        """Its progress or its end. A proposal is an update, or a group, that has not begun.

        While it runs, `on_progress` gets each phase of an update, `on_look` the counts of a group.
        """
        if self._proposals.is_proposal(workflow_id):
            return await self._proposals.status(workflow_id, wait_seconds=wait_seconds)
        if self._groups.is_group(workflow_id):
            return await self._groups.updates_status(
                workflow_id, wait_seconds=wait_seconds, on_look=on_look
            )
        return await self._workflows.workflow_status(
            workflow_id, wait_seconds=wait_seconds, on_progress=on_progress
        )

    async def task(self, workflow_id: str) -> Task[Update] | Task[UpdatesView]:
        """The same as a task."""
        if self._proposals.is_proposal(workflow_id):
            return await self._proposals.task(workflow_id)
        if self._groups.is_group(workflow_id):
            return await self._groups.task(workflow_id)
        return await self._workflows.task(workflow_id)

    async def cancel(
        self, workflow_id: str, *, wait_seconds: float = 0
    ) -> Update | UpdatesView | ProposalView:
        """Cancel it before it writes, or withdraw the proposal; waits for the end of an update.

        Raises `TooLateToCancel` and `AlreadyDecided`.
        """
        if self._proposals.is_proposal(workflow_id):
            return await self._proposals.withdraw(workflow_id)
        if self._groups.is_group(workflow_id):
            return await self._groups.cancel_updates(workflow_id, wait_seconds=wait_seconds)
        return await self._changes.cancel_update(workflow_id, wait_seconds=wait_seconds)
