"""Handlers for changes that wait for a person."""

from fastapi import Request, Response

from fivetran_state.errors import InvalidRequest
from fivetran_state.http_server.rest.answers import answer, answer_unless_known, running
from fivetran_state.http_server.rest.bodies import ApproveProposal, RejectProposal
from fivetran_state.http_server.rest.requests import (
    IfMatch,
    IfNoneMatch,
    OwnService,
    Prefer,
    WorkflowId,
    expected,
)
from fivetran_state.models import GroupPlanView, Update


async def list_proposals(service: OwnService) -> Response:
    """The proposals that wait for a decision, oldest first."""
    return await answer(await service.proposals.waiting())


async def get_proposal(
    workflow_id: WorkflowId, service: OwnService, if_none_match: IfNoneMatch = None
) -> Response:
    """A proposal; while it waits, with its plan on the present states."""
    view = await service.proposals.proposal(workflow_id)
    return await answer_unless_known(view, _version_of(view.plan), if_none_match)


def _version_of(plan: Update | GroupPlanView | None) -> str | None:
    if isinstance(plan, GroupPlanView):
        return plan.version
    return None if plan is None else plan.version_before


async def approve_proposal(
    workflow_id: WorkflowId,
    request: Request,
    service: OwnService,
    prefer: Prefer,
    if_match: IfMatch,
    body: ApproveProposal = ApproveProposal(),  # noqa: B008
) -> Response:
    """Agree to exactly this version of the plan: the update starts. Nobody approves their own."""
    version = expected(body.expected_version, if_match, may_lack=True)
    if version is None:
        raise InvalidRequest(
            "An approval is for one version of the plan: give the one that you saw, as "
            "expected_version or in If-Match."
        )
    view = await service.proposals.approve(
        workflow_id, expected_version=version, wait_seconds=prefer.seconds
    )
    if view.status in ("running", "proposed"):
        return await running(view, prefer, request)
    return await answer(view, prefer)


async def reject_proposal(
    workflow_id: WorkflowId,
    service: OwnService,
    if_match: IfMatch,
    body: RejectProposal = RejectProposal(),  # noqa: B008
) -> Response:
    """End a proposal without a change; with If-Match, only if its plan is still that one."""
    version = expected(None, if_match, may_lack=True)
    return await answer(
        await service.proposals.reject(workflow_id, reason=body.reason, expected_version=version)
    )


async def withdraw_proposal(workflow_id: WorkflowId, service: OwnService) -> Response:
    """Take back one's own proposal."""
    return await answer(await service.proposals.withdraw(workflow_id))
