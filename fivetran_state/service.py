"""One asynchronous method per capability; every surface calls these and nothing deeper."""

import asyncio
import copy
import hashlib
import platform
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any, cast

from fivetran_state import __version__, state, together, updates, views
from fivetran_state.config import Settings
from fivetran_state.engine import Account, Engine
from fivetran_state.errors import (
    Conflict,
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    Forbidden,
    InvalidRequest,
    LeftPaused,
    NoStateYet,
    NotAllowed,
    StateNotKept,
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
    StateView,
    Update,
    UpdatesView,
    WorkflowPage,
    WorkflowView,
)
from fivetran_state.plan import Confirmation, Plan, Wanted
from fivetran_state.text import shown, visible
from fivetran_state.workflow import Progress, UpdateRequest


@dataclass(frozen=True)
class Finding:
    """One line of `fivetran-state doctor`."""

    what: str
    is_well: bool
    detail: str


OnProgress = Callable[[Progress], Awaitable[None]]

DEFAULT_MAX_BYTES = 20_000
AHEAD = 0.01
"""Seconds by which Fivetran, which takes longer, is asked before the database is."""
LARGEST_PAGE = 1000
_SKIPPED = re.compile("[0-9]{1,4}")
MOST_PAGES_SEARCHED = 20


async def _ignore(progress: Progress) -> None:
    pass


