"""Identity: starting an update, or finding the one that a request has started.

Identity, mutual exclusion and history are one thing, the workflow id `{connection_id}:{n}`. The
next number is started only when the latest update has ended, and the database's primary key
decides between two processes that start the same number.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from dbos import (
    DBOS,
    SetWorkflowAttributes,
    SetWorkflowID,
    WorkflowHandleAsync,
    WorkflowStatus,
)
from dbos import error as dbos_error

from fivetran_state import database, tracing
from fivetran_state.errors import IdempotencyKeyReused
from fivetran_state.ids import UpdateId
from fivetran_state.updates import binding, records, statuses
from fivetran_state.updates.keys import Keys
from fivetran_state.updates.records import ABOUT, UpdateRequest, request_fingerprint
from fivetran_state.updates.store import Store, in_progress
from fivetran_state.updates.workflow import UpdateWorkflow
from fivetran_state.vault import Bound, Texts

_REQUEST = "request"
"""The attribute by which a repeated request finds its update."""

Handle = WorkflowHandleAsync[Bound]


class Starter:
    """Starts the updates of one account."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        workflow: UpdateWorkflow,
        texts: Texts,
        digest: Callable[[str], str],
    ) -> None:
        """Only a process with the key can make a digest, seal a value and open it."""
        self._store = store
        self._keys = keys
        self._workflow = workflow
        self._texts = texts
        self._digest = digest

    async def attach(
        self, request: UpdateRequest, state_is_expected: Callable[[], Awaitable[bool]]
    ) -> tuple[int, Handle | None]:
        """The number of the connection's latest update, and the update that this request already started.

        A key that the caller gave belongs to one update while that is kept. A key derived from the request is
        only a guard against repetition: it attaches to the connection's latest update if that is
        running, or to the newest of this request if that succeeded and the state has not come back to
        the expected version since (`state_is_expected` asks Fivetran) - then somebody wants the same
        change once more. It never attaches to a part of what changes several connections together:
        that may be undone on behalf of others.

        Raises `UpdateInProgress`, or `IdempotencyKeyReused` for a given key with another request.
        """
        recent = await self._store.recent(records.owner(request))
        latest = await self._store.status(recent[0].workflow_id) if recent else None
        number = 0 if latest is None else statuses.number(latest.workflow_id)
        if request["key_was_given"]:
            handle = await self._with_key(request, latest)
            if handle is not None:
                return number, handle
        elif latest is not None and _is_the_same(latest, request):
            if statuses.is_running(latest) or (
                statuses.succeeded(latest) and not await state_is_expected()
            ):
                return number, await self.find(latest.workflow_id)
        else:
            attribute = self._request_attribute(request)
            same = next((row for row in recent if _has_attribute(row, attribute)), None)
            if same is not None and statuses.succeeded(same) and not await state_is_expected():
                return number, await self.find(same.workflow_id)
        if latest is not None and statuses.is_running(latest):
            raise in_progress(latest)
        return number, None

    async def with_key(self, request: UpdateRequest) -> Handle | None:
        """The update with the request's idempotency key; raises `IdempotencyKeyReused`."""
        return await self._with_key(request, await self._store.latest(records.owner(request)))

    async def _with_key(
        self, request: UpdateRequest, latest: WorkflowStatus | None
    ) -> Handle | None:
        same = await self._remembered(request, latest)
        if same is None:
            return None
        if request_fingerprint(statuses.request(same)) != request_fingerprint(request):
            raise IdempotencyKeyReused(
                "This idempotency key was used for a different request.",
                workflow_id=same.workflow_id,
            )
        return await self.find(same.workflow_id)

    async def start(self, request: UpdateRequest, after: int) -> Handle | None:
        """Start the update with the number after `after`; None if another process was first."""
        number = after
        while True:
            number += 1
            workflow_id = str(UpdateId(records.owner(request), number))
            await self._store.series.mark({records.owner(request): number})
            try:
                with database.answering():
                    return await self.begin(workflow_id, request)
            except dbos_error.DBOSWorkflowIDInUseError:
                taken = await self._store.status(workflow_id)
                if taken is None or self._store.is_ours(taken):
                    return None
                # Another account has a connection of this name in the same database: skip all of its.
                number = max(number, await self._store.series.last(records.owner(request)))

    async def begin(self, workflow_id: str, request: UpdateRequest) -> Handle:
        """Start the update with this id. Raises DBOS's error if another one has it."""
        request = {**request, "asked_at": time.time()}
        if (trace := tracing.present()) is not None:
            request["trace"] = trace
        place = binding.input_of(workflow_id, records.NAME)
        with (
            SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"),
            SetWorkflowAttributes(self._attributes(request, workflow_id)),
        ):
            return await DBOS.start_workflow_async(self._workflow.registered, Bound(place, request))

    async def find(self, workflow_id: str) -> Handle:
        """A handle to follow, also for an update that does not exist."""
        return await DBOS.retrieve_workflow_async(workflow_id)

    async def cancel(self, workflow_id: str) -> None:
        """Ask the update to end without writing; it ends as `Cancelled`, unless it is too late."""
        with database.answering():
            await DBOS.update_workflow_attributes_async(
                workflow_id, {records.CANCEL: True}, merge=True
            )
            # Wake the workflow: it may be sleeping.
            await binding.send(workflow_id, True, records.CANCEL)

    async def _remembered(
        self, request: UpdateRequest, latest: WorkflowStatus | None
    ) -> WorkflowStatus | None:
        """The update with this idempotency key. The latest update may not have stored its key yet."""
        key = request["idempotency_key"]
        started = None if latest is None else statuses.readable_request(latest)
        if started is not None and started["idempotency_key"] == key:
            return latest
        row = await self._store.status(self._keys.row_id(request))
        return None if row is None else await self._store.status(statuses.input_of(row))

    def _request_attribute(self, request: UpdateRequest) -> dict[str, str]:
        return {_REQUEST: self._digest(request["idempotency_key"])}

    def _attributes(self, request: UpdateRequest, workflow_id: str) -> dict[str, Any]:
        """What the row of the request's update says of it."""
        about = self._texts.seal([workflow_id, statuses.without_change(request)])
        return self._request_attribute(request) | records.attributes(request) | {ABOUT: about}


def _is_the_same(latest: WorkflowStatus, request: UpdateRequest) -> bool:
    started = statuses.readable_request(latest)
    return (
        started is not None
        and started["idempotency_key"] == request["idempotency_key"]
        and "part_of" not in started
    )


def _has_attribute(row: WorkflowStatus, attribute: dict[str, str]) -> bool:
    return attribute.items() <= (row.attributes or {}).items()
