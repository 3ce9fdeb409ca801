"""REST, for programs: the service's capabilities as routes, with exact numbers both ways.

A request may bring the credentials of another account, in its body or in its headers. Then it sees the
connections and updates of that account.
"""

from fastapi import APIRouter

from fivetran_state.access import APPROVE, READ, WRITE
from fivetran_state.http_server.gate import requires
from fivetran_state.http_server.problems import PROBLEMS
from fivetran_state.http_server.rest import history, proposals, states, workflows
from fivetran_state.http_server.rest.answers import accepted, ok, ok_or_known
from fivetran_state.http_server.rest.bodies import NotRead, Unchanged, Updated
from fivetran_state.http_server.rest.requests import ExactRoute
from fivetran_state.models import (
    ConnectionPage,
    Difference,
    GroupPlanView,
    HistoryPage,
    ProposalPage,
    ProposalView,
    StateView,
    Update,
    UpdatesView,
    WorkflowPage,
    WorkflowView,
)


def router() -> APIRouter:
    """The routes. Their answers are the service's models."""
    routes = APIRouter(
        route_class=ExactRoute,
        responses=PROBLEMS,
        generate_unique_id_function=lambda route: route.name,
    )
    routes.post(
        "/state/get", tags=["State"], dependencies=[requires(READ)], responses=ok(StateView)
    )(states.get_state)
    routes.post(
        "/state/get-multiple",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=ok(dict[str, StateView | NotRead]),
    )(states.get_states)
    routes.post(
        "/state/update",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=ok(Updated | Update | Unchanged) | accepted(Update),
    )(states.update_state)
    routes.post(
        "/state/update-multiple",
        tags=["State"],
        dependencies=[requires(WRITE)],
        responses=ok(dict[str, Update] | GroupPlanView) | accepted(UpdatesView),
    )(states.update_multiple_states)
    routes.post(
        "/states/update",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=ok(GroupPlanView | UpdatesView) | accepted(UpdatesView),
    )(states.update_states)
    routes.get(
        "/connections",
        tags=["Connections"],
        dependencies=[requires(READ)],
        responses=ok(ConnectionPage),
    )(workflows.list_connections)
    routes.get(
        "/connections/{connection_id}/state",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=ok_or_known(StateView, "state"),
    )(history.get_connection_state)
    routes.get(
        "/connections/{connection_id}/history",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=ok(HistoryPage),
    )(history.get_state_history)
    routes.get(
        "/connections/{connection_id}/diff",
        tags=["State"],
        dependencies=[requires(READ)],
        responses=ok(Difference),
    )(history.get_state_difference)
    routes.get(
        "/proposals",
        tags=["Proposals"],
        dependencies=[requires(READ)],
        responses=ok(ProposalPage),
    )(proposals.list_proposals)
    routes.get(
        "/proposals/{workflow_id}",
        tags=["Proposals"],
        dependencies=[requires(READ)],
        responses=ok_or_known(ProposalView, "plan"),
    )(proposals.get_proposal)
    routes.post(
        "/proposals/{workflow_id}/approve",
        tags=["Proposals"],
        dependencies=[requires(APPROVE)],
        responses=ok(WorkflowView | UpdatesView) | accepted(WorkflowView | UpdatesView),
    )(proposals.approve_proposal)
    routes.post(
        "/proposals/{workflow_id}/reject",
        tags=["Proposals"],
        dependencies=[requires(APPROVE)],
        responses=ok(ProposalView),
    )(proposals.reject_proposal)
    routes.post(
        "/proposals/{workflow_id}/withdraw",
        tags=["Proposals"],
        dependencies=[requires(WRITE)],
        responses=ok(ProposalView),
    )(proposals.withdraw_proposal)
    routes.get(
        "/workflows", tags=["Workflows"], dependencies=[requires(READ)], responses=ok(WorkflowPage)
    )(workflows.list_workflows)
    routes.post(
        "/workflows/{workflow_id:workflow_id}/cancel",
        tags=["Workflows"],
        dependencies=[requires(WRITE)],
        responses=ok(Update | UpdatesView | ProposalView) | accepted(Update | UpdatesView),
    )(workflows.cancel_workflow)
    routes.get(
        "/workflows/{workflow_id:workflow_id}",
        tags=["Workflows"],
        dependencies=[requires(READ)],
        responses=ok(WorkflowView | UpdatesView),
    )(workflows.get_workflow)
    return routes