class Service:
    """The capabilities of one account. Every method raises only `FivetranStateError`s."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = Engine(settings)
        self._guest: Account | None = None

    async def of(self, api_key: str, api_secret: str) -> "Service":
        """The same capabilities, for the account that these credentials are of."""
        service = copy.copy(self)
        service._guest = await self._engine.guest(api_key, api_secret)
        return service

    def start(self) -> None:
        """Begin to come up in the background, on the event loop that all calls will be made on."""
        self._engine.start()

    async def close(self, patience: float = 0) -> None:
        """Stop; updates that do not end within `patience` seconds get a process of their own."""
        if patience:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._engine.idle(), patience)
        await self._engine.close()

    async def check_ready(self) -> None:
        """Raises what keeps updates from being made, or the database from being read."""
        await self._engine.up()
        await updates.unfinished()

    async def leave(self) -> None:
        """All of `close` that matters when the process ends right afterwards."""
        await self._engine.leave()

    async def finish(self, after: str | None = None) -> dict[str, str]:
        """Wait until no update is left that this process, or a dead one, has to finish.

        Returns the connections that updates have left paused, with the update's id.
        """
        await self._engine.finish(after)
        return await self.left_paused()

    async def left_paused(self) -> dict[str, str]:
        """Connection id → workflow id, where an update paused it and Fivetran still has it so.

        A guest's connection is named behind its account; it counts as paused, too, if the guest's
        credentials do not hold any more.
        """
        await self._engine.up()
        found = {}
        for owner, workflow_id in (await updates.left_paused()).items():
            request = (await updates.get(workflow_id)).request
            with suppress(ConnectionNotFound):
                if await self._is_paused(request):
                    found[owner] = workflow_id
        return found

    async def _is_paused(self, request: UpdateRequest) -> bool:
        if "credentials" not in request:
            fivetran = await self._engine.ready()
            return (await fivetran.get_connection(request["connection_id"])).paused
        fivetran = self._engine.client_of(request["credentials"])
        try:
            return (await fivetran.get_connection(request["connection_id"])).paused
        except (Unauthorized, Forbidden):
            return True
        finally:
            await fivetran.aclose()

    async def diagnose(self) -> list[Finding]:
        """What an operator wants to know first, each with whether it is well."""
        findings = [Finding("versions", True, _versions())]

        async def check(what: str, look: Awaitable[str]) -> None:
            try:
                findings.append(Finding(what, True, await look))
            except FivetranStateError as error:
                findings.append(Finding(what, False, f"{error.message} {error.hint}"))

        await check("database, key, lock", self._database_answers())
        await check("Fivetran", self._fivetran_answers())
        await check("updates", self._updates_are_well())
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

    async def list_connections(
        self,
        *,
        name: str | None = None,
        service: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ConnectionPage:
        """The account's connections whose id or name contains `name`, of one service, page by page.

        Fivetran cannot search, so its pages are read until `limit` are found. Our cursor is where
        to go on: how many to skip of which of Fivetran's pages.
        """
        fivetran = (await self._account()).fivetran
        skip, at = _place(cursor) if cursor else (0, None)
        is_search = name or service or self._settings.allowed_connections != "*"
        found: list[ConnectionSummary] = []
        for _ in range(MOST_PAGES_SEARCHED):
            try:
                page, following = await fivetran.list_connections(
                    cursor=at, limit=LARGEST_PAGE if is_search else limit
                )
            except FivetranError as error:
                if cursor and at and error.details.get("status") == 400:
                    raise _not_a_cursor(cursor) from error
                raise
            for index, connection in enumerate(page[skip:], skip):
                if not self._is_wanted(connection, name, service):
                    continue
                if len(found) == limit:
                    return ConnectionPage(connections=found, next_cursor=f"{index}:{at or ''}")
                found.append(views.connection(connection))
            if following is None:
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
        """The state, or the value at `path` (a JSON Pointer), or its outline if it is larger.

        `exact`: whatever its size, for `to_json(exactly=True)`.
        """
        fivetran = await self._fivetran_for(connection_id)
        reading = asyncio.ensure_future(_read(fivetran, connection_id))
        # Both are waited for, but the database shall not keep the requests from being sent.
        await asyncio.wait({reading}, timeout=AHEAD)
        running, (connection, document) = await asyncio.gather(
            updates.running(await self._owner(connection_id)), reading
        )
        try:
            value = state.at(document, path or "")
        except state.NotThere as error:
            raise InvalidRequest(f"path: {error}") from error
        text = state.dump(value)
        content: dict[str, Any]
        if exact:
            content = {"state": value}
        elif len(text) > max_bytes:
            content = {"outline": views.outline(value, path or "", max_bytes)}
        elif state.hides(value):
            content = {"state_json": visible(text)}
        else:
            content = {"state": state.plain(value), "exact_numbers": state.inexact(value) or None}
        return StateView(
            connection_id=connection_id,
            name=connection.schema,
            service=connection.service,
            version=state.version(document),
            paused=connection.paused,
            sync_state=connection.sync_state,
            path=None if path is None else state.shown_path(path),
            bytes=len(text),
            update_in_progress=running,
            **content,
        )

    async def plan_update(
        self,
        connection_id: str,
        change: Mapping[str, object],
        *,
        expected_version: str | None = None,
    ) -> Update:
        """What the change would do to the state as it is now; nothing is written."""
        wanted = await self._wanted(connection_id, change)
        return (await self._plan(connection_id, wanted, expected_version)).to_update()

    async def _plan(self, connection_id: str, wanted: Wanted, expected_version: str | None) -> Plan:
        fivetran = await self._fivetran_for(connection_id)
        connection, before = await _read(fivetran, connection_id)
        # In a thread: of a large state it takes seconds, in which everybody else would wait.
        plan = await asyncio.to_thread(
            Plan.of, connection, before, wanted, self._settings.sync_wait
        )
        if expected_version is not None and expected_version != plan.version_before:
            raise Conflict(
                f"The state is version {plan.version_before}, not '{shown(expected_version)}'; "
                "nothing was written.",
                current_version=plan.version_before,
            )
        return plan

    async def update_state(
        self,
        connection_id: str,
        change: Mapping[str, object],
        *,
        expected_version: str | None,
        reason: str | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
        on_progress: OnProgress = _ignore,
        confirmation: Confirmation | None = None,
    ) -> Update:
        """Start the update (or attach to the one this request started) and wait for a while.

        With a `confirmation` nothing is started that it does not cover, and `expected_version` may
        be left out. Raises the update's own error if it fails within `wait_seconds`; leaving
        earlier, or being cancelled, does not stop it.
        """
        if self._settings.read_only:
            raise NotAllowed("This server is read-only.")
        fivetran = await self._fivetran_for(connection_id)
        handle = None
        unread = _unread(change)
        if idempotency_key is not None and unread is not None:
            version = _seen(expected_version, confirmation)
            if version is not None or confirmation is None:
                # The source may be gone, now that the update is done.
                handle = await updates.with_key(
                    await self._request(connection_id, unread, version, reason, idempotency_key)
                )
        while handle is None:
            wanted = await self._wanted(connection_id, change)
            version = _seen(expected_version, confirmation)
            plan = None
            if confirmation is not None and version is None:
                plan = await self._plan(connection_id, wanted, None)
                version = plan.version_before
            request = await self._request(connection_id, wanted, version, reason, idempotency_key)

            async def state_is_expected(version: str | None = version) -> bool:
                # Who expects no version, and repeats a change, wants it made again.
                return (
                    version is None
                    or state.version(await _state_of(fivetran, connection_id)) == version
                )

            latest, handle = await updates.attach(request, state_is_expected)
            if handle is None and confirmation is not None:
                plan = plan or await self._plan(connection_id, wanted, expected_version)
                if not plan.changes_total:
                    return plan.to_update()
                if not await confirmation.covers(plan, latest):
                    continue  # It may have taken a while: look again.
            handle = handle or await updates.start(request, after=latest)
        await updates.follow(handle, wait_seconds, on_progress)
        answer = views.answer(await updates.get(handle.workflow_id))
        if isinstance(answer, FivetranStateError):
            raise answer
        return answer

    async def _request(
        self,
        connection_id: str,
        wanted: Wanted,
        expected_version: str | None,
        reason: str | None,
        idempotency_key: str | None,
    ) -> UpdateRequest:
        request = UpdateRequest(
            connection_id=connection_id,
            change_kind=wanted.change.kind,
            change=state.dump(wanted.change.value),
            change_is_exact=wanted.change.exact,
            source=wanted.source,
            expected_version=expected_version,
            reason=reason,
            idempotency_key=idempotency_key or _derived_key(expected_version, wanted),
            key_was_given=idempotency_key is not None,
            sync_wait=self._settings.sync_wait,
        )
        request.update(cast(Any, (await self._account()).in_request()))
        return request

    async def states_of(self, workflow_id: str) -> tuple[state.State, state.State]:
        """The state that an update found, and the one that it left."""
        await self._check_update(workflow_id)
        request = (await updates.get(workflow_id)).request
        before = state.parse(await updates.state_before(workflow_id))
        change = state.Change(
            request["change_kind"],
            state.parse_value(request["change"]),
            exact=request["change_is_exact"],
        )
        return before, state.apply(change, before)

    async def update_states(
        self,
        connection_ids: Sequence[str],
        change: Mapping[str, object],
        *,
        reason: str | None = None,
        idempotency_key: str | None = None,
        wait_seconds: float = 0,
    ) -> UpdatesView:
        """Make one change to several connections, in order: to all of them, or to none.

        `change` is of any kind but `restore_from`. Raises the error of the connection that failed,
        with `updates` in its details.
        """
        if self._settings.read_only:
            raise NotAllowed("This server is read-only.")
        if len(set(connection_ids)) != len(connection_ids) or not connection_ids:
            raise InvalidRequest("connection_ids must name at least one connection, each once.")
        for connection_id in connection_ids:
            self.check(connection_id)
        account = (await self._account()).id

        async def requests(wanted: Wanted) -> list[UpdateRequest]:
            return [await self._request(id_, wanted, None, reason, None) for id_ in connection_ids]

        workflow_id = None
        unread = _unread(change)
        if idempotency_key is not None and unread is not None:
            workflow_id = await together.with_key(await requests(unread), account, idempotency_key)
        if workflow_id is None:
            wanted = await self._wanted(connection_ids[0], change)
            workflow_id = await together.start(await requests(wanted), account, idempotency_key)
        view, error = await self._together(workflow_id, wait_seconds)
        if error is not None:
            error.details |= {
                "workflow_id": workflow_id,
                "updates": [update.to_json() for update in view.updates],
            }
            raise error
        return view

    def is_together(self, workflow_id: str) -> bool:
        """Whether it is the id of connections that are changed together."""
        return together.is_id(workflow_id)

    async def updates_status(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """What has become of connections that are changed together."""
        await self._check_updates(workflow_id)
        view, _ = await self._together(workflow_id, wait_seconds)
        return view

    async def cancel_updates(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """Leave connections as they are that are being changed together; raises
        `TooLateToCancel` once all of them are written."""
        if self._settings.read_only:
            raise NotAllowed("This server is read-only.")
        await self._check_updates(workflow_id)
        await together.cancel(workflow_id, (await self._account()).id)
        view, _ = await self._together(workflow_id, wait_seconds)
        if view.status not in ("running", "cancelled"):
            raise _too_late(workflow_id, view.status)
        return view

    async def _together(
        self, workflow_id: str, wait_seconds: float
    ) -> tuple[UpdatesView, FivetranStateError | None]:
        found = await together.follow(workflow_id, (await self._account()).id, wait_seconds)
        parts = [views.update(await updates.get(id_)) for id_ in found.workflow_ids]
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
        """One update: where it is, its steps, and how it ended."""
        await self._check_update(workflow_id)
        update = await updates.get(workflow_id)
        if update.status == "running" and wait_seconds:
            await updates.follow(await updates.find(workflow_id), wait_seconds, on_progress)
            update = await updates.get(workflow_id)
        steps = await updates.steps(workflow_id)
        return views.workflow(update, steps)

    async def task(self, workflow_id: str) -> views.Task:
        """One update, and what `update_state` would answer about it now."""
        await self._check_update(workflow_id)
        update = await updates.get(workflow_id)
        return views.task(update, await updates.steps(workflow_id), self._settings.retention_days)

    async def list_workflows(
        self, connection_id: str, *, cursor: str | None = None, limit: int = 20
    ) -> WorkflowPage:
        """The connection's updates, newest first. Pages are stable: numbers only count up."""
        await self._fivetran_for(connection_id)
        if cursor is not None and not is_update_number(cursor):
            raise _not_a_cursor(cursor)
        below = None if cursor is None else int(cursor)
        found = await updates.history(await self._owner(connection_id), below, limit)
        lowest = UpdateId.parse(found[-1].workflow_id).number if found else 1
        return WorkflowPage(
            workflows=[views.summary(update) for update in found],
            next_cursor=str(lowest) if lowest > 1 else None,
        )

    async def list_all_workflows(
        self, *, cursor: str | None = None, limit: int = 20
    ) -> WorkflowPage:
        """The updates of all the account's connections, newest first.

        Our cursor is the last one that was looked at: pages stay as they are, whatever is new. It
        is sealed, because that one may be somebody else's.
        """
        account = (await self._account()).id
        at = None if cursor is None else self._moment(cursor)
        found: list[updates.Update] = []
        for _ in range(MOST_PAGES_SEARCHED):
            page = await updates.latest(account, at, max(limit, updates.A_PAGE))
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
        """When an update was started, and its id."""
        try:
            created_at, workflow_id = cast(Any, self._engine.unseal(cursor))
            return int(created_at), str(workflow_id)
        except (UnusableKey, TypeError, ValueError):
            raise _not_a_cursor(cursor) from None

    async def cancel_update(self, workflow_id: str, *, wait_seconds: float = 0) -> Update:
        """End an update without writing; raises `TooLateToCancel` once it writes, or has ended."""
        if self._settings.read_only:
            raise NotAllowed("This server is read-only.")
        await self._check_update(workflow_id)
        update = await updates.get(workflow_id)
        if update.status == "running":
            await updates.cancel(workflow_id)
            await updates.follow(await updates.find(workflow_id), wait_seconds, _ignore)
            update = await updates.get(workflow_id)
        view = views.update(update)
        if view.status not in ("running", "cancelled"):
            raise _too_late(workflow_id, view.status)
        return view

    async def last_ended(self, connection_id: str) -> int:
        """The number of the connection's last update that has ended; 0 if none has."""
        await self._fivetran_for(connection_id)
        return await updates.last_ended(await self._owner(connection_id))

    async def ended_since(self, last_ended: Mapping[str, int]) -> dict[str, int]:
        """Of the connections whose next update has ended by now: its number."""
        return await updates.ended_since(last_ended)

    async def newest_workflow_ids(self, prefix: str, limit: int) -> list[str]:
        """The ids, of the last `limit` that begin so, that may be looked at; newest first."""
        account = (await self._account()).id
        found = await updates.newest(prefix if account is None else f"{account}/{prefix}", limit)
        return [str(id_) for id_ in map(UpdateId.parse, found) if self._may_see(id_, account)]

    def _may_see(self, update: UpdateId, account: str | None) -> bool:
        return update.account == account and self._settings.allows(update.connection_id)

    async def _wanted(self, connection_id: str, change: Mapping[str, object]) -> Wanted:
        """The one change that is given; raises `InvalidRequest` if it is none or several."""
        kind, value = _the_one(change)
        if kind == "restore_from":
            return await self._restored(connection_id, str(value))
        if kind == "copy_from":
            return await self._copied(str(value))
        return Wanted(await asyncio.to_thread(_change, kind, value))

    async def _restored(self, connection_id: str, workflow_id: str) -> Wanted:
        if UpdateId.parse(workflow_id).owner != await self._owner(connection_id):
            raise InvalidRequest(
                f"restore_from takes the workflow_id of an update of the same connection, which "
                f"{workflow_id} is not; copy_from takes another connection's id."
            )
        await self._fivetran_for(connection_id)
        before = state.parse(await updates.state_before(workflow_id))
        warning = f"What syncs and updates have changed since {workflow_id} began will be undone."
        return Wanted(
            state.Change("new_state", before), source=f"restore_from {workflow_id}", warning=warning
        )

    async def _copied(self, other_id: str) -> Wanted:
        fivetran = await self._fivetran_for(other_id, what="copy_from")
        other, document = await _read(fivetran, other_id)
        return Wanted(
            state.Change("new_state", document), source=f"copy_from {other_id}", copied_from=other
        )

    def check(self, connection_id: str, what: str = "connection_id") -> None:
        """Raise unless the id is one and the operator allows the connection."""
        if not is_connection_id(connection_id):
            raise InvalidRequest(
                f"{what} '{shown(connection_id)}' is no connection's id, such as "
                "speak_inexpensive: letters, digits, '_' and '-'. list_connections finds it."
            )
        if not self._settings.allows(connection_id):
            raise NotAllowed(f"This server may not touch the connection {connection_id}.")

    async def _fivetran_for(self, connection_id: str, what: str = "connection_id") -> Fivetran:
        """The client, if the connection passes the `check`."""
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
        """Raise unless they are this account's, and all of the connections allowed: those too
        whose turn has not come."""
        for request in await together.requests_of(workflow_id, (await self._account()).id):
            self.check(request["connection_id"])

    async def _account(self) -> Account:
        return self._guest or Account(await self._engine.ready())

    async def _owner(self, connection_id: str) -> str:
        """What the ids of its updates begin with."""
        account = (await self._account()).id
        return connection_id if account is None else f"{account}/{connection_id}"


