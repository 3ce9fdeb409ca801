"""One change of several connections, which is made to all of them or to none."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from fivetran_state import changes, large, state
from fivetran_state.errors import FivetranStateError, InvalidRequest
from fivetran_state.models import Update, UpdatesView
from fivetran_state.plan import Wanted
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.changes import Changes
from fivetran_state.service.refusals import too_late
from fivetran_state.service.requests import Options
from fivetran_state.service.sources import Sources, unread
from fivetran_state.updates import group
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.updates.refusals import refuse_pending_resync

READ_AT_ONCE = 8
"""Connections that one request looks at, at the same time."""
LOOK_SECONDS = 1.0
"""Seconds between two looks at a group that somebody follows: each reads all of its updates."""

OnUpdate = Callable[[Update], Awaitable[None]]


class Groups:
    """Changes several connections of one account together."""

    def __init__(self, caller: Caller, sources: Sources, changes: Changes) -> None:
        self._caller = caller
        self._sources = sources
        self._changes = changes

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
        self._caller.check_writable()
        updates = await self._caller.updates()
        if len(set(connection_ids)) != len(connection_ids) or not connection_ids:
            raise InvalidRequest("connection_ids must name at least one connection, each once.")
        for connection_id in connection_ids:
            self._caller.check(connection_id)
        account = (await self._caller.account()).id
        options = Options(None, reason, None, then_sync, allow_resync)

        async def requests(wanted: Wanted) -> list[UpdateRequest]:
            text = await large.run(state.dump, wanted.change.value)
            # Each connection's update stores the change.
            if len(text) * len(connection_ids) > state.MAX_BYTES:
                raise InvalidRequest(
                    f"A change of {len(text):,} bytes is too large for {len(connection_ids)} "
                    f"connections at once: together these are more than {state.MAX_BYTES:,} bytes. "
                    "Send a patch, or change fewer at a time."
                )
            return [
                await self._changes.request(id_, wanted, options, text) for id_ in connection_ids
            ]

        workflow_id = None
        source = unread(change)
        if idempotency_key is not None and source is not None:
            workflow_id = await updates.groups.with_key(
                await requests(source), account, idempotency_key
            )
        if workflow_id is None:
            wanted = await self._sources.read(connection_ids[0], change)
            asked = await requests(wanted)
            workflow_id = await updates.groups.attach(asked, account, idempotency_key)
        if workflow_id is None:
            await self._check_all(connection_ids, wanted, options)
            workflow_id = await updates.groups.start(asked, account, idempotency_key)
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
        self, connection_ids: Sequence[str], wanted: Wanted, options: Options
    ) -> None:
        """Look at all connections before any is touched; raise the first error of an update."""
        few = asyncio.Semaphore(READ_AT_ONCE)

        async def check(connection_id: str) -> None:
            async with few:
                plan = await self._changes.plan_of(
                    connection_id, wanted, None, then_sync=options.then_sync
                )
            if not options.allow_resync:
                refuse_pending_resync(plan.connection)

        await asyncio.gather(*map(check, connection_ids))

    def is_group(self, workflow_id: str) -> bool:
        """True for the id of a group."""
        return group.is_id(workflow_id)

    async def updates_status(
        self, workflow_id: str, *, wait_seconds: float = 0, on_update: OnUpdate | None = None
    ) -> UpdatesView:
        """The group's progress, or its end.

        While it runs, `on_update` gets each of its updates that begins, moves on or ends.
        """
        await self._caller.check_group(workflow_id)
        if on_update is None:
            view, _ = await self._group(workflow_id, wait_seconds)
            return view
        now = asyncio.get_running_loop().time
        deadline = now() + wait_seconds
        told: dict[str | None, str] = {}
        pause = 0.0
        while True:
            left = max(0.0, deadline - now())
            view, _ = await self._group(workflow_id, min(left, pause))
            if view.status != "running":
                return view
            for update in view.updates:
                if told.get(update.workflow_id) != update.message:
                    told[update.workflow_id] = update.message
                    await on_update(update)
            if not left:
                return view
            pause = LOOK_SECONDS

    async def cancel_updates(self, workflow_id: str, *, wait_seconds: float = 0) -> UpdatesView:
        """Cancel a group, so that it changes nothing; raises `TooLateToCancel` once all are written."""
        self._caller.check_writable()
        updates = await self._caller.updates()
        await self._caller.check_group(workflow_id)
        await updates.groups.cancel(workflow_id, (await self._caller.account()).id)
        view, _ = await self._group(workflow_id, wait_seconds)
        if view.status not in ("running", "cancelled"):
            raise too_late(workflow_id, view.status)
        return view

    async def _group(
        self, workflow_id: str, wait_seconds: float
    ) -> tuple[UpdatesView, FivetranStateError | None]:
        updates = await self._caller.updates()
        found = await updates.groups.follow(
            workflow_id, (await self._caller.account()).id, wait_seconds
        )
        parts = [
            views.update(await updates.store.get(id_), await updates.store.steps(id_))
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
