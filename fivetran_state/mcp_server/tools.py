"""The tools. A model chooses among them by their docstrings and descriptions."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import InputRequiredResult, ToolAnnotations
from pydantic import Field

from fivetran_state import phases
from fivetran_state.access import principal
from fivetran_state.changes import Filter, GroupOptions, parse, refuse_cursor
from fivetran_state.config import Settings
from fivetran_state.errors import FivetranStateError
from fivetran_state.mcp_server import several
from fivetran_state.mcp_server.app import SHOWN
from fivetran_state.mcp_server.confirmation import (
    Asking,
    ElicitedConfirmation,
    ElicitedGroupConfirmation,
    can_ask,
    lead_to_page,
)
from fivetran_state.mcp_server.strict import StrictTool, strict_tool
from fivetran_state.mcp_server.tasks import gets_tasks
from fivetran_state.models import (
    ConnectionPage,
    GroupPlanView,
    HistoryPage,
    ProposalView,
    StateView,
    Update,
    UpdatesView,
    WorkflowView,
)
from fivetran_state.pages import Pages
from fivetran_state.startup import Backend

if TYPE_CHECKING:
    from fivetran_state.updates.records import Progress

ConnectionId = Annotated[str, Field(description="An id, such as speak_inexpensive.")]
Objects = Annotated[list[dict[str, Any]], Field(fail_fast=True)]
WaitSeconds = Annotated[float, Field(ge=0, le=50, description="Seconds to wait for its end.")]


class Tools:
    """The tools of one server, as an iterable for the SDK."""

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self._backend = backend
        self._settings = settings

    def __iter__(self) -> Iterator[StrictTool]:
        events = self._backend.events
        yield strict_tool(
            self.list_connections, events=events, annotations=_reads("List connections")
        )
        yield strict_tool(self.get_state, events=events, annotations=_reads("Read a state"))
        if not self._settings.read_only:
            yield strict_tool(
                self.update_state,
                events=events,
                meta=SHOWN,
                annotations=ToolAnnotations(
                    title="Change a state",
                    read_only_hint=False,
                    destructive_hint=True,
                    idempotent_hint=True,
                    open_world_hint=True,
                ),
            )
            yield strict_tool(
                self.update_states,
                events=events,
                meta=SHOWN,
                annotations=ToolAnnotations(
                    title="Change many states",
                    read_only_hint=False,
                    destructive_hint=True,
                    idempotent_hint=True,
                    open_world_hint=True,
                ),
            )
            yield strict_tool(
                self.cancel_update,
                events=events,
                annotations=ToolAnnotations(
                    title="Cancel an update",
                    read_only_hint=False,
                    destructive_hint=False,
                    idempotent_hint=True,
                    open_world_hint=True,
                ),
            )
        yield strict_tool(
            self.workflow_status,
            events=events,
            meta=SHOWN,
            annotations=_reads("Follow an update"),
        )
        yield strict_tool(
            self.state_history,
            events=events,
            meta=SHOWN,
            annotations=_reads("See how a state moved"),
        )

    @property
    def _proposes(self) -> bool:
        """True if all changes of this caller need somebody else's approval."""
        return self._settings.proposes_all(principal().scopes)

    def _asks(self, context: Context[Any, Any]) -> bool:
        """True if the person behind this call is asked."""
        return self._settings.confirm != "never" and can_ask(context)

    async def _lead_to_page(
        self, context: Context[Any, Any], status: str, workflow_id: str | None
    ) -> None:
        page = Pages(self._settings.public_url).proposal(str(workflow_id))
        if status == "proposed" and page is not None and not gets_tasks(context.request_context):
            await lead_to_page(context, page)

    async def list_connections(
        self,
        name: Annotated[str | None, Field(description="Part of the id or name.")] = None,
        service: Annotated[str | None, Field(description="Such as connector_sdk.")] = None,
        cursor: Annotated[str | None, Field(description="next_cursor of the last page.")] = None,
        limit: Annotated[int, Field(ge=1, le=1000)] = 50,
    ) -> ConnectionPage:
        """Find a connection's id. The other tools need one with keeps_state true."""
        service_ = await self._backend.service()
        return await service_.connections.list_connections(
            name=name, service=service, cursor=cursor, limit=limit
        )

    async def get_state(
        self,
        connection_id: ConnectionId,
        path: Annotated[
            str | None, Field(description="JSON Pointer to a part of it, such as /orders.")
        ] = None,
        max_bytes: Annotated[
            int,
            Field(
                ge=0,
                le=1_000_000,
                description="A larger value comes as an outline. 0: only size and version.",
            ),
        ] = 20_000,
        at: Annotated[
            str | None,
            Field(
                description="A past state: a time with zone, a version, or a workflow_id (the state "
                "before that update)."
            ),
        ] = None,
        search: Annotated[
            str | None,
            Field(description="Part of a path: lists what it finds, at any depth."),
        ] = None,
        cursor: Annotated[str | None, Field(description="next_cursor of the last page.")] = None,
    ) -> StateView:
        """Read a connection's state, its version, and whether it is paused or syncing.

        Call it before update_state. To follow an update, use workflow_status instead.
        """
        service = await self._backend.service()
        return await service.states.get_state(
            connection_id, path=path, max_bytes=max_bytes, at=at, search=search, cursor=cursor
        )

    async def state_history(
        self,
        connection_id: ConnectionId,
        path: Annotated[
            str | None, Field(description="JSON Pointer: only when this part moved.")
        ] = None,
        kind: Annotated[
            str | None, Field(description="What moved it: sync, update or others.")
        ] = None,
        since: Annotated[str | None, Field(description="A time with zone.")] = None,
        until: Annotated[str | None, Field(description="A time with zone.")] = None,
        cursor: Annotated[str | None, Field(description="next_cursor of the last page.")] = None,
        limit: Annotated[int, Field(ge=1, le=100)] = 20,
    ) -> HistoryPage:
        """See when a state moved, what moved it (a sync, an update, others), and updates that failed.

        Only states that were seen are known. Read one with get_state(at=), put one back with
        update_state(restore_from=).
        """
        service = await self._backend.service()
        return await service.history.time_line(
            connection_id,
            kind=kind,
            since=since,
            until=until,
            path=path,
            cursor=cursor,
            limit=limit,
        )

    async def update_state(
        self,
        connection_id: ConnectionId,
        context: Context[Any, Any],
        new_state: Annotated[
            dict[str, Any] | str | None, Field(description="The whole new state.")
        ] = None,
        merge_patch: Annotated[
            dict[str, Any] | str | None,
            Field(description="RFC 7386: the members to set; null removes one."),
        ] = None,
        json_patch: Annotated[
            Objects | str | None,
            Field(description="RFC 6902 operations."),
        ] = None,
        restore_from: Annotated[
            str | None,
            Field(
                description="A workflow_id (the state before that update), a time with zone, or a "
                "version: puts that whole state back. Every cursor moves back, including those that "
                "syncs have moved since; see only."
            ),
        ] = None,
        copy_from: Annotated[
            str | None,
            Field(
                description="Another connection's id: the state it has now, or with @ and a time or version, had."
            ),
        ] = None,
        only: Annotated[
            str | None,
            Field(
                description="JSON Pointer: with restore_from or copy_from, changes this part only."
            ),
        ] = None,
        expected_version: Annotated[
            str | None,
            Field(
                description="The version that you or the user saw. The change applies only to it."
            ),
        ] = None,
        dry_run: Annotated[bool, Field(description="Only return the plan.")] = False,
        propose: Annotated[bool, Field(description="Let a person approve it.")] = False,
        then_sync: Annotated[bool, Field(description="Start a sync at the end.")] = False,
        allow_resync: Annotated[
            bool, Field(description="Write even if a pending re-sync will overwrite it.")
        ] = False,
        reason: Annotated[str | None, Field(max_length=500, description="For the history.")] = None,
        idempotency_key: Annotated[
            str | None,
            Field(
                max_length=200,
                description="For retries: the same key never updates twice.",
            ),
        ] = None,
        wait_seconds: WaitSeconds = 20,
    ) -> Update | InputRequiredResult:
        """Change a connection's state safely: pause, stop a running sync, write, verify, resume.

        Give exactly one of new_state, merge_patch, json_patch, restore_from (to undo), copy_from.
        The first three take JSON, or a string of JSON text, which keeps every number exact. Prefer
        a patch to new_state: it leaves the rest untouched. If the client can ask, the user is
        asked. If not, a call without expected_version only returns the plan: show it, then call
        again with its version_before as expected_version. If the answer is "running", follow it
        with workflow_status; do not call this again.
        """
        service = await self._backend.service()
        given = {
            "new_state": new_state,
            "merge_patch": merge_patch,
            "json_patch": json_patch,
            "restore_from": restore_from,
            "copy_from": copy_from,
        }
        propose = propose or self._proposes
        asks = not propose and self._asks(context)
        if dry_run or (expected_version is None and not asks and not propose):
            return await service.plans.plan_update(
                connection_id,
                await parse(given, only),
                expected_version=expected_version,
                then_sync=then_sync,
            )
        try:
            update = await service.changes.update_state(
                connection_id,
                await parse(given, only),
                expected_version=expected_version,
                then_sync=then_sync,
                allow_resync=allow_resync,
                reason=reason,
                idempotency_key=idempotency_key,
                wait_seconds=wait_seconds,
                on_progress=_reporter(context),
                confirmation=ElicitedConfirmation(context) if asks else None,
                propose=propose,
            )
            await self._lead_to_page(context, update.status, update.workflow_id)
        except Asking as asking:
            return asking.question
        if update.status != "running":
            await context.report_progress(len(phases.USUAL), len(phases.USUAL), update.message)
        return update

    async def update_states(
        self,
        context: Context[Any, Any],
        connection_ids: Annotated[
            Annotated[list[str], Field(fail_fast=True)] | None, Field(description="Up to 1,000.")
        ] = None,
        name: Annotated[
            str | None, Field(description="Glob on ids and names, such as orders_*.")
        ] = None,
        group: Annotated[str | None, Field(description="A group's id or name.")] = None,
        service: str | None = None,
        changes: Annotated[
            Objects | str | None,
            Field(
                description="A change for each: objects with connection_id and a kind of change."
            ),
        ] = None,
        new_state: dict[str, Any] | str | None = None,
        merge_patch: dict[str, Any] | str | None = None,
        json_patch: Objects | str | None = None,
        restore_from: Annotated[
            str | None,
            Field(
                description="A group's workflow_id undoes it; choose no connections then. Or a time."
            ),
        ] = None,
        copy_from: str | None = None,
        only: str | None = None,
        independent: Annotated[
            bool, Field(description="Each succeeds or fails by itself, not all or nothing.")
        ] = False,
        expected_version: Annotated[
            str | None, Field(description="The plan's version: pins every state.")
        ] = None,
        dry_run: bool = False,
        propose: bool = False,
        cursor: Annotated[
            str | None, Field(description="With dry_run: the plan's next_cursor.")
        ] = None,
        then_sync: bool = False,
        allow_resync: bool = False,
        wait_if_busy: Annotated[
            bool, Field(description="Wait for running updates, not refuse.")
        ] = False,
        reason: Annotated[str | None, Field(max_length=500)] = None,
        idempotency_key: Annotated[str | None, Field(max_length=200)] = None,
        wait_seconds: WaitSeconds = 20,
    ) -> GroupPlanView | UpdatesView | InputRequiredResult:
        """Change several connections' states together, each as update_state would.

        Choose by connection_ids; or by name, group, service (those that fit all); with one change
        for all. Or give changes. Without expected_version, the user is asked if the client can ask;
        else the answer is the plan: show it, then call again with its version as expected_version.
        If one fails, none is changed, unless independent. Follow "running" with workflow_status.
        """
        found = await self._backend.service()
        given = {
            "new_state": new_state,
            "merge_patch": merge_patch,
            "json_patch": json_patch,
            "restore_from": restore_from,
            "copy_from": copy_from,
        }
        filter_ = Filter(name=name, group=group, service=service)
        wanted = await several.wanted(found, connection_ids, filter_, changes, given, only)
        options = GroupOptions(
            mode="independent" if independent else "all_or_nothing",
            expected_version=expected_version,
            waits=wait_if_busy,
            then_sync=then_sync,
            allow_resync=allow_resync,
            reason=reason,
        )
        propose = propose or self._proposes
        asks = not propose and self._asks(context)
        if dry_run or (expected_version is None and not asks and not propose):
            return await found.groups.plan_updates(wanted, options, cursor=cursor)
        refuse_cursor(cursor)
        try:
            view = await found.groups.update_states(
                wanted,
                options,
                idempotency_key=idempotency_key,
                wait_seconds=wait_seconds,
                on_look=several.counter(context),
                confirmation=ElicitedGroupConfirmation(context) if asks else None,
                propose=propose,
            )
            if isinstance(view, UpdatesView):
                await self._lead_to_page(context, view.status, view.workflow_id)
        except Asking as asking:
            return asking.question
        except FivetranStateError as error:
            several.shorten(error)
            raise
        if isinstance(view, GroupPlanView):
            return view
        if view.status != "running":
            await context.report_progress(view.total, view.total, view.message)
        return several.brief(view)

    async def workflow_status(
        self,
        workflow_id: Annotated[str, Field(description="Of an update or a group.")],
        context: Context[Any, Any],
        wait_seconds: WaitSeconds = 0,
    ) -> WorkflowView | UpdatesView:
        """See how far an update is, or how it ended and what has happened since.

        While it runs, call again with wait_seconds instead of calling often. Once it has ended,
        `since` says whether a sync has run and whether the state has moved.
        """
        service = await self._backend.service()
        view = await service.by_id.status(
            workflow_id,
            wait_seconds=wait_seconds,
            on_progress=_reporter(context),
            on_look=several.counter(context),
        )
        return several.brief(view) if isinstance(view, UpdatesView) else view

    async def cancel_update(
        self,
        workflow_id: Annotated[str, Field(description="Of an update or a group.")],
        wait_seconds: WaitSeconds = 20,
    ) -> Update | UpdatesView:
        """Cancel an update before it writes: the connection stays as it was.

        Refused once it writes. Then wait for its end, and undo it with restore_from.
        """
        service = await self._backend.service()
        ended = await service.by_id.cancel(workflow_id, wait_seconds=wait_seconds)
        view = await service.by_id.status(workflow_id) if isinstance(ended, ProposalView) else ended
        if isinstance(view, UpdatesView):
            return several.brief(view)
        return as_update(view) if isinstance(view, WorkflowView) else view


def as_update(view: WorkflowView) -> Update:
    return Update(**{name: getattr(view, name) for name in Update.model_fields})


def _reads(title: str) -> ToolAnnotations:
    return ToolAnnotations(title=title, read_only_hint=True, open_world_hint=True)


def _reporter(context: Context[Any, Any]) -> "Callable[[Progress], Awaitable[None]]":
    """Reports each phase to the client, never backwards."""
    reached = 0

    async def report(progress: "Progress") -> None:
        nonlocal reached
        if progress["phase"] in phases.USUAL:
            reached = max(reached, phases.USUAL.index(progress["phase"]))
        await context.report_progress(reached, len(phases.USUAL), progress["message"])

    return report
