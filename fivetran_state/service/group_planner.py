"""Makes the plan of a group: looks at each connection, and leaves enough of the account's calls to others."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from fivetran_state import changes, large
from fivetran_state.errors import (
    DatabaseUnavailable,
    EngineNotReady,
    FivetranStateError,
    MissingCredentials,
    RateLimited,
    Unauthorized,
    UnusableKey,
    UnusableSettings,
)
from fivetran_state.fivetran import Fivetran
from fivetran_state.plan import Plan, Wanted
from fivetran_state.question import TooLarge, unnumbered
from fivetran_state.service.caller import Caller
from fivetran_state.service.group_plan import GroupPlan, Looked
from fivetran_state.service.plans import Plans
from fivetran_state.service.refusals import by_policy
from fivetran_state.service.requests import Options
from fivetran_state.service.sources import Sources
from fivetran_state.updates import calls, statuses
from fivetran_state.updates.refusals import refuse_pending_resync
from fivetran_state.updates.store import in_progress

MAX_WAIT = 60.0
"""Seconds for which a plan waits while the account has too few calls left: somebody waits for the plan."""
_OF_THE_ACCOUNT = (
    RateLimited,
    MissingCredentials,
    Unauthorized,
    EngineNotReady,
    DatabaseUnavailable,
    UnusableKey,
    UnusableSettings,
)
"""Errors that are not about one connection."""
_CALLS_OF_A_LOOK = 2
_CALLS = 7
_CALLS_IF_PAUSED = 4


class _Pace:
    """Leaves the last tenth of the account's calls to single updates while a plan is made."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + MAX_WAIT
        self._looks = 0
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def look(self, fivetran: Fivetran) -> AsyncIterator[None]:
        """Wait until there are calls for a look. A look that Fivetran refuses ends without an error, to be
        repeated.

        Raises `RateLimited` after `MAX_WAIT`.
        """
        async with self._one:
            left = self._deadline - time.monotonic()
            if not await calls.are_enough(fivetran, lambda: self._looks * _CALLS_OF_A_LOOK, left):
                limit = fivetran.limit
                raise RateLimited(
                    "The account has less than a tenth of its calls left, which groups leave to "
                    "updates of single connections. Nothing was written.",
                    retry_after=max(MAX_WAIT, limit.renewed_in if limit else 0),
                )
        self._looks += 1
        try:
            yield
        except RateLimited:
            if time.monotonic() >= self._deadline:
                raise
        finally:
            self._looks -= 1


class Planner:
    """Looks at the connections of a group. Nothing is written."""

    def __init__(self, caller: Caller, sources: Sources, plans: Plans) -> None:
        self._caller = caller
        self._sources = sources
        self._plans = plans

    async def plan(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        *,
        is_shown: bool = False,
        asked_by: str | None = None,
    ) -> GroupPlan:
        """Look at every connection. What keeps one from being changed is in the plan; what keeps
        the account from it is raised.

        `is_shown`: a person or an agent will read it, so it has what is unusual, and the question.
        `asked_by`: who proposed it.
        """
        at_once = self._caller.settings.concurrency
        few = asyncio.Semaphore(at_once)
        beside_singles = (await self._caller.updates()).runtime.slots.steps
        sources: dict[int, asyncio.Task[Wanted]] = {}
        pace = _Pace()

        async def look(connection_id: str, change: changes.Change) -> Looked:
            if isinstance(change, changes.RestoreFrom):
                source = await self._sources.read(connection_id, change)
            else:  # The same for all that share it.
                if id(change) not in sources:
                    reading = self._sources.read(connection_id, change)
                    sources[id(change)] = asyncio.create_task(reading)
                try:
                    source = await sources[id(change)]
                except RateLimited:
                    sources.pop(id(change), None)
                    raise
            return await self._look(connection_id, source, options, is_shown, asked_by)

        async def looked(connection_id: str, change: changes.Change) -> Looked:
            async with few:
                try:
                    fivetran = await self._caller.fivetran_for(connection_id)
                    while True:
                        async with pace.look(fivetran), beside_singles:
                            return await look(connection_id, change)
                except FivetranStateError as error:
                    return Looked(connection_id, error=error)

        begin = time.monotonic()
        members = await asyncio.gather(*(looked(*each) for each in wanted.items()))
        for each in members:
            if isinstance(each.error, _OF_THE_ACCOUNT):
                raise each.error
        a_call = (time.monotonic() - begin) * min(at_once, len(wanted)) / (2 * len(wanted))
        planned = sum(each.calls for each in members if each.is_changed)
        return GroupPlan(options.mode, members, planned * a_call / at_once, options.then_sync)

    async def _look(
        self,
        connection_id: str,
        source: Wanted,
        options: changes.GroupOptions,
        is_shown: bool,
        asked_by: str | None,
    ) -> Looked:
        updates = await self._caller.updates()
        plan = await self._plans.plan_of(
            connection_id, source, None, then_sync=options.then_sync, asked_by=asked_by
        )
        if plan.ruling.forbidden is not None:
            raise by_policy(plan.ruling.forbidden)
        if not options.allow_resync:
            refuse_pending_resync(plan.connection)
        latest = await updates.store.latest(
            await self._caller.owner(connection_id), load_input=False
        )
        if latest is not None and statuses.is_running(latest) and not options.waits:
            raise in_progress(latest)
        # The policy has judged only this version.
        is_pinned = options.expected_version is not None or self._caller.has_policy
        of_member = options_of_members(options).with_version(
            plan.version_before if is_pinned else None
        )
        request = await self._plans.request(connection_id, source, of_member)
        request["mode"] = options.mode
        latest_number = 0 if latest is None else statuses.number(latest.workflow_id)
        if latest is None or not statuses.is_running(latest):
            # The next update may begin only when this one has ended, which the group looks for.
            request["number"] = latest_number + 1
        looked = Looked(
            connection_id,
            request=request,
            latest_number=latest_number,
            version_before=plan.version_before,
            version_after=plan.version_after,
            changes=tuple(plan.changes),
            changes_total=plan.changes_total,
            calls=calls_of(is_paused=plan.connection.paused, then_sync=options.then_sync),
            ruling=plan.ruling,
        )
        if not (is_shown and looked.is_changed):
            return looked
        plan = await self._plans.with_warnings(plan)
        return await large.run_if(plan.is_large, _described, looked, plan)


def options_of_members(options: changes.GroupOptions) -> Options:
    return Options(None, options.reason, None, options.then_sync, options.allow_resync)


def calls_of(*, is_paused: bool, then_sync: bool) -> int:
    """The calls to Fivetran that one update takes."""
    return (_CALLS_IF_PAUSED if is_paused else _CALLS) + then_sync


def _described(looked: Looked, plan: Plan) -> Looked:
    """With what a person or an agent is told about it."""
    in_full = None
    with suppress(TooLarge):
        in_full = tuple(unnumbered(plan.before, plan.applied.after))
    return replace(
        looked,
        warnings=tuple(plan.cautions),
        described=plan.described_connection,
        consequences=tuple(plan.consequences),
        in_full=in_full,
    )
