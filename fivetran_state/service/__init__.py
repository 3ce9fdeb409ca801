"""One asynchronous method per capability; every surface calls these and nothing deeper."""

import asyncio
import copy
import hashlib
import platform
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, cast

from fivetran_state import __version__, changes, large, state, views
from fivetran_state.config import Settings
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    Forbidden,
    InvalidChange,
    InvalidRequest,
    LeftPaused,
    MissingCredentials,
    NoStateYet,
    NotAllowed,
    NothingToUndo,
    TooLateToCancel,
    Unauthorized,
    UnusableKey,
    WorkflowNotFound,
)
from fivetran_state.fivetran import Connection, Fivetran, is_cursor
from fivetran_state.ids import UpdateId, is_connection_id, is_update_number
from fivetran_state.models import (
    ConnectionPage,
    ConnectionSummary,
    Since,
    StateView,
    Update,
    UpdatesView,
    WorkflowPage,
    WorkflowView,
)
from fivetran_state.plan import Confirmation, Plan, Wanted
from fivetran_state.runtime.engine import Account, Engine
from fivetran_state.text import shown, visible
from fivetran_state.updates import group
from fivetran_state.updates import store as updates
from fivetran_state.updates.records import Progress, UpdateRequest
from fivetran_state.updates.refusals import (
    conflict,
    refuse_impossible_sync,
    refuse_pending_resync,
    state_not_kept,
)


@dataclass(frozen=True)
class Finding:
    """One line of `fivetran-state doctor`."""

    what: str
    is_well: bool
    detail: str


OnProgress = Callable[[Progress], Awaitable[None]]

DEFAULT_MAX_BYTES = 20_000
LIMIT_OF_MAX_BYTES = 1_000_000
AHEAD = 0.01
"""Seconds of head start for Fivetran, which takes longer than the database."""
MAX_PAGE = 1000
_SKIPPED = re.compile("[0-9]{1,4}")
MAX_PAGES_SEARCHED = 20
MAX_SEEN = 10_000
"""Connections of which a process remembers whether they were paused."""
READ_AT_ONCE = 8
"""Connections that one request looks at, at the same time."""


async def _ignore(progress: Progress) -> None:
    pass


