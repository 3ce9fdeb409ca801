"""Connections that were left paused: who paused them, as far as is known, and how to resume them."""

import uuid
from dataclasses import dataclass
from typing import Any, cast

from fivetran_state import access
from fivetran_state.errors import NotAllowed, UpdateInProgress
from fivetran_state.fivetran_answers import Connection
from fivetran_state.service.caller import Caller
from fivetran_state.updates.records import Update, UpdateRequest


@dataclass(frozen=True)
class Pause:
    """A connection, and what the updates know of its pause."""

    connection: Connection
    left_by: Update | None
    """The update that has left it paused."""
    during: Update | None
    """Otherwise the latest update, if somebody else paused the connection while it ran."""
    latest: int
    """The number of the latest update."""


class Pauses:
    """Resumes the connections of one account, for a person."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def look(self, connection_id: str) -> Pause:
        """Raises `UpdateInProgress` if an update of this connection has not ended, in any process."""
        self._caller.check_writable()
        updates = await self._caller.updates()
        fivetran = await self._caller.fivetran_for(connection_id)
        owner = await self._caller.owner(connection_id)
        latest = await updates.store.latest_number(owner)
        connection = await fivetran.get_connection(connection_id)
        left_by = during = None
        workflow_id = (await updates.unfinished.left_paused()).get(owner)
        if workflow_id is not None:
            left_by = await updates.store.get(workflow_id)
            first = left_by.request.get("resumes")
            if first is not None:  # An earlier resume has failed.
                left_by = await updates.store.get(first)
        elif latest:
            update = await updates.store.get(f"{owner}:{latest}")
            outcome, error = update.outcome, update.error
            by_others = outcome.get("by_others") if outcome is not None else None
            if error is not None:
                by_others = error.details.get("by_others")
            if by_others == "paused":
                during = update
        return Pause(connection, left_by, during, latest)

    async def resume(self, pause: Pause, reason: str | None) -> str:
        """Start an update that only resumes the connection; its workflow id.

        Raises `UpdateInProgress` if another update was started since the look, and `NotAllowed` if the
        caller needs somebody's approval.
        """
        if await self._caller.must_propose():
            raise NotAllowed("Only somebody who may approve changes may resume a connection.")
        updates = await self._caller.updates()
        request = UpdateRequest(
            connection_id=pause.connection.id,
            change_kind="merge_patch",
            change="{}",
            change_is_exact=True,
            source="resume",
            expected_version=None,
            reason=reason,
            idempotency_key=uuid.uuid4().hex,
            key_was_given=False,
            sync_wait=self._caller.settings.sync_wait,
            asked_by=access.principal().name,
            resumes=None if pause.left_by is None else pause.left_by.workflow_id,
        )
        request.update(cast(Any, (await self._caller.account()).in_request()))
        started = await updates.starter.start(request, after=pause.latest)
        if started is None:
            raise UpdateInProgress("Another update of this connection was started meanwhile.")
        return started.workflow_id