def _seen(expected_version: str | None, confirmation: Confirmation | None) -> str | None:
    """The version that was seen by whoever decides, if any was."""
    if expected_version is not None or confirmation is None:
        return expected_version
    return confirmation.version


def _the_one(change: Mapping[str, object]) -> tuple[str, object]:
    given = {kind: value for kind, value in change.items() if value is not None}
    if len(given) != 1:
        raise InvalidRequest(
            f"Give exactly one of {', '.join(change)}; given: {', '.join(given) or 'none'}."
        )
    ((kind, value),) = given.items()
    return kind, value


def _unread(change: Mapping[str, object]) -> Wanted | None:
    """The change before its source is read, to look for what it has started; None without one."""
    kind, value = _the_one(change)
    if kind not in ("restore_from", "copy_from"):
        return None
    return Wanted(state.Change("new_state", {}), source=f"{kind} {value}")


def _change(kind: str, value: object) -> state.Change:
    """A value is what a JSON parser made of it (its numbers may have been rounded), or JSON text,
    which is taken exactly. Raises `InvalidRequest`."""
    try:
        exact = isinstance(value, str)
        parsed = state.parse_value(value) if isinstance(value, str) else state.adopt(value)
    except state.InvalidState as error:
        raise InvalidRequest(f"{kind}: {error}") from error
    if not isinstance(parsed, list if kind == "json_patch" else dict):
        raise InvalidRequest(
            f"{kind} must be a JSON {'array' if kind == 'json_patch' else 'object'}."
        )
    return state.Change(cast(Any, kind), parsed, exact=exact)


