"""A group: several connections that are changed together, all of them or none.

A workflow that starts one update after the other. Each waits, written, verified and still paused,
until all are: then all are resumed, or else every state is put back first. So no sync can run
between a connection's write and the decision whether it stays.
"""

from contextlib import suppress
from typing import Any

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID
from dbos import error as dbos_error
from typing_extensions import TypedDict

from fivetran_state.errors import (
    Cancelled,
    FivetranStateError,
    InternalError,
)
from fivetran_state.ids import UpdateId
from fivetran_state.updates import binding, signals
from fivetran_state.updates.records import (
    GROUP,
    UpdateRequest,
    attributes,
    owner,
)
from fivetran_state.updates.run import MAX_RETRY_PAUSE
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.signals import VERDICT, Signal
from fivetran_state.updates.start import Handle, Starter
from fivetran_state.vault import Bound


class Result(TypedDict):
    """The ends of a group's updates."""

    workflow_ids: list[str]
    """In the order of the request, as far as they were started."""
    error: dict[str, Any] | None
    """Why the next one could not be started, if that is what failed."""


class GroupWorkflow:
    """The DBOS workflow that applies each change to its connection, in order.

    After the first failure it undoes all of them.
    """

    def __init__(self, runtime: Runtime, starter: Starter) -> None:
        """Register the workflow with DBOS, which must not have been launched."""
        self._running = runtime.running
        self._store = runtime.store
        self._starter = starter

        @DBOS.workflow(name=GROUP, max_recovery_attempts=None)
        async def update_states(requests: Bound) -> Bound:
            workflow_id = DBOS.workflow_id or ""
            place = binding.output_of(workflow_id)
            with binding.bound_errors(place):
                asked = binding.opened(requests, binding.input_of(workflow_id, GROUP))
                return Bound(place, await self._run_here(workflow_id, asked))

        self.registered = update_states
        """Takes a list of `UpdateRequest` and returns a `Result`."""

    async def _run_here(self, workflow_id: str, requests: list[UpdateRequest]) -> Result:
        if "credentials" in requests[0]:
            self._running.with_credentials.add(workflow_id)
        with self._running.here(workflow_id):
            started: list[Handle] = []
            failure: FivetranStateError | None = None
            verdict = Signal.KEEP
            for request in requests:
                request["part_of"] = workflow_id
                try:
                    started.append(await self._start_next(request))
                except FivetranStateError as error:
                    failure, verdict = error, Signal.UNDO
                    break
                member = started[-1].workflow_id
                news = await signals.wait(owner(request), member, MAX_RETRY_PAUSE)
                if news != Signal.DONE:
                    verdict = Signal.UNDO
                    break
            for update in started:
                await binding.send(update.workflow_id, verdict.value, VERDICT)
            for update in started:
                with suppress(FivetranStateError):  # The update's own row has its error.
                    await update.get_result()
            return Result(
                workflow_ids=[update.workflow_id for update in started],
                error=None if failure is None else failure.to_json(),
            )

    async def _start_next(self, request: UpdateRequest) -> Handle:
        """Start the next update of the request's connection."""
        tried = 0
        while True:
            number = await self._next_number(request, tried)
            workflow_id = str(UpdateId(owner(request), number))
            try:
                with (
                    SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"),
                    SetWorkflowAttributes(attributes(request)),
                ):
                    return await self._starter.begin(workflow_id, request)
            except (dbos_error.DBOSWorkflowIDInUseError, InternalError):
                # On replay, DBOS raises the second instead of the first. Somebody was first,
                # or another account has a connection of that name.
                tried = number

    @binding.step("next_number")
    async def _next_number(self, request: UpdateRequest, tried: int) -> int:
        if await self._store.is_cancelled(request["part_of"]):
            raise Cancelled("The update was cancelled; nothing was written.")
        return max(await self._store.latest_number(owner(request)), tried) + 1
