"""The pages on which people act: plan a change and make it, undo, cancel, approve, reject, withdraw.

Each form is read by `forms.read`, which refuses forms that this server has not shown to this caller.
What is made or approved is the version that was on the page.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import RedirectResponse, Response

from fivetran_state import changes, large, state
from fivetran_state.access import APPROVE, READ, WRITE
from fivetran_state.errors import (
    Conflict,
    FivetranStateError,
    InvalidRequest,
    NoStateYet,
    StateNotKept,
)
from fivetran_state.http_server import forms
from fivetran_state.http_server.gate import requires
from fivetran_state.http_server.page import differences
from fivetran_state.http_server.page.asked import PagesOf, for_browsers
from fivetran_state.http_server.page.rendering import Pages
from fivetran_state.http_server.problems import STATUS
from fivetran_state.http_server.rest.bodies import ConnectionId
from fivetran_state.http_server.rest.requests import OwnService, WorkflowId
from fivetran_state.models import GroupPlanView
from fivetran_state.plan import Plan
from fivetran_state.service import Service

SHOWN_MEMBERS = 50
MAX_EDITED = 20_000
"""Bytes of a state that is offered to be edited as a whole."""
_KINDS = ("merge_patch", "json_patch", "new_state", "restore_from", "copy_from")
_CHANGE = ("kind", "value", "only", *_KINDS)
"""The fields of a form that say what would change."""
_LARGEST_START = state.MAX_VALUES * 2


def add_to(routes: APIRouter) -> None:
    """Add the routes to those of the page."""
    reads = [requires(READ), Depends(for_browsers)]
    routes.get("/connections/{connection_id}/change", dependencies=reads)(_change)
    routes.get("/connections/{connection_id}/plan", dependencies=reads)(_plan_of_link)
    routes.post("/connections/{connection_id}/plan", dependencies=reads)(_plan_of_form)
    routes.post("/connections/{connection_id}/make", dependencies=[requires(WRITE)])(_make)
    routes.post("/updates/{workflow_id}/cancel", dependencies=[requires(WRITE)])(_cancel)
    routes.get("/proposals", dependencies=reads)(_proposals)
    routes.get("/proposals/{workflow_id}", dependencies=reads)(_proposal)
    routes.post("/proposals/{workflow_id}/approve", dependencies=[requires(APPROVE)])(_approve)
    routes.post("/proposals/{workflow_id}/reject", dependencies=[requires(APPROVE)])(_reject)
    routes.post("/proposals/{workflow_id}/withdraw", dependencies=[requires(WRITE)])(_withdraw)


class Start(BaseModel):
    """Which page of the differences."""

    model_config = ConfigDict(extra="forbid")

    start: Annotated[int, Field(ge=0, le=_LARGEST_START)] = 0


class _Source(Start):
    """A change that a link can name."""

    restore_from: Annotated[str | None, Field(max_length=500)] = None
    copy_from: Annotated[str | None, Field(max_length=500)] = None
    only: Annotated[str | None, Field(max_length=state.MAX_PATH_LENGTH)] = None


async def _change(connection_id: ConnectionId, service: OwnService, pages: PagesOf) -> Response:
    """The forms for a change."""
    view, absent = None, None
    try:
        view = await service.states.get_state(connection_id, max_bytes=MAX_EDITED, for_people=True)
    except (NoStateYet, StateNotKept) as error:
        absent = error
    return pages.answer("change.html", connection_id=connection_id, view=view, absent=absent)


async def _plan_of_link(
    connection_id: ConnectionId,
    query: Annotated[_Source, Query()],
    service: OwnService,
    pages: PagesOf,
) -> Response:
    given = {name: str(value) for name, value in query if value not in (None, 0)}
    return await _planned(connection_id, given, query.start, service, pages)


async def _plan_of_form(
    connection_id: ConnectionId, request: Request, service: OwnService, pages: PagesOf
) -> Response:
    given = await forms.read(request)
    return await _planned(connection_id, given, _start_in(given), service, pages)


async def _planned(
    connection_id: str,
    given: Mapping[str, str],
    start: int,
    service: Service,
    pages: Pages,
    problem: FivetranStateError | None = None,
) -> Response:
    """The page with the plan, and the form that makes exactly this change."""
    plan = await service.plans.plan(
        connection_id, await _change_in(given), then_sync="then_sync" in given
    )
    return pages.answer(
        "plan.html",
        status=200 if problem is None else STATUS[problem.code],
        connection_id=connection_id,
        plan=plan,
        found=await _rows(plan, start),
        given={name: given[name] for name in given if name not in ("start", "expected_version")},
        change={name: given[name] for name in given if name in _CHANGE},
        problem=problem,
    )


async def _make(
    connection_id: ConnectionId, request: Request, service: OwnService, pages: PagesOf
) -> Response:
    given = await forms.read(request)
    change, version = await _change_in(given), _version_in(given)
    try:
        # The update itself would find out too, but then this page would be gone.
        await service.plans.plan(connection_id, change, expected_version=version)
        made = await service.changes.update_state(
            connection_id,
            change,
            expected_version=version,
            then_sync="then_sync" in given,
            allow_resync="allow_resync" in given,
            reason=given.get("reason") or None,
            propose="propose" in given,
        )
    except Conflict as error:
        return await _planned(connection_id, given, 0, service, pages, error)
    if made.workflow_id is None:
        return await _planned(connection_id, given, 0, service, pages)
    return to(pages.links.workflow(made.workflow_id))


async def _cancel(
    workflow_id: WorkflowId, request: Request, service: OwnService, pages: PagesOf
) -> Response:
    await forms.read(request)
    await service.by_id.cancel(workflow_id)
    return to(pages.links.update(workflow_id))


async def _proposals(service: OwnService, pages: PagesOf) -> Response:
    found = await service.proposals.waiting()
    return pages.answer("proposals.html", proposals=found.proposals)


async def _proposal(
    workflow_id: WorkflowId,
    query: Annotated[Start, Query()],
    service: OwnService,
    pages: PagesOf,
) -> Response:
    return await _proposed(workflow_id, query.start, service, pages)


async def _proposed(
    workflow_id: str,
    start: int,
    service: Service,
    pages: Pages,
    problem: FivetranStateError | None = None,
) -> Response:
    """The page of a proposal; while it waits, with its plan and the forms that decide."""
    view = await service.proposals.proposal(workflow_id, is_planned=False)
    values: dict[str, Any] = {"view": view, "plan": None, "found": None, "version": None}
    if view.status == "proposed":
        try:
            plan = await service.proposals.plan(workflow_id)
        except FivetranStateError as error:
            problem = problem or error
        else:
            values |= {"plan": plan, "version": _version_of(plan)}
            if isinstance(plan, Plan):
                values["found"] = await _rows(plan, start)
            else:
                values["members"] = plan.connections[start : start + SHOWN_MEMBERS]
    return pages.answer(
        "proposal.html",
        status=200 if problem is None else STATUS[problem.code],
        problem=problem,
        start=start,
        per_page=SHOWN_MEMBERS,
        is_group=isinstance(values["plan"], GroupPlanView),
        **values,
    )


async def _approve(
    workflow_id: WorkflowId, request: Request, service: OwnService, pages: PagesOf
) -> Response:
    given = await forms.read(request)
    try:
        made = await service.proposals.approve(workflow_id, expected_version=_version_in(given))
    except FivetranStateError as error:
        return await _proposed(workflow_id, 0, service, pages, error)
    return to(pages.links.workflow(str(made.workflow_id)))


async def _reject(
    workflow_id: WorkflowId, request: Request, service: OwnService, pages: PagesOf
) -> Response:
    given = await forms.read(request)
    await service.proposals.reject(workflow_id, reason=given.get("reason") or None)
    return to(pages.links.proposal(workflow_id))


async def _withdraw(
    workflow_id: WorkflowId, request: Request, service: OwnService, pages: PagesOf
) -> Response:
    await forms.read(request)
    await service.proposals.withdraw(workflow_id)
    return to(pages.links.proposal(workflow_id))


async def _change_in(given: Mapping[str, str]) -> changes.Change:
    """The change that a form or a link asks for; an empty field counts as unset."""
    if "kind" in given and given.get("value"):
        given = {**given, given["kind"]: given["value"]}
    return await changes.parse(
        {kind: given.get(kind) or None for kind in _KINDS}, given.get("only") or None
    )


def _version_in(given: Mapping[str, str]) -> str:
    version = given.get("expected_version", "")
    if not version:
        raise InvalidRequest("The form names no version. Open the plan again.")
    return version


def _start_in(given: Mapping[str, str]) -> int:
    try:
        return min(max(int(given.get("start") or 0), 0), _LARGEST_START)
    except ValueError:
        raise InvalidRequest("start must be a number.") from None


def _version_of(plan: Plan | GroupPlanView) -> str:
    return plan.version_before if isinstance(plan, Plan) else str(plan.version)


async def _rows(plan: Plan, start: int) -> differences.Rows:
    return await large.run(differences.rows, plan.before, plan.applied.after, start)


def to(address: str) -> Response:
    """A redirect that makes a GET of it."""
    return RedirectResponse(address, status_code=303)
