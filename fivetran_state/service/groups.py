"""Changes of several connections: planned, made and undone together."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Protocol

from fivetran_state import access, changes, large, state
from fivetran_state.changes import MAX_CONNECTIONS
from fivetran_state.errors import InvalidRequest
from fivetran_state.events import Event, Name
from fivetran_state.models import GroupPlanView, UpdatesView
from fivetran_state.service import proposal_views, views
from fivetran_state.service.caller import Caller
from fivetran_state.service.group_plan import SHOWN_MEMBERS, GroupPlan, Looked
from fivetran_state.service.group_planner import Planner, options_of_members
from fivetran_state.service.group_status import GroupFollower, OnLook
from fivetran_state.service.plans import Plans, check_version
from fivetran_state.service.refusals import by_policy, not_a_cursor, too_late
from fivetran_state.service.sources import Sources, named
from fivetran_state.updates import groups
from fivetran_state.updates.ends import End
from fivetran_state.updates.records import GROUP, GroupRequest

MAX_BYTES = 5 * state.MAX_BYTES
"""Of all the changes of one group."""


class GroupConfirmation(Protocol):
    """Asks the person who decides."""

    @property
    def version(self) -> str | None:
        """The version of the plan that the person has confirmed, if any."""

    async def covers(self, plan: GroupPlan) -> bool:
        """True if exactly this was confirmed, and none of its connections was updated since.

        If not, it asks; the answer counts the next time. Raises `NotConfirmed`, or
        `TooLargeToConfirm` if the question could not show every change in full.
        """


class Groups:
    """Changes several connections of one account together."""

    def __init__(self, caller: Caller, sources: Sources, plans: Plans) -> None:
        self._caller = caller
        self._plans = plans
        self._planner = Planner(caller, sources, plans)
        self._follower = GroupFollower(caller)

    async def plan_updates(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        *,
        cursor: str | None = None,
        in_full: bool = False,
    ) -> GroupPlanView:
        """Look at all connections; nothing is written. Raises `Conflict` for another version.

        With the `next_cursor` of a plan, only the next ones are looked at. Raises `InvalidRequest`.
        `in_full`: with every connection that would change, not only the first ones.
        """
        self._check(wanted, options)
        if cursor is None:
            plan = await self._planner.plan(wanted, options, is_shown=True)
            plan.insist_on(options.expected_version)
            return plan.view(in_full=in_full)
        first = next((at for at, each in enumerate(wanted, 1) if each == cursor), len(wanted))
        part = dict(islice(wanted.items(), first, first + SHOWN_MEMBERS))
        if not part:
            raise not_a_cursor(cursor)
        plan = await self._planner.plan(part, options, is_shown=True)
        return plan.page(len(wanted), first + 1)

    async def update_states(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        *,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
        on_look: OnLook | None = None,
        confirmation: GroupConfirmation | None = None,
        propose: bool = False,
    ) -> UpdatesView | GroupPlanView:
        """Change several connections, each by an update of its own.

        All are looked at before any is touched. `wanted` has the change of each, by connection id. An
        equal request attaches to the group that is running; one with `expected_version` also to the
        last one that changed something. Raises the worst error, with `updates` in its details, unless
        the mode is `independent`.

        With a `confirmation`, only a version that it covers is changed. With `propose`, or if a change
        needs approval by this caller, all are only proposed. In both cases, the answer is the plan if
        nothing would change. `on_look` gets the progress. Raises `NotAllowed` if the policy forbids one
        now.
        """
        with self._caller.events.refusing(count=len(wanted)):
            self._caller.check_writable()
            self._check(wanted, options)
            if propose or await self._caller.must_propose():
                return await self._proposed(wanted, options, idempotency_key)
            started = await self._started(wanted, options, idempotency_key, confirmation)
        if not isinstance(started, str):
            return started
        large.let_others()
        found = await self._follower.follow(started, wait_seconds, on_look)
        return await self._follower.answer(started, found)

    async def _started(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        key: str | None,
        confirmation: GroupConfirmation | None,
    ) -> str | UpdatesView | GroupPlanView:
        """The id of the group; or the proposal, or the plan if a confirmed change changes nothing."""
        updates = await self._caller.updates()
        account = (await self._caller.account()).id
        if self._caller.has_policy and key is not None:
            about = GROUP, (await self._asked_unread(wanted, options))["fingerprint"]
            proposal = await updates.proposals.attach(about, key)
            if proposal is not None:
                return proposal_views.as_group(await updates.proposals.get(proposal))
        while True:
            version = options.expected_version
            if version is None and confirmation is not None:
                version = confirmation.version
            pinned = replace(options, expected_version=version)
            asked = await self._asked_unread(wanted, pinned)
            if version is not None or confirmation is None:
                attached = await updates.groups.attach(asked, account, key)
                if attached is not None:
                    return attached
            plan = await self._planner.plan(wanted, pinned, is_shown=confirmation is not None)
            if version not in (None, plan.version):
                repeated = await self._that_wrote(asked) if key is None else None
                if repeated is not None:
                    return repeated
                plan.insist_on(options.expected_version)
            if options.mode == "all_or_nothing" and plan.failures:
                raise plan.refusal
            if confirmation is not None and not plan.changed:
                return plan.view()
            if plan.ruling.needs_approval:
                return await self._proposed(wanted, options, key)
            if plan.ruling.closed is not None:
                raise by_policy(plan.ruling.closed, can_wait=True)
            if confirmation is None or await confirmation.covers(plan):
                return await self._start(asked, plan, key)
            # The user may have taken a while: look again.

    async def _proposed(
        self, wanted: Mapping[str, changes.Change], options: changes.GroupOptions, key: str | None
    ) -> UpdatesView | GroupPlanView:
        """The proposal of the change, or the plan if it changes nothing."""
        await self._caller.refuse_guests()
        updates = await self._caller.updates()
        asked = await self._asked_unread(wanted, options)
        about = GROUP, asked["fingerprint"]
        workflow_id = await updates.proposals.attach(about, key)
        if workflow_id is None:
            plan = await self._planner.plan(wanted, options)
            plan.insist_on(options.expected_version)
            plan.split()  # It raises what would keep the group from being started now.
            if not plan.changed:
                return plan.view()
            _keep_all(asked, plan)
            workflow_id = await updates.proposals.ask(self._caller.asked(asked), about, key)
        return proposal_views.as_group(await updates.proposals.get(workflow_id))

    async def plan_anew(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        asked_by: str,
        left_out: Iterable[End],
    ) -> GroupPlan:
        """The plan of what `asked_by` proposed, for the person who decides.

        `left_out`: connections of the proposal whose change is not known.
        """
        plan = await self._planner.plan(wanted, options, is_shown=True, asked_by=asked_by)
        return replace(plan, members=[*plan.members, *map(Looked.left_out, left_out)])

    async def _start(self, asked: GroupRequest, plan: GroupPlan, key: str | None) -> str:
        asked["members"], asked["left_out"] = plan.split()
        updates = await self._caller.updates()
        return await updates.groups.start(asked, (await self._caller.account()).id, key)

    async def _that_wrote(self, asked: GroupRequest) -> str | None:
        """The id of the group that an equal request has started, if that changed something."""
        updates = await self._caller.updates()
        account = (await self._caller.account()).id
        last = await updates.groups.last(asked, account)
        if last is None:
            return None
        found = await updates.groups.follow(last, account, 0)
        wrote = any(end["how"] == "updated" for end in found.ends.values())
        return last if wrote or not found.has_ended else None

    def _check(self, wanted: Mapping[str, changes.Change], options: changes.GroupOptions) -> None:
        check_version(options.expected_version)
        if not wanted:
            raise InvalidRequest("connection_ids must name at least one connection.")
        if len(wanted) > MAX_CONNECTIONS:
            raise InvalidRequest(
                f"These are {len(wanted):,} connections; a group has at most {MAX_CONNECTIONS:,}. "
                "Change them in several groups."
            )
        for connection_id in wanted:
            self._caller.check(connection_id)

    async def _asked_unread(
        self, wanted: Mapping[str, changes.Change], options: changes.GroupOptions
    ) -> GroupRequest:
        """The request before any source is read, by which the group that it has started is found."""
        texts: dict[int, str] = {}
        members = []
        total = 0
        for connection_id, change in wanted.items():
            unread = named(change)
            if id(change) not in texts:
                texts[id(change)] = await large.run(state.dump, unread.change.value)
            total += len(texts[id(change)])
            if total > MAX_BYTES:
                raise InvalidRequest(
                    f"These changes have more than {MAX_BYTES:,} bytes in total. Send a patch, or "
                    "change fewer connections at a time."
                )
            members.append(
                await self._plans.request(
                    connection_id, unread, options_of_members(options), texts[id(change)]
                )
            )
        return GroupRequest(
            members=members,
            mode=options.mode,
            expected_version=options.expected_version,
            waits=options.waits,
            left_out=[],
            fingerprint=await large.run(
                groups.fingerprint, options.mode, options.expected_version, members
            ),
        )

    def is_group(self, workflow_id: str) -> bool:
        """True for the id of a group."""
        return groups.is_id(workflow_id)

    async def updates_status(
        self, workflow_id: str, *, wait_seconds: float = 0, on_look: OnLook | None = None
    ) -> UpdatesView:
        """The group's progress, or its end; `on_look` gets it every `LOOK_SECONDS` while it runs."""
        found = await self._follower.follow(workflow_id, wait_seconds, on_look)
        return await self._follower.view(workflow_id, found)

    async def task(self, workflow_id: str) -> views.Task[UpdatesView]:
        """The group with the present answer of `update_states`."""
        return await self._follower.task(workflow_id)

    async def cancel_updates(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """Cancel a group: nothing more is written, and `all_or_nothing` changes nothing.

        Raises `TooLateToCancel` once all are written.
        """
        with self._caller.events.refusing(workflow_id=workflow_id):
            return await self._cancelled(workflow_id, wait_seconds)

    async def _cancelled(self, workflow_id: str, wait_seconds: float) -> UpdatesView:
        self._caller.check_writable()
        updates = await self._caller.updates()
        await self._caller.check_group(workflow_id)
        await updates.groups.cancel(workflow_id, (await self._caller.account()).id)
        self._caller.events.record(
            Event(
                Name.GROUP_CANCEL_ASKED,
                workflow_id=workflow_id,
                principal=access.principal().name,
            )
        )
        view = await self._follower.view(
            workflow_id, await self._follower.status(workflow_id, wait_seconds)
        )
        if view.status in ("updated", "failed"):
            raise too_late(workflow_id, view.status)
        return view


def _keep_all(asked: GroupRequest, plan: GroupPlan) -> None:
    """Keep every request: whoever decides sees which connections can be changed then.

    Those whose source could not be read are left out.
    """
    unread, asked["members"] = asked["members"], []
    for request, looked in zip(unread, plan.members, strict=True):
        if looked.request is not None:
            asked["members"].append(looked.request)
        elif request["source"] is None:
            asked["members"].append({**request, "mode": asked["mode"]})
        else:
            asked["left_out"].append(looked.end)
