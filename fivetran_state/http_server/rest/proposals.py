"""Handlers for changes that wait for a person."""

from fastapi import Request, Response

from fivetran_state.http_server.rest.answers import answer, running
from fivetran_state.http_server.rest.bodies import ApproveProposal, RejectProposal
from fivetran_state.http_server.rest.requests import OwnService, Prefer, WorkflowId


async def list_proposals(service: OwnService) -> Response:
    """The proposals that wait for a decision, oldest first."""
    return await answer(await service.proposals.waiting())


async def get_proposal(workflow_id: WorkflowId, service: OwnService) -> Response:
    """A proposal; while it waits, with its plan on the present states."""
    return await answer(await service.proposals.proposal(workflow_id))


async def approve_proposal(
    workflow_id: WorkflowId,
    body: ApproveProposal,
    request: Request,
    service: OwnService,
    prefer: Prefer,
) -> Response:
    """Agree to exactly this version of the plan: the update starts. Nobody approves their own."""
    view = await service.proposals.approve(
        workflow_id, expected_version=body.expected_version, wait_seconds=prefer.seconds
    )
    if view.status in ("running", "proposed"):
        return await running(view, prefer, request)
    return await answer(view, prefer)


async def reject_proposal(
    workflow_id: WorkflowId,
    service: OwnService,
    body: RejectProposal = RejectProposal(),  # noqa: B008
) -> Response:
    """End a proposal without a change."""
    return await answer(await service.proposals.reject(workflow_id, reason=body.reason))


async def withdraw_proposal(workflow_id: WorkflowId, service: OwnService) -> Response:
    """Take back one's own proposal."""
    return await answer(await service.proposals.withdraw(workflow_id))
