"""Proposed changes: seen, approved, rejected and withdrawn by people."""

import uuid
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from fivetran_state import access, changes, large, state
from fivetran_state.errors import Conflict, FivetranStateError, InvalidRequest, NotAllowed
from fivetran_state.models import (
    GroupPlanView,
    ProposalPage,
    ProposalView,
    Update,
    UpdatesView,
    WorkflowView,
)
from fivetran_state.plan import Plan
from fivetran_state.service import proposal_views, views
from fivetran_state.service.caller import Caller
from fivetran_state.service.group_plan import GroupPlan
from fivetran_state.service.groups import Groups
from fivetran_state.service.plans import Plans, check_version
from fivetran_state.service.workflows import Workflows
from fivetran_state.updates import proposals
from fivetran_state.updates.proposal import Decision, is_group
from fivetran_state.updates.proposals import Proposal, already_decided
from fivetran_state.updates.records import GroupRequest, UpdateRequest

DECIDES_WITHIN = 30.0
"""Seconds for the proposal's workflow to take a decision in: its process may just have died."""


@dataclass(frozen=True)
class _Planned:
    """The plan of a proposed change on the present states."""

    plan: Plan | GroupPlan

    @property
    def version(self) -> str:
        return self.plan.version if isinstance(self.plan, GroupPlan) else self.plan.version_before

    @property
    def is_noop(self) -> bool:
        return not (
            self.plan.changed if isinstance(self.plan, GroupPlan) else self.plan.changes_total
        )

    def insist_on(self, version: str, decision: Literal["approve", "reject"]) -> None:
        """Raises `Conflict` if the plan is another version than the one that was seen."""
        if self.version != version:
            raise Conflict(
                f"The plan is version {self.version}, not {version}: a state has moved since. "
                "Nothing was decided and nothing was written. Look at the new plan, and "
                f"{decision} its version.",
                current_version=self.version,
            )

    async def view(self) -> Update | GroupPlanView:
        if isinstance(self.plan, GroupPlan):
            return self.plan.view(is_proposed=True)
        return await large.run_if(
            self.plan.is_large, partial(self.plan.to_update, is_proposed=True)
        )


