"""One change of one connection: make it, cancel it, see what it did."""

from collections.abc import Awaitable, Callable

from fivetran_state import access, changes, large, state
from fivetran_state.errors import IdempotencyKeyReused
from fivetran_state.events import Event, Name
from fivetran_state.models import Update
from fivetran_state.plan import Confirmation
from fivetran_state.service import proposal_views, views
from fivetran_state.service.caller import Caller
from fivetran_state.service.plans import Plans, check_version
from fivetran_state.service.refusals import by_policy, too_late
from fivetran_state.service.requests import Options, fingerprint_of
from fivetran_state.service.sources import Sources, named, unread
from fivetran_state.updates.records import Progress, UpdateRequest, request_fingerprint
from fivetran_state.updates.refusals import (
    refuse_pending_resync,
)
from fivetran_state.updates.start import Handle

OnProgress = Callable[[Progress], Awaitable[None]]


async def ignore(progress: Progress) -> None:
    pass


class Changes:
    """Changes the states of one account's connections."""

    def __init__(self, caller: Caller, sources: Sources, plans: Plans) -> None:
        self._caller = caller
        self._sources = sources
        self._plans = plans

    async def update_state(
        self,
        connection_id: str,
        change: changes.Change,
        *,
        expected_version: str | None,
        then_sync: bool = False,
        allow_resync: bool = False,
        reason: str | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
        on_progress: OnProgress = ignore,
        confirmation: Confirmation | None = None,
        propose: bool = False,
    ) -> Update:
        """Start the update (or attach to the one this request started) and wait for a while.

        With `propose`, or if the change needs approval by this caller, it is only proposed. Raises
        `NotAllowed` if the policy forbids it, or forbids it now.

        With a `confirmation`, only a change that it covers is started, and `expected_version` may be
        left out. Raises the update's own error if it fails within `wait_seconds`; leaving
        earlier, or being cancelled, does not stop it.
        """
        with self._caller.events.refusing(connection=connection_id):
            self._caller.check_writable()
            check_version(expected_version)
            updates = await self._caller.updates()
            updates.runtime.slots.expect_single()
            options = Options(expected_version, reason, idempotency_key, then_sync, allow_resync)
            if propose or await self._caller.must_propose():
                return await self._proposed(connection_id, change, options)
            started = await self._started(connection_id, change, options, confirmation)
        del change  # Do not keep a large change while waiting for the end.
        if isinstance(started, Update):
            return started
        large.let_others()
        await updates.followers.follow(started, wait_seconds, on_progress)
        update = await updates.store.get(started.workflow_id)
        steps = [] if update.status == "running" else await updates.store.steps(update.workflow_id)
        return views.answer(update, steps)

    async def _proposed(
        self, connection_id: str, change: changes.Change, options: Options
    ) -> Update:
        """The proposal of the change, or the plan if it changes nothing."""
        await self._caller.refuse_guests()
        updates = await self._caller.updates()
        self._caller.check(connection_id)
        given = await self._plans.request(connection_id, named(change), options)
        about = connection_id, fingerprint_of(given)
        workflow_id = await updates.proposals.attach(about, options.idempotency_key)
        if workflow_id is None:
            wanted = await self._sources.read(connection_id, change)
            plan = await self._plans.plan_of(
                connection_id, wanted, options.expected_version, then_sync=options.then_sync
            )
            if not plan.changes_total:
                return await large.run_if(plan.is_large, plan.to_update)
            if plan.ruling.forbidden is not None:
                raise by_policy(plan.ruling.forbidden)
            if not options.allow_resync:
                refuse_pending_resync(plan.connection)
            pinned = options.with_version(plan.version_before)
            asked = self._caller.asked(await self._plans.request(connection_id, wanted, pinned))
            workflow_id = await updates.proposals.ask(asked, about, options.idempotency_key)
        return proposal_views.as_update(await updates.proposals.get(workflow_id))

    async def _started(
        self,
        connection_id: str,
        change: changes.Change,
        options: Options,
        confirmation: Confirmation | None,
    ) -> Handle | Update:
        """The handle of the update; or the proposal, or the plan if a confirmed change changes nothing.

        This is apart from the waiting, so that no large value is kept for that long.
        """
        await self._caller.fivetran_for(connection_id)  # It checks the id.
        found = await self._of_key(connection_id, change, options, confirmation)
        while found is None:
            found = await self._of_state(connection_id, change, options, confirmation)
        return found

    async def _of_key(
        self,
        connection_id: str,
        change: changes.Change,
        options: Options,
        confirmation: Confirmation | None,
    ) -> Handle | Update | None:
        """What the request with this idempotency key has started or proposed, without reading its source."""
        if options.idempotency_key is None:
            return None
        if self._caller.has_policy:
            proposal = await self._proposed_with_key(connection_id, change, options)
            if proposal is not None:
                return proposal
        source = unread(change)
        version = _seen(options.expected_version, confirmation)
        if source is None or (version is None and confirmation is not None):
            return None
        # The source may be gone after the update.
        request = await self._plans.request(connection_id, source, options.with_version(version))
        try:
            return await (await self._caller.updates()).starter.with_key(request)
        except IdempotencyKeyReused as error:
            return await self._pinned(request, error)

    async def _of_state(
        self,
        connection_id: str,
        change: changes.Change,
        options: Options,
        confirmation: Confirmation | None,
    ) -> Handle | Update | None:
        """What the request starts now; None if the state, or an update, has come between: look again."""
        starter = (await self._caller.updates()).starter
        fivetran = await self._caller.fivetran_for(connection_id)
        wanted = await self._sources.read(connection_id, change)
        version = _seen(options.expected_version, confirmation)
        plan = None
        if confirmation is not None and version is None:
            plan = await self._plans.plan_of(
                connection_id, wanted, None, then_sync=options.then_sync
            )
            version = plan.version_before
        request = await self._plans.request(connection_id, wanted, options.with_version(version))

        async def state_is_expected() -> bool:
            # Without an expected version, repeating a change means to make it again.
            return (
                version is None
                or await large.run(state.version, await fivetran.get_state(connection_id))
                == version
            )

        try:
            latest, handle = await starter.attach(request, state_is_expected)
        except IdempotencyKeyReused as error:
            return await self._pinned(request, error)
        if handle is not None:
            return handle
        if self._caller.has_policy or confirmation is not None:
            plan = plan or await self._plans.plan_of(
                connection_id, wanted, options.expected_version, then_sync=options.then_sync
            )
            if plan.ruling.forbidden is not None:
                raise by_policy(plan.ruling.forbidden)
            if plan.ruling.needs_approval:
                return await self._proposed(connection_id, change, options)
            if plan.ruling.closed is not None:
                raise by_policy(plan.ruling.closed, can_wait=True)
            # The update applies only to the version that was judged.
            request["expected_version"] = plan.version_before
            if confirmation is not None:
                if not plan.changes_total:
                    return await large.run_if(plan.is_large, plan.to_update)
                if not options.allow_resync:
                    refuse_pending_resync(plan.connection)
                if not await confirmation.covers(await self._plans.with_warnings(plan), latest):
                    return None
        return await starter.start(request, after=latest)

    async def _proposed_with_key(
        self, connection_id: str, change: changes.Change, options: Options
    ) -> Update | None:
        """The proposal that the request with this key has become."""
        updates = await self._caller.updates()
        given = await self._plans.request(connection_id, named(change), options)
        about = connection_id, fingerprint_of(given)
        workflow_id = await updates.proposals.attach(about, options.idempotency_key)
        if workflow_id is None:
            return None
        return proposal_views.as_update(await updates.proposals.get(workflow_id))

    async def _pinned(self, request: UpdateRequest, error: IdempotencyKeyReused) -> Handle:
        """The update that this request without a version has started; raises the error if it is another.

        The policy's judgement has pinned that one to a version.
        """
        if self._caller.has_policy and request["expected_version"] is None:
            updates = await self._caller.updates()
            workflow_id = str(error.details["workflow_id"])
            started: UpdateRequest = {
                **(await updates.store.get(workflow_id)).request,
                "expected_version": None,
            }
            if request_fingerprint(started) == request_fingerprint(request):
                return await updates.starter.find(workflow_id)
        raise error

    async def state_before(self, workflow_id: str) -> state.Document:
        """The state before an update; raises `WorkflowNotFound` if it had not read one."""
        before, _ = await self._found(workflow_id)
        return before

    async def _found(self, workflow_id: str) -> tuple[state.Document, UpdateRequest]:
        """The state before an update, and what was asked of it."""
        updates = await self._caller.updates()
        await self._caller.check_update(workflow_id)
        update = await updates.store.get(workflow_id)
        text = await updates.store.state_before(update)
        return await large.run(state.document, text), update.request

    async def states_of(self, workflow_id: str) -> tuple[state.Document, state.State]:
        """The states before and after an update."""
        before, request = await self._found(workflow_id)
        change = await large.run(
            state.parse_change,
            request["change_kind"],
            request["change"],
            request["change_is_exact"],
        )
        return before, await large.run(state.apply, change, before)

    async def cancel_update(self, workflow_id: str, *, wait_seconds: float = 0) -> Update:
        """End an update without writing; raises `TooLateToCancel` once it writes, or has ended."""
        with self._caller.events.refusing(workflow_id=workflow_id):
            return await self._cancelled(workflow_id, wait_seconds)

    async def _cancelled(self, workflow_id: str, wait_seconds: float) -> Update:
        self._caller.check_writable()
        updates = await self._caller.updates()
        await self._caller.check_update(workflow_id)
        update = await updates.store.get(workflow_id)
        if update.status == "running":
            await updates.starter.cancel(workflow_id)
            self._caller.events.record(
                Event(
                    Name.CANCEL_ASKED,
                    workflow_id=workflow_id,
                    connection=update.request["connection_id"],
                    principal=access.principal().name,
                )
            )
            await updates.followers.follow(
                await updates.starter.find(workflow_id), wait_seconds, ignore
            )
            update = await updates.store.get(workflow_id)
        view = views.update(update, await updates.store.steps(workflow_id))
        if view.status not in ("running", "cancelled"):
            raise too_late(workflow_id, view.status)
        return view


def _seen(expected_version: str | None, confirmation: Confirmation | None) -> str | None:
    """The version that the user or the agent has seen, if any."""
    if expected_version is not None or confirmation is None:
        return expected_version
    return confirmation.version