async def _read(fivetran: Fivetran, connection_id: str) -> tuple[Connection, state.State]:
    """The connection and its state, asked for at the same time."""
    reading = asyncio.gather(
        fivetran.get_connection(connection_id),
        _state_of(fivetran, connection_id),
        return_exceptions=True,
    )
    connection, document = await reading
    if isinstance(connection, BaseException):
        raise connection
    if not connection.keeps_state:
        raise StateNotKept(
            f"{connection_id} is a {connection.service} connection, which keeps no state."
        )
    if isinstance(document, BaseException):
        raise document
    return connection, document


async def _state_of(fivetran: Fivetran, connection_id: str) -> state.State:
    try:
        return await fivetran.get_state(connection_id)
    except NoStateYet:
        return {}


def _place(cursor: str) -> tuple[int, str | None]:
    """How many connections to skip, and of which of Fivetran's pages."""
    skipped, colon, place = cursor.partition(":")
    if not colon or not _SKIPPED.fullmatch(skipped) or not (place == "" or is_cursor(place)):
        raise _not_a_cursor(cursor)
    return int(skipped), place or None


def _not_a_cursor(cursor: str) -> InvalidRequest:
    return InvalidRequest(f"cursor '{shown(cursor)}' is no next_cursor of an earlier answer.")


def _versions() -> str:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("dbos", "mcp", "httpx"))
    return f"fivetran-state {__version__}, {packages}, Python {platform.python_version()}"


def _derived_key(expected_version: str | None, wanted: Wanted) -> str:
    return hashlib.sha256(f"{expected_version}\n{wanted.what}".encode()).hexdigest()


def _too_late(workflow_id: str, status: str) -> TooLateToCancel:
    return TooLateToCancel(
        f"Update {workflow_id} has ended as {status!r}.", workflow_id=workflow_id
    )