class Proposals:
    """The proposals of this server's own account: guests change their states themselves."""

    def __init__(self, caller: Caller, plans: Plans, groups: Groups, workflows: Workflows) -> None:
        self._caller = caller
        self._plans = plans
        self._groups = groups
        self._workflows = workflows

    def is_proposal(self, workflow_id: str) -> bool:
        """True for the id of a proposal."""
        return proposals.is_id(workflow_id)

    async def waiting(self) -> ProposalPage:
        """The proposals that wait for a decision, oldest first, without their plans."""
        updates = await self._caller.updates()
        found = [each for each in await updates.proposals.waiting() if self._may_see(each)]
        return ProposalPage(proposals=[proposal_views.proposal(each) for each in found])

    async def proposal(
        self, workflow_id: str, *, wait_seconds: float = 0, is_planned: bool = True
    ) -> ProposalView:
        """One proposal; while it waits, with its plan on the present states if `is_planned`.

        Waits for the decision, at most `wait_seconds`.
        """
        found = await self._get(workflow_id, wait_seconds)
        if found.decided is not None or not is_planned:
            return proposal_views.proposal(found)
        try:
            plan = await (await self._planned(found)).view()
        except FivetranStateError as error:
            return proposal_views.proposal(found, problem=error)
        return proposal_views.proposal(found, plan)

    async def plan(self, workflow_id: str) -> Plan | GroupPlanView:
        """The plan of a proposal that waits, in full; raises `AlreadyDecided`."""
        found = await self._get(workflow_id)
        if found.decided is not None:
            raise already_decided(found.decided, workflow_id)
        plan = (await self._planned(found)).plan
        return plan.view(in_full=True) if isinstance(plan, GroupPlan) else plan

    async def status(
        self, workflow_id: str, *, wait_seconds: float = 0
    ) -> WorkflowView | UpdatesView:
        """The proposal as an update that has not begun; once approved, the update that it has started."""
        found = await self._get(workflow_id, wait_seconds)
        started = None if found.decided is None else found.decided["workflow_id"]
        if started is not None:
            return await self._started(started, wait_seconds)
        return (
            proposal_views.as_group(found) if found.is_group else proposal_views.as_workflow(found)
        )

    async def task(self, workflow_id: str) -> views.Task[Update] | views.Task[UpdatesView]:
        """The proposal as a task; once approved, the task of the update that it has started."""
        found = await self._get(workflow_id)
        asked_at = views.time_text(int(found.asked["asked_at"] * 1000))
        started = None if found.decided is None else found.decided["workflow_id"]
        if started is not None:
            if self._groups.is_group(started):
                of_group = await self._groups.task(started)
                return replace(of_group, workflow_id=workflow_id, created_at=asked_at)
            of_update = await self._workflows.task(started)
            return replace(of_update, workflow_id=workflow_id, created_at=asked_at)
        if found.is_group:
            group = proposal_views.as_group(found)
            return views.Task(workflow_id, group, group.message, asked_at, asked_at, None)
        update = proposal_views.as_update(found)
        return views.Task(workflow_id, update, update.message, asked_at, asked_at, None)

    async def approve(
        self, workflow_id: str, *, expected_version: str, wait_seconds: float = 0
    ) -> WorkflowView | UpdatesView:
        """Agree to exactly this version of the plan, which starts the update; wait for its end.

        Raises `Conflict` with the present version if a state has moved since, `AlreadyDecided`,
        `NotAllowed` for one's own proposals and by the policy, and what keeps the update from being started.
        """
        with self._caller.events.refusing(workflow_id=workflow_id):
            return await self._approved(workflow_id, expected_version, wait_seconds)

    async def _approved(
        self, workflow_id: str, expected_version: str, wait_seconds: float
    ) -> WorkflowView | UpdatesView:
        self._caller.check_writable()
        check_version(expected_version)
        me = access.principal()
        access.demand(access.APPROVE, me.scopes, "Approving a proposal")
        found = await self._get(workflow_id)
        if found.decided is not None:
            return await self._decided_before(found, me.name, wait_seconds)
        if await self._asked_by_me(found):
            raise NotAllowed(
                f"{found.asked['asked_by']} has asked for this: another person has to approve it."
            )
        planned = await self._planned(found)
        planned.insist_on(expected_version, "approve")
        refusal = planned.plan.ruling.refusal
        if refusal is not None:
            raise NotAllowed(f"{refusal} Nothing was approved and nothing was written.")
        if planned.is_noop:
            raise InvalidRequest(
                "The change would leave everything as it is now, so there is nothing to approve. "
                "Reject the proposal, or leave it to expire."
            )
        decision = Decision(
            id=uuid.uuid4().hex, how="approved", by=me.name, version=planned.version
        )
        if isinstance(planned.plan, GroupPlan):
            requests, decision["left_out"] = planned.plan.split()
            versions = {each.connection_id: each.version_before for each in planned.plan.members}
            decision["versions"] = {
                each["connection_id"]: str(versions[each["connection_id"]]) for each in requests
            }
        updates = await self._caller.updates()
        approved = await updates.proposals.decide(workflow_id, decision, DECIDES_WITHIN)
        return await self._decided_before(approved, me.name, wait_seconds)

    async def reject(
        self, workflow_id: str, *, reason: str | None = None, expected_version: str | None = None
    ) -> ProposalView:
        """End a proposal without a change; raises `AlreadyDecided`.

        With `expected_version`, raises `Conflict` if the plan is another version.
        """
        with self._caller.events.refusing(workflow_id=workflow_id):
            me = access.principal()
            access.demand(access.APPROVE, me.scopes, "Rejecting a proposal")
            found = await self._get(workflow_id)
            if expected_version is not None and found.decided is None:
                check_version(expected_version)
                (await self._planned(found)).insist_on(expected_version, "reject")
            decision = Decision(id=uuid.uuid4().hex, how="rejected", by=me.name, note=reason)
            return await self._decide(workflow_id, decision)

    async def withdraw(self, workflow_id: str) -> ProposalView:
        """Take back what one has asked for; raises `NotAllowed` for what others have, `AlreadyDecided`."""
        with self._caller.events.refusing(workflow_id=workflow_id):
            me = access.principal()
            found = await self._get(workflow_id)
            if not await self._asked_by_me(found):
                raise NotAllowed(
                    f"Only {found.asked['asked_by']}, who has asked for this, can withdraw it; "
                    "whoever may approve it can reject it."
                )
            return await self._decide(
                workflow_id, Decision(id=uuid.uuid4().hex, how="withdrawn", by=me.name)
            )

    async def _decide(self, workflow_id: str, decision: Decision) -> ProposalView:
        updates = await self._caller.updates()
        return proposal_views.proposal(
            await updates.proposals.decide(workflow_id, decision, DECIDES_WITHIN)
        )

    async def _decided_before(
        self, found: Proposal, me: str, wait_seconds: float
    ) -> WorkflowView | UpdatesView:
        """What this person's approval has started; raises `AlreadyDecided` if it was another decision."""
        if found.decided is None:
            return (
                proposal_views.as_group(found)
                if found.is_group
                else proposal_views.as_workflow(found)
            )
        started = found.decided["workflow_id"]
        if started is None or found.decided["by"] != me:
            raise already_decided(found.decided, found.workflow_id)
        return await self._started(started, wait_seconds)

    async def _started(self, workflow_id: str, wait_seconds: float) -> WorkflowView | UpdatesView:
        if self._groups.is_group(workflow_id):
            return await self._groups.updates_status(workflow_id, wait_seconds=wait_seconds)
        return await self._workflows.workflow_status(workflow_id, wait_seconds=wait_seconds)

    async def _get(self, workflow_id: str, wait_seconds: float = 0) -> Proposal:
        """Raises `WorkflowNotFound`, and `NotAllowed` for connections that are not allowed."""
        updates = await self._caller.updates()
        await self._caller.refuse_guests()
        found = await updates.proposals.follow(workflow_id, wait_seconds)
        for connection_id in found.connection_ids:
            self._caller.check(connection_id)
        return found

    def _may_see(self, found: Proposal) -> bool:
        return all(map(self._caller.settings.allows, found.connection_ids))

    async def _asked_by_me(self, found: Proposal) -> bool:
        updates = await self._caller.updates()
        return updates.proposals.is_asked_by(found.asked, access.principal().name)

    async def _planned(self, found: Proposal) -> _Planned:
        change = found.asked["change"]
        first = found.requests[0]
        then_sync = first.get("then_sync", False)
        allow_resync = first.get("allow_resync", False)
        if not is_group(change):
            wanted = changes.Inline(await _change_of(change))
            return _Planned(
                await self._plans.plan(
                    change["connection_id"],
                    wanted,
                    then_sync=then_sync,
                    allow_resync=allow_resync,
                    asked_by=found.asked["asked_by"],
                )
            )
        options = changes.GroupOptions(
            mode=change["mode"],
            waits=change["waits"],
            then_sync=then_sync,
            allow_resync=allow_resync,
        )
        return _Planned(
            await self._groups.plan_anew(
                await _changes_of(change), options, found.asked["asked_by"], change["left_out"]
            )
        )


async def _change_of(request: UpdateRequest) -> state.Change:
    return await large.run(
        state.parse_change, request["change_kind"], request["change"], request["change_is_exact"]
    )


async def _changes_of(asked: GroupRequest) -> dict[str, changes.Change]:
    """The change of each connection, parsed once where many share it."""
    parsed: dict[tuple[str, str], changes.Inline] = {}
    found: dict[str, changes.Change] = {}
    for request in asked["members"]:
        key = request["change_kind"], request["change"]
        if key not in parsed:
            parsed[key] = changes.Inline(await _change_of(request))
        found[request["connection_id"]] = parsed[key]
    return found