class Service:
    """The capabilities of one account. Every method raises only `FivetranStateError`s."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = Engine(settings)
        self._guest: Account | None = None
        self._seen_paused: OrderedDict[str, bool] = OrderedDict()
        """By owner: only a hint, in which order an update had best read."""

    async def of(self, api_key: str, api_secret: str) -> "Service":
        """The same capabilities for the account of these credentials."""
        service = copy.copy(self)
        service._guest = await self._engine.guest(api_key, api_secret)
        return service

    def start(self) -> None:
        """Begin to come up in the background, on the event loop of all later calls."""
        self._engine.start()

    async def close(self, patience: float = 0) -> None:
        """Stop. Updates that do not end within `patience` seconds are handed over to a new process."""
        if patience:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._engine.idle(), patience)
        await self._engine.close()

    async def check_ready(self) -> None:
        """Raise the error that keeps updates from being made, or the database from being read."""
        await self._engine.up()
        await updates.unfinished()

    async def leave(self) -> None:
        """Do only the part of `close` that matters when the process ends right afterwards."""
        await self._engine.leave()

    async def finish(self, after: str | None = None) -> dict[str, str]:
        """Wait until no update is left that this process, or a dead one, has to finish.

        Returns the connections that updates have left paused, with the update's id.
        """
        await self._engine.finish(after)
        return await self.left_paused()

    async def left_paused(self) -> dict[str, str]:
        """Connection id → workflow id of each connection that an update has left paused at Fivetran.

        A guest's connection is named behind its account. A connection that Fivetran does not show,
        because it refuses the key or a guest's credentials are erased, counts as paused.
        """
        await self._engine.up()
        found = {}
        for owner, workflow_id in (await updates.left_paused()).items():
            request = (await updates.get(workflow_id)).request
            with suppress(ConnectionNotFound):
                if await self._is_paused(request, workflow_id):
                    found[owner] = workflow_id
        return found

    async def _is_paused(self, request: UpdateRequest, workflow_id: str) -> bool:
        async with AsyncExitStack() as stack:
            account, credentials = request.get("account"), request.get("credentials")
            if account is not None or credentials is not None:
                try:
                    fivetran = self._engine.client_of(account, credentials, workflow_id)
                except MissingCredentials:
                    return True
                stack.push_async_callback(fivetran.aclose)
            else:
                fivetran = await self._engine.ready()
            try:
                return (await fivetran.get_connection(request["connection_id"])).paused
            except (Unauthorized, Forbidden):
                return True

    async def diagnose(self) -> list[Finding]:
        """The findings of `fivetran-state doctor`."""
        findings = [Finding("versions", True, _versions())]

        async def check(what: str, look: Awaitable[str]) -> None:
            try:
                findings.append(Finding(what, True, await look))
            except FivetranStateError as error:
                told = f"{error.message} {error.hint}"
                is_new = all(finding.detail != told for finding in findings)
                findings.append(Finding(what, False, told if is_new else "for the same reason"))

        await check("database, key, lock", self._database_answers())
        await check("Fivetran", self._fivetran_answers())
        await check("updates", self._updates_are_well())
        await check("recovery", self._nothing_is_left_to_others())
        return findings

    async def _database_answers(self) -> str:
        await self._engine.up()
        return self._engine.database

    async def _fivetran_answers(self) -> str:
        await self._engine.up()
        if self._settings.takes_guests and self._settings.api_key is None:
            return "no account of the server's own; requests bring theirs"
        fivetran = await self._engine.ready()
        connections, cursor = await fivetran.list_connections(limit=1000)
        keeping = sum(connection.keeps_state for connection in connections)
        more = " or more" if cursor else ""
        return f"{len(connections)}{more} connections, {keeping} of which keep a state"

    async def _updates_are_well(self) -> str:
        paused = await self.left_paused()
        if paused:
            listed = ", ".join(f"{name} (by {update})" for name, update in paused.items())
            raise LeftPaused(f"Still paused: {listed}.")
        return f"{len(await updates.unfinished())} running, no connection is left paused"

    async def _nothing_is_left_to_others(self) -> str:
        await self._engine.up()
        left = await asyncio.to_thread(self._engine.left_to_others)
        if left:
            raise NotAllowed(
                f"{', '.join(left)}: the process that ran it has ended, and this one may not go on "
                "with it. Start a server, or run finish, with settings that allow it."
            )
        if self._settings.read_only:
            return "left to others: this server may not change anything"
        if self._settings.allowed_connections != "*":
            return "of the connections that this server may change; others are left to others"
        return "of every update whose process ends"

    async def list_connections(
        self,
        *,
        name: str | None = None,
        service: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ConnectionPage:
        """The account's connections whose id or name contains `name`, of one service, page by page.

        Fivetran cannot search, so its pages are read until `limit` are found. Our cursor
        says how many connections to skip on which of Fivetran's pages. Raises `InvalidRequest` for a
        service that no connection has.
        """
        fivetran = (await self._account()).fivetran
        group_names = await fivetran.group_names()
        services: set[str] = set()
        skip, at = _place(cursor) if cursor else (0, None)
        is_search = name or service or self._settings.allowed_connections != "*"
        found: list[ConnectionSummary] = []
        for _ in range(MAX_PAGES_SEARCHED):
            try:
                page, following = await fivetran.list_connections(
                    cursor=at, limit=MAX_PAGE if is_search else limit
                )
            except FivetranError as error:
                if cursor and at and error.details.get("status") == 400:
                    raise _not_a_cursor(cursor) from error
                raise
            services |= {each.service for each in page if self._settings.allows(each.id)}
            for index, connection in enumerate(page[skip:], skip):
                if not self._is_wanted(connection, name, service):
                    continue
                if len(found) == limit:
                    return ConnectionPage(connections=found, next_cursor=f"{index}:{at or ''}")
                found.append(views.connection(connection, group_names))
            if following is None:
                if service is not None and cursor is None and service not in services:
                    raise InvalidRequest(
                        f"There is no connection of the service '{shown(service)}'. Services in "
                        f"use: {', '.join(sorted(services)) or 'none'}."
                    )
                return ConnectionPage(connections=found)
            skip, at = 0, following
            if len(found) == limit:
                break
        return ConnectionPage(connections=found, next_cursor=f"0:{at}")

    def _is_wanted(self, connection: Connection, name: str | None, service: str | None) -> bool:
        return (
            self._settings.allows(connection.id)
            and (service is None or connection.service == service)
            and (name is None or name.lower() in f"{connection.id} {connection.schema}".lower())
        )

    async def get_state(
        self,
        connection_id: str,
        *,
        path: str | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        exact: bool = False,
    ) -> StateView:
        """The state, or the value at `path` (a JSON Pointer), or its outline if it is too large.

        `exact` returns the whole value, for `to_json(exactly=True)`.
        """
        fivetran = await self._fivetran_for(connection_id)
        owner = await self._owner(connection_id)
        reading = asyncio.ensure_future(self._read(fivetran, connection_id))
        naming = asyncio.ensure_future(fivetran.group_names())
        try:
            # Send the requests first: the database must not hold them up.
            await asyncio.wait({reading}, timeout=AHEAD)
            running, (connection, document), group_names = await asyncio.gather(
                updates.running(owner), reading, naming
            )
        finally:
            # The caller may have left, and then nobody waits for them.
            for task in (reading, naming):
                task.cancel()
                task.add_done_callback(_retrieve)
        text, content = await large.run(_content, document, path or "", max_bytes, exact)
        return StateView(
            connection_id=connection_id,
            version=await large.run(state.version, document),
            path=None if path is None else state.shown_path(path),
            bytes=len(text),
            update_in_progress=running,
            **views.facts(connection, group_names),
            **content,
        )

    async def plan_update(
        self,
        connection_id: str,
        change: changes.Change,
        *,
        expected_version: str | None = None,
        then_sync: bool = False,
    ) -> Update:
        """The effect of the change on the present state; nothing is written."""
        _check_version(expected_version)
        wanted = await self._wanted(connection_id, change)
        plan = await self._plan(connection_id, wanted, expected_version, then_sync=then_sync)
        return await large.run_if(plan.is_large, plan.to_update)

    async def _plan(
        self,
        connection_id: str,
        wanted: Wanted,
        expected_version: str | None,
        *,
        then_sync: bool = False,
    ) -> Plan:
        """Plan the change; raise the errors of an update, except for a re-sync: the plan warns of it."""
        fivetran = await self._fivetran_for(connection_id)
        (connection, before), group_names = await asyncio.gather(
            self._read(fivetran, connection_id), fivetran.group_names()
        )
        plan = await large.run_if(
            large.is_any(before, wanted.change),
            Plan.of,
            connection,
            before,
            wanted,
            group_name=group_names.get(connection.group_id),
            then_sync=then_sync,
            sync_wait=self._settings.sync_wait,
        )
        if expected_version is not None and expected_version != plan.version_before:
            raise conflict(expected_version, plan.version_before)
        if then_sync:
            refuse_impossible_sync(connection)
        return plan

    async def _read(
        self, fivetran: Fivetran, connection_id: str
    ) -> tuple[Connection, state.Document]:
        """The connection and its state, requested at the same time.

        Raises `StateNotKept` or `NoStateYet` if there is none.
        """
        connection, document = await fivetran.get_connection_and_state(connection_id)
        owner = await self._owner(connection_id)
        self._seen_paused[owner] = connection.paused
        self._seen_paused.move_to_end(owner)
        if len(self._seen_paused) > MAX_SEEN:
            self._seen_paused.popitem(last=False)
        if not connection.keeps_state:
            raise state_not_kept(connection)
        if document is None:
            raise NoStateYet(
                f"{connection_id} ({connection.service}, {connection.schema}) has no state yet."
            )
        return connection, document

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
        on_progress: OnProgress = _ignore,
        confirmation: Confirmation | None = None,
    ) -> Update:
        """Start the update (or attach to the one this request started) and wait for a while.

        With a `confirmation`, only a change that it covers is started, and `expected_version` may be
        left out. Raises the update's own error if it fails within `wait_seconds`; leaving
        earlier, or being cancelled, does not stop it.
        """
        self._check_writable()
        _check_version(expected_version)
        options = _Options(expected_version, reason, idempotency_key, then_sync, allow_resync)
        started = await self._started(connection_id, change, options, confirmation)
        del change  # Do not keep a large change while waiting for the end.
        if isinstance(started, Update):
            return started
        large.let_others()
        await updates.follow(started, wait_seconds, on_progress)
        update = await updates.get(started.workflow_id)
        steps = [] if update.status == "running" else await updates.steps(update.workflow_id)
        return views.answer(update, steps)

    async def _started(
        self,
        connection_id: str,
        change: changes.Change,
        options: "_Options",
        confirmation: Confirmation | None,
    ) -> "updates.Handle | Update":
        """The handle of the update; or the plan, if a confirmed change changes nothing.

        This is apart from the waiting, so that no large value is kept for that long.
        """
        expected_version, idempotency_key = options.expected_version, options.idempotency_key
        fivetran = await self._fivetran_for(connection_id)
        handle = None
        unread = _unread(change)
        if idempotency_key is not None and unread is not None:
            version = _seen(expected_version, confirmation)
            if version is not None or confirmation is None:
                # Look for the key first: the source may be gone after the update.
                handle = await updates.with_key(
                    await self._request(connection_id, unread, options.with_version(version))
                )
        while handle is None:
            wanted = await self._wanted(connection_id, change)
            version = _seen(expected_version, confirmation)
            plan = None
            if confirmation is not None and version is None:
                plan = await self._plan(connection_id, wanted, None, then_sync=options.then_sync)
                version = plan.version_before
            request = await self._request(connection_id, wanted, options.with_version(version))

            async def state_is_expected(version: str | None = version) -> bool:
                # Without an expected version, repeating a change means to make it again.
                return (
                    version is None
                    or await large.run(state.version, await fivetran.get_state(connection_id))
                    == version
                )

            latest, handle = await updates.attach(request, state_is_expected)
            if handle is None and confirmation is not None:
                plan = plan or await self._plan(
                    connection_id, wanted, expected_version, then_sync=options.then_sync
                )
                if not plan.changes_total:
                    return await large.run_if(plan.is_large, plan.to_update)
                if not options.allow_resync:
                    refuse_pending_resync(plan.connection)
                if not await confirmation.covers(plan, latest):
                    continue  # The user may have taken a while: look again.
            handle = handle or await updates.start(request, after=latest)
        return handle

    async def _request(
        self, connection_id: str, wanted: Wanted, options: "_Options", text: str | None = None
    ) -> UpdateRequest:
        """The request for one connection; `text` is the change, if it is known already."""
        if text is None:
            text = await large.run(state.dump, wanted.change.value)
        request = UpdateRequest(
            connection_id=connection_id,
            change_kind=wanted.change.kind,
            change=text,
            change_is_exact=wanted.change.exact,
            source=wanted.source,
            expected_version=options.expected_version,
            reason=options.reason,
            idempotency_key=options.idempotency_key or _derived_key(options, wanted, text),
            key_was_given=options.idempotency_key is not None,
            sync_wait=self._settings.sync_wait,
        )
        if options.then_sync:
            request["then_sync"] = True
        if options.allow_resync:
            request["allow_resync"] = True
        if self._seen_paused.get(await self._owner(connection_id)):
            request["seen_paused"] = True
        request.update(cast(Any, (await self._account()).in_request()))
        return request

    async def states_of(self, workflow_id: str) -> tuple[state.Document, state.State]:
        """The states before and after an update."""
        await self._check_update(workflow_id)
        request = (await updates.get(workflow_id)).request
        before = await large.run(state.document, await updates.state_before(workflow_id))
        change = await large.run(
            state.parse_change,
            request["change_kind"],
            request["change"],
            request["change_is_exact"],
        )
        return before, await large.run(state.apply, change, before)

    async def update_states(
        self,
        connection_ids: Sequence[str],
        change: changes.Change,
        *,
        then_sync: bool = False,
        allow_resync: bool = False,
        reason: str | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
    ) -> UpdatesView:
        """Make one change to several connections, in order: to all of them, or to none.

        All are looked at before any is touched. `change` is of any kind but `RestoreFrom`. Raises
        the error of the connection that failed, with `updates` in its details.
        """
        self._check_writable()
        if len(set(connection_ids)) != len(connection_ids) or not connection_ids:
            raise InvalidRequest("connection_ids must name at least one connection, each once.")
        for connection_id in connection_ids:
            self.check(connection_id)
        account = (await self._account()).id
        options = _Options(None, reason, None, then_sync, allow_resync)

        async def requests(wanted: Wanted) -> list[UpdateRequest]:
            text = await large.run(state.dump, wanted.change.value)
            # Each connection's update stores the change.
            if len(text) * len(connection_ids) > state.MAX_BYTES:
                raise InvalidRequest(
                    f"A change of {len(text):,} bytes is too large for {len(connection_ids)} "
                    f"connections at once: together these are more than {state.MAX_BYTES:,} bytes. "
                    "Send a patch, or change fewer at a time."
                )
            return [await self._request(id_, wanted, options, text) for id_ in connection_ids]

        workflow_id = None
        unread = _unread(change)
        if idempotency_key is not None and unread is not None:
            workflow_id = await group.with_key(await requests(unread), account, idempotency_key)
        if workflow_id is None:
            wanted = await self._wanted(connection_ids[0], change)
            asked = await requests(wanted)
            workflow_id = await group.attach(asked, account, idempotency_key)
        if workflow_id is None:
            await self._check_all(connection_ids, wanted, options)
            workflow_id = await group.start(asked, account, idempotency_key)
        large.let_others()
        view, error = await self._group(workflow_id, wait_seconds)
        if error is not None:
            error.details |= {
                "workflow_id": workflow_id,
                "updates": [update.to_json() for update in view.updates],
            }
            raise error
        return view

    async def _check_all(
        self, connection_ids: Sequence[str], wanted: Wanted, options: "_Options"
    ) -> None:
        """Look at all connections before any is touched; raise the first error of an update."""
        few = asyncio.Semaphore(READ_AT_ONCE)

        async def check(connection_id: str) -> None:
            async with few:
                plan = await self._plan(connection_id, wanted, None, then_sync=options.then_sync)
            if not options.allow_resync:
                refuse_pending_resync(plan.connection)

        await asyncio.gather(*map(check, connection_ids))

    def is_group(self, workflow_id: str) -> bool:
        """True for the id of a group."""
        return group.is_id(workflow_id)

    async def updates_status(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """The group's progress, or its end."""
        await self._check_updates(workflow_id)
        view, _ = await self._group(workflow_id, wait_seconds)
        return view

    async def cancel_updates(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """Cancel a group, so that it changes nothing; raises `TooLateToCancel` once all are written."""
        self._check_writable()
        await self._check_updates(workflow_id)
        await group.cancel(workflow_id, (await self._account()).id)
        view, _ = await self._group(workflow_id, wait_seconds)
        if view.status not in ("running", "cancelled"):
            raise _too_late(workflow_id, view.status)
        return view

    async def _group(
        self, workflow_id: str, wait_seconds: float
    ) -> tuple[UpdatesView, FivetranStateError | None]:
        found = await group.follow(workflow_id, (await self._account()).id, wait_seconds)
        parts = [
            views.update(await updates.get(id_), await updates.steps(id_))
            for id_ in found.workflow_ids
        ]
        ended = "updated" if found.error is None else views.failed(found.error)
        view = UpdatesView(
            workflow_id=workflow_id,
            status=cast(Any, ended) if found.has_ended else "running",
            updates=parts,
            error=None if found.error is None else views.failure(found.error),
        )
        return view, found.error

    async def workflow_status(
        self, workflow_id: str, *, wait_seconds: float = 0, on_progress: OnProgress = _ignore
    ) -> WorkflowView:
        """One update: its progress, its steps and its end."""
        await self._check_update(workflow_id)
        update = await updates.get(workflow_id)
        if update.status == "running" and wait_seconds:
            await updates.follow(await updates.find(workflow_id), wait_seconds, on_progress)
            update = await updates.get(workflow_id)
        steps = await updates.steps(workflow_id)
        return views.workflow(update, steps, await self._since(update))

    async def _since(self, update: updates.Update) -> Since | None:
        """What has happened since the update; None if Fivetran does not answer."""
        if update.outcome is None or update.outcome["deleted"]:
            return None
        connection_id = update.request["connection_id"]
        try:
            fivetran = await self._fivetran_for(connection_id)
            connection, document = await fivetran.get_connection_and_state(connection_id)
        except FivetranError:
            return None
        is_large = document is not None and large.is_any(document)
        return await large.run_if(is_large, views.since, update.outcome, connection, document)

    async def task(self, workflow_id: str) -> views.Task:
        """One update with the present answer of `update_state`."""
        await self._check_update(workflow_id)
        update = await updates.get(workflow_id)
        return views.task(update, await updates.steps(workflow_id), self._settings.retention_days)

    async def list_workflows(
        self, connection_id: str, *, cursor: str | None = None, limit: int = 20
    ) -> WorkflowPage:
        """The connection's updates, newest first. Pages are stable: numbers only count up."""
        fivetran = await self._fivetran_for(connection_id)
        if cursor is not None and not is_update_number(cursor):
            raise _not_a_cursor(cursor)
        below = None if cursor is None else int(cursor)
        found = await updates.history(await self._owner(connection_id), below, limit)
        if not found and cursor is None:
            await fivetran.get_connection(connection_id)
            return WorkflowPage(workflows=[], message=self._covered())
        lowest = UpdateId.parse(found[-1].workflow_id).number if found else 1
        return WorkflowPage(
            workflows=[views.summary(update) for update in found],
            next_cursor=str(lowest) if lowest > 1 else None,
        )

    def _covered(self) -> str:
        """The message of an empty history."""
        days = self._settings.retention_days
        kept = f" of the last {days:g} days" if days else ""
        return (
            f"There are no updates{kept}. Listed are the updates that were made through this server's "
            "database, not syncs or changes made by other means."
        )

    async def list_all_workflows(
        self, *, cursor: str | None = None, limit: int = 20
    ) -> WorkflowPage:
        """The updates of all the account's connections, newest first.

        Our cursor is the last update that was read, so new updates do not move the pages. It is
        sealed, because that update may belong to somebody else.
        """
        account = (await self._account()).id
        at = None if cursor is None else self._moment(cursor)
        found: list[updates.Update] = []
        for _ in range(MAX_PAGES_SEARCHED):
            page = await updates.latest(account, at, max(limit, updates.READ_BATCH))
            for update in page:
                if len(found) == limit:
                    break
                at = (update.created_at, update.workflow_id)
                if self._may_see(UpdateId.parse(update.workflow_id), account):
                    found.append(update)
            else:
                if page:
                    continue
                at = None
            break
        return WorkflowPage(
            workflows=[views.summary(update) for update in found],
            next_cursor=None if at is None else self._engine.seal(at),
        )

    def _moment(self, cursor: str) -> tuple[int, str]:
        """The start time and the id of an update."""
        try:
            created_at, workflow_id = cast(Any, self._engine.unseal(cursor))
            return int(created_at), str(workflow_id)
        except (UnusableKey, TypeError, ValueError):
            raise _not_a_cursor(cursor) from None

    async def cancel_update(self, workflow_id: str, *, wait_seconds: float = 0) -> Update:
        """End an update without writing; raises `TooLateToCancel` once it writes, or has ended."""
        self._check_writable()
        await self._check_update(workflow_id)
        update = await updates.get(workflow_id)
        if update.status == "running":
            await updates.cancel(workflow_id)
            await updates.follow(await updates.find(workflow_id), wait_seconds, _ignore)
            update = await updates.get(workflow_id)
        view = views.update(update, await updates.steps(workflow_id))
        if view.status not in ("running", "cancelled"):
            raise _too_late(workflow_id, view.status)
        return view

    async def last_ended(self, connection_id: str) -> int:
        """The number of the connection's last update that has ended; 0 if none has."""
        await self._fivetran_for(connection_id)
        return await updates.last_ended(await self._owner(connection_id))

    async def ended_since(self, last_ended: Mapping[str, int]) -> dict[str, int]:
        """The number of each connection's next update, for those where it has ended."""
        return await updates.ended_since(last_ended)

    async def newest_workflow_ids(self, prefix: str, limit: int) -> list[str]:
        """The newest `limit` ids with this prefix, without those this caller may not see."""
        account = (await self._account()).id
        found = await updates.newest(prefix if account is None else f"{account}/{prefix}", limit)
        return [str(id_) for id_ in map(UpdateId.parse, found) if self._may_see(id_, account)]

    def _may_see(self, update: UpdateId, account: str | None) -> bool:
        return update.account == account and self._settings.allows(update.connection_id)

    async def _wanted(self, connection_id: str, change: changes.Change) -> Wanted:
        """The change with its source read."""
        match change:
            case changes.Inline():
                return Wanted(change.change)
            case changes.RestoreFrom():
                return await self._restored(connection_id, change)
            case changes.CopyFrom():
                return await self._copied(change)

    async def _restored(self, connection_id: str, change: changes.RestoreFrom) -> Wanted:
        workflow_id = change.workflow_id
        if UpdateId.parse(workflow_id).owner != await self._owner(connection_id):
            raise InvalidRequest(
                f"'{shown(workflow_id)}' is not an update of {connection_id}. restore_from takes the "
                "workflow_id of one; copy_from takes another connection's id."
            )
        await self._fivetran_for(connection_id)
        undone = await updates.get(workflow_id)
        if undone.status == "running":
            raise InvalidRequest(f"{workflow_id} is still running; wait for its end, or cancel it.")
        is_updated = undone.outcome is not None and undone.outcome["outcome"] == "updated"
        if not is_updated and not (undone.error and await updates.may_have_written(workflow_id)):
            raise NothingToUndo(f"{workflow_id} wrote nothing, so there is nothing to undo.")
        before = await large.run(state.document, await updates.state_before(workflow_id))
        if isinstance(before, state.RawDocument):
            raise InvalidChange(
                f"Before {workflow_id} there was no usable state ({before.problem}); it cannot be "
                "written back."
            )
        return Wanted(
            await large.run(_whole_or_part, before, change.only),
            source=change.source,
            undoes=workflow_id,
            undone_paths=await large.run_if(
                large.is_any(before, undone.request["change"]),
                _changed_paths,
                undone.request,
                before,
            ),
        )

    async def _copied(self, change: changes.CopyFrom) -> Wanted:
        other_id = change.connection_id
        fivetran = await self._fivetran_for(other_id, what="copy_from")
        other, document = await self._read(fivetran, other_id)
        if isinstance(document, state.RawDocument):
            raise InvalidChange(f"What {other_id} has is not a usable state: {document.problem}.")
        return Wanted(
            await large.run(_whole_or_part, document, change.only),
            source=change.source,
            copied_from=other,
        )

    def check(self, connection_id: str, what: str = "connection_id") -> None:
        """Raise unless the id is one and the operator allows the connection."""
        if not is_connection_id(connection_id):
            raise InvalidRequest(
                f"{what} '{shown(connection_id)}' is not a connection's id. An id looks like "
                "speak_inexpensive: letters, digits, '_' and '-'. Find it with list_connections."
            )
        if not self._settings.allows(connection_id):
            raise NotAllowed(f"This server is not allowed to use the connection {connection_id}.")

    def _check_writable(self) -> None:
        if self._settings.read_only:
            raise NotAllowed("This server is read-only.")

    async def _fivetran_for(self, connection_id: str, what: str = "connection_id") -> Fivetran:
        """The account's client, after `check`."""
        account = await self._account()
        self.check(connection_id, what)
        return account.fivetran

    async def _check_update(self, workflow_id: str) -> None:
        """Raise unless it is an update of this account, and of a connection that is allowed."""
        account = await self._account()
        update = UpdateId.parse(workflow_id)
        if update.account != account.id:
            raise WorkflowNotFound(f"There is no update '{shown(workflow_id)}'.")
        self.check(update.connection_id)

    async def _check_updates(self, workflow_id: str) -> None:
        """Raise unless the group is this account's and all its connections are allowed, also those
        that have not started."""
        for request in await group.requests_of(workflow_id, (await self._account()).id):
            self.check(request["connection_id"])

    async def _account(self) -> Account:
        return self._guest or Account(await self._engine.ready())

    async def _owner(self, connection_id: str) -> str:
        """The prefix of the ids of a connection's updates."""
        account = (await self._account()).id
        return connection_id if account is None else f"{account}/{connection_id}"


def _seen(expected_version: str | None, confirmation: Confirmation | None) -> str | None:
    """The version that the user or the agent has seen, if any."""
    if expected_version is not None or confirmation is None:
        return expected_version
    return confirmation.version


@dataclass(frozen=True)
class _Options:
    """The options of a request, besides its change."""

    expected_version: str | None
    reason: str | None
    idempotency_key: str | None
    then_sync: bool
    allow_resync: bool

    def with_version(self, expected_version: str | None) -> "_Options":
        return replace(self, expected_version=expected_version)


def _check_version(version: str | None) -> None:
    if version is not None and not state.is_version(version):
        raise InvalidRequest(
            f"expected_version '{shown(version)}' is not a version. A version has 32 hexadecimal "
            "digits; plans and get_state return it."
        )


def _whole_or_part(source: state.State, only: str | None) -> state.Change:
    if only is None:
        return state.Change("new_state", source)
    try:
        return state.part_of(source, only)
    except state.NotThere as error:
        raise InvalidRequest(f"only: {error}") from error


def _change_of(request: UpdateRequest) -> state.Change:
    return state.parse_change(
        request["change_kind"], request["change"], exact=request["change_is_exact"]
    )


def _changed_paths(request: UpdateRequest, before: state.State) -> frozenset[str]:
    """The paths that an update itself has changed."""
    try:
        after = state.apply(_change_of(request), before)
    except (state.InvalidChange, state.InvalidState):
        return frozenset()
    return frozenset(difference.path for difference in state.differences(before, after))


def _unread(change: changes.Change) -> Wanted | None:
    """The change with its source unread, to look for the update it started; None without a source."""
    if isinstance(change, changes.Inline):
        return None
    return Wanted(state.Change("new_state", {}), source=change.source)


def _content(
    document: state.Document, path: str, max_bytes: int, exact: bool
) -> tuple[str, dict[str, Any]]:
    """The value at the path as JSON text, and the fields of `models.StateView` that show it.

    Raises `InvalidRequest`.
    """
    if isinstance(document, state.RawDocument):
        if path:
            raise InvalidRequest(f"path: what is there is not a usable state ({document.problem}).")
        shown_text = visible(document.text)
        fields: dict[str, Any] = {"problem": document.problem}
        if exact or len(shown_text) <= max_bytes:
            return document.text, fields | {"state_json": shown_text}
        return document.text, fields | {
            "state_json": shown_text[:max_bytes],
            "hint": _larger(len(shown_text), "This is only its beginning."),
        }
    try:
        value = state.at(document, path)
    except state.NotThere as error:
        raise InvalidRequest(f"path: {error}") from error
    text = state.dump(value)
    if exact:
        return text, {"state": value}
    if len(text) > max_bytes:
        if isinstance(value, dict | list):
            outline = views.outline(value, path, max_bytes) if max_bytes else None
            return text, {"outline": outline}
        return text, {"hint": _larger(len(text), "The value is longer than max_bytes.")}
    if state.hides(value):
        return text, {"state_json": visible(text)}
    return text, {"state": state.plain(value), "exact_numbers": state.inexact(value) or None}


def _retrieve(task: "asyncio.Future[Any]") -> None:
    """Keep asyncio from logging an error that nobody waits for."""
    if not task.cancelled():
        task.exception()


def _larger(size: int, why: str) -> str:
    if size > LIMIT_OF_MAX_BYTES:
        return f"{why} It has {size:,} bytes: REST's POST /state/get returns it whole."
    return f"{why} Call again with max_bytes {size}."


def _place(cursor: str) -> tuple[int, str | None]:
    """The number of connections to skip, and the page of Fivetran's to skip them on."""
    skipped, colon, place = cursor.partition(":")
    if not colon or not _SKIPPED.fullmatch(skipped) or not (place == "" or is_cursor(place)):
        raise _not_a_cursor(cursor)
    return int(skipped), place or None


def _not_a_cursor(cursor: str) -> InvalidRequest:
    return InvalidRequest(f"cursor '{shown(cursor)}' is not the next_cursor of an earlier answer.")


def _versions() -> str:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("dbos", "mcp", "httpx"))
    return f"fivetran-state {__version__}, {packages}, Python {platform.python_version()}"


def _derived_key(options: _Options, wanted: Wanted, text: str) -> str:
    what = wanted.source or f"{wanted.change.kind}\n{text}"
    sync = "\nthen_sync" if options.then_sync else ""
    return hashlib.sha256(f"{options.expected_version}\n{what}{sync}".encode()).hexdigest()


def _too_late(workflow_id: str, status: str) -> TooLateToCancel:
    return TooLateToCancel(
        f"Update {workflow_id} has ended as {status!r}.", workflow_id=workflow_id
    )
