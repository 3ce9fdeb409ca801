"""Changes of several connections: planned, made and undone together."""

import asyncio
import fnmatch
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from fivetran_state import changes, large, state
from fivetran_state.errors import (
    Cancelled,
    Conflict,
    FivetranStateError,
    InvalidRequest,
    NothingToUndo,
)
from fivetran_state.models import (
    Failure,
    GroupPlanView,
    GroupState,
    MemberPlan,
    UpdatesView,
)
from fivetran_state.plan import Wanted
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.changes import Changes, check_version
from fivetran_state.service.connections import MAX_PAGE
from fivetran_state.service.group_plan import MAX_CONNECTIONS, GroupPlan, Looked, calls_of
from fivetran_state.service.refusals import too_late
from fivetran_state.service.requests import Options
from fivetran_state.service.sources import Sources
from fivetran_state.updates import groups, statuses
from fivetran_state.updates.ends import End
from fivetran_state.updates.groups import Status
from fivetran_state.updates.records import GroupRequest
from fivetran_state.updates.refusals import refuse_pending_resync
from fivetran_state.updates.store import in_progress

MAX_BYTES = 5 * state.MAX_BYTES
"""Of all the changes of one group."""
SHOWN_UPDATES = 100


class Groups:
    """Changes several connections of one account together."""

    def __init__(self, caller: Caller, sources: Sources, changes: Changes) -> None:
        self._caller = caller
        self._sources = sources
        self._changes = changes

    async def chosen(
        self, *, name: str | None = None, group: str | None = None, service: str | None = None
    ) -> list[str]:
        """The ids of the connections that keep a state and fit every filter.

        `name` is a glob on the id or the name, `group` a group's id or name. Raises `InvalidRequest` if
        there are none, or too many.
        """
        fivetran = (await self._caller.account()).fivetran
        names = await fivetran.group_names()
        found: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = await fivetran.list_connections(cursor=cursor, limit=MAX_PAGE)
            found += [
                each.id
                for each in page
                if each.keeps_state
                and self._caller.settings.allows(each.id)
                and (name is None or _fits(name, each.id) or _fits(name, each.schema))
                and group in (None, each.group_id, names.get(each.group_id))
                and service in (None, each.service)
            ]
            if cursor is None:
                break
        if not found:
            raise InvalidRequest(
                "No connection that keeps a state fits the filter. Look at the list of connections."
            )
        return sorted(found)

    async def undo_of(self, workflow_id: str) -> dict[str, changes.Change]:
        """The change that undoes a group: for each connection that it changed, the state before that."""
        found = await self._status(workflow_id, 0)
        if not found.has_ended:
            raise InvalidRequest(f"{workflow_id} is still running; wait for its end, or cancel it.")
        undone = {
            connection_id: changes.RestoreFrom(at=str(end["workflow_id"]), only=None)
            for connection_id, end in found.ends.items()
            if end["how"] == "updated"
        }
        if not undone:
            raise NothingToUndo(f"{workflow_id} wrote nothing, so there is nothing to undo.")
        return dict(undone)

    async def plan_updates(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        *,
        in_full: bool = False,
    ) -> GroupPlanView:
        """Look at all connections; nothing is written. Raises `Conflict` for another version.

        `in_full`: with every connection that would change, not only the first ones.
        """
        self._check(wanted, options)
        plan = await self._plan(wanted, options)
        _check_expected(plan, options)
        return plan.view(in_full=in_full)

    async def update_states(
        self,
        wanted: Mapping[str, changes.Change],
        options: changes.GroupOptions,
        *,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
    ) -> UpdatesView:
        """Change several connections, each by an update of its own.

        All are looked at before any is touched. `wanted` has the change of each, by connection id. An
        equal request attaches to the group that is running. Raises the worst error, with `updates` in its
        details, unless the mode is `independent`.
        """
        self._caller.check_writable()
        self._check(wanted, options)
        updates = await self._caller.updates()
        account = (await self._caller.account()).id
        asked = await self._asked_unread(wanted, options)
        workflow_id = await updates.groups.attach(asked, account, idempotency_key)
        if workflow_id is None:
            plan = await self._plan(wanted, options)
            _check_expected(plan, options)
            if options.mode == "all_or_nothing" and plan.failures:
                raise _refused(plan)
            chosen = plan.members if options.mode == "all_or_nothing" else plan.changed
            asked["members"] = [each.request for each in chosen if each.request is not None]
            if not asked["members"]:
                raise (
                    _refused(plan)
                    if plan.failures
                    else InvalidRequest(
                        "The change would leave every connection as it is. Nothing was written."
                    )
                )
            workflow_id = await updates.groups.start(asked, account, idempotency_key)
        large.let_others()
        return await self._end(workflow_id, wait_seconds)

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
            named = _named(change)
            if id(change) not in texts:
                texts[id(change)] = await large.run(state.dump, named.change.value)
            total += len(texts[id(change)])
            if total > MAX_BYTES:
                raise InvalidRequest(
                    f"These changes have more than {MAX_BYTES:,} bytes in total. Send a patch, or "
                    "change fewer connections at a time."
                )
            members.append(
                await self._changes.request(
                    connection_id, named, _of_members(options), texts[id(change)]
                )
            )
        return GroupRequest(
            members=members,
            mode=options.mode,
            expected_version=options.expected_version,
            waits=options.waits,
        )

    async def _plan(
        self, wanted: Mapping[str, changes.Change], options: changes.GroupOptions
    ) -> GroupPlan:
        """Look at every connection. What keeps one from being changed is in the plan."""
        at_once = self._caller.settings.concurrency
        few = asyncio.Semaphore(at_once)
        sources: dict[int, asyncio.Task[Wanted]] = {}

        async def look(connection_id: str, change: changes.Change) -> Looked:
            async with few:
                try:
                    if isinstance(change, changes.RestoreFrom):
                        source = await self._sources.read(connection_id, change)
                    else:  # The same for all that share it.
                        if id(change) not in sources:
                            reading = self._sources.read(connection_id, change)
                            sources[id(change)] = asyncio.create_task(reading)
                        source = await sources[id(change)]
                    return await self._look(connection_id, source, options)
                except FivetranStateError as error:
                    return Looked(connection_id, error=error)

        begin = time.monotonic()
        members = await asyncio.gather(*(look(*each) for each in wanted.items()))
        a_call = (time.monotonic() - begin) * min(at_once, len(wanted)) / (2 * len(wanted))
        calls = sum(each.calls for each in members if each.is_changed)
        return GroupPlan(options.mode, members, calls * a_call / at_once, options.then_sync)

    async def _look(
        self, connection_id: str, source: Wanted, options: changes.GroupOptions
    ) -> Looked:
        updates = await self._caller.updates()
        plan = await self._changes.plan_of(connection_id, source, None, then_sync=options.then_sync)
        if not options.allow_resync:
            refuse_pending_resync(plan.connection)
        latest = await updates.store.latest(
            await self._caller.owner(connection_id), load_input=False
        )
        if latest is not None and statuses.is_running(latest) and not options.waits:
            raise in_progress(latest)
        of_member = _of_members(options).with_version(
            None if options.expected_version is None else plan.version_before
        )
        request = await self._changes.request(connection_id, source, of_member)
        request["mode"] = options.mode
        request["number"] = 1 if latest is None else statuses.number(latest.workflow_id) + 1
        return Looked(
            connection_id,
            request=request,
            version_before=plan.version_before,
            version_after=plan.version_after,
            changes=tuple(plan.changes),
            changes_total=plan.changes_total,
            warnings=plan.warnings,
            calls=calls_of(is_paused=plan.connection.paused, then_sync=options.then_sync),
        )

    def is_group(self, workflow_id: str) -> bool:
        """True for the id of a group."""
        return groups.is_id(workflow_id)

    async def updates_status(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """The group's progress, or its end."""
        return await self._view(workflow_id, await self._status(workflow_id, wait_seconds))

    async def cancel_updates(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """Cancel a group: nothing more is written, and `all_or_nothing` changes nothing.

        Raises `TooLateToCancel` once all are written.
        """
        self._caller.check_writable()
        updates = await self._caller.updates()
        await self._caller.check_group(workflow_id)
        await updates.groups.cancel(workflow_id, (await self._caller.account()).id)
        view = await self._view(workflow_id, await self._status(workflow_id, wait_seconds))
        if view.status in ("updated", "failed"):
            raise too_late(workflow_id, view.status)
        return view

    async def _status(self, workflow_id: str, wait_seconds: float) -> Status:
        await self._caller.check_group(workflow_id)
        updates = await self._caller.updates()
        return await updates.groups.follow(
            workflow_id, (await self._caller.account()).id, wait_seconds
        )

    async def _end(self, workflow_id: str, wait_seconds: float) -> UpdatesView:
        """The group's progress, or its end; raises its error if it changed nothing."""
        found = await self._status(workflow_id, wait_seconds)
        view = await self._view(workflow_id, found)
        if found.error is not None and found.mode == "all_or_nothing":
            found.error.details |= {
                "workflow_id": workflow_id,
                "updates": [update.to_json() for update in view.updates],
            }
            raise found.error
        return view

    async def _view(self, workflow_id: str, found: Status) -> UpdatesView:
        """Bounded: the failures and the running updates come first if there are many."""
        updates = await self._caller.updates()
        ids = _most_telling(found)
        shown = {
            each.workflow_id: replace(each, progress=await updates.store.progress(each.workflow_id))
            if each.status == "running"
            else each
            for each in await updates.listings.by_ids(ids)
        }
        counts = Counter(
            end["how"] if (end := found.ends.get(id_)) else _how_far(id_, found)
            for id_ in found.members
        )
        return UpdatesView(
            workflow_id=workflow_id,
            status=_status_of(found),
            mode=found.mode,
            total=len(found.members),
            counts=dict(sorted(counts.items())),
            updates=[
                views.update(shown[id_], await updates.store.steps(id_))
                for id_ in ids
                if id_ in shown
            ],
            not_started=[
                MemberPlan(connection_id=id_, error=_failure(end))
                for id_, end in found.ends.items()
                if end["workflow_id"] is None
            ][:SHOWN_UPDATES]
            or None,
            error=None if found.error is None else views.failure(found.error),
        )


def _check_expected(plan: GroupPlan, options: changes.GroupOptions) -> None:
    if options.expected_version not in (None, plan.version):
        raise Conflict(
            f"The plan has the version {plan.version}, not {options.expected_version}: a state has "
            "moved, or other connections cannot be changed. Nothing was written.",
            current_version=plan.version,
        )


def _of_members(options: changes.GroupOptions) -> Options:
    return Options(None, options.reason, None, options.then_sync, options.allow_resync)


def _named(change: changes.Change) -> Wanted:
    """The change as it is named; the source is not read."""
    match change:
        case changes.Inline():
            return Wanted(change.change)
        case _:
            return Wanted(state.Change("new_state", {}), source=change.source)


def _fits(glob: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text.lower(), glob.lower())


def _refused(plan: GroupPlan) -> FivetranStateError:
    """The error for a group with connections that cannot be changed: that of the first one."""
    failures = plan.failures
    error = failures[0].error
    assert error is not None, "it is a failure"
    if len(failures) > 1:
        error.details["failures"] = [each.view().to_json() for each in failures[:SHOWN_UPDATES]]
    return error


def _most_telling(found: Status) -> list[str]:
    """The ids of the updates to show: all in order, or of many those that failed or run."""
    ids = [found.started[id_] for id_ in found.members if id_ in found.started]
    if len(ids) <= SHOWN_UPDATES:
        return ids
    ended = {end["workflow_id"]: end for end in found.ends.values()}

    def weight(workflow_id: str) -> int:
        end = ended.get(workflow_id)
        return 1 if end is None else 2 if end["message"] is None else 0

    return sorted(ids, key=weight)[:SHOWN_UPDATES]


def _how_far(connection_id: str, found: Status) -> str:
    return "running" if connection_id in found.started else "waiting"


def _status_of(found: Status) -> GroupState:
    if not found.has_ended:
        return "running"
    if found.error is None:
        return "updated"
    if any(end["message"] is None for end in found.ends.values()):
        return "partly_updated"
    return "cancelled" if isinstance(found.error, Cancelled) else "failed"


def _failure(end: End) -> Failure:
    return views.failure(
        FivetranStateError.from_json({"code": end["how"], "message": end["message"]})
    )
