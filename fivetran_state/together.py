"""Several connections changed together: all of them, or none.

A workflow that starts one update after the other. Each waits, written, verified and still paused,
until all are: then all are resumed, or else every state is put back first. So no sync can run
between a connection's write and the decision whether it stays.
"""

import asyncio
import hashlib
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dbos import DBOS, SetWorkflowID, WorkflowHandleAsync
from dbos import error as dbos_error
from typing_extensions import TypedDict

from fivetran_state import updates, workflow
from fivetran_state.errors import (
    FivetranStateError,
    IdempotencyKeyReused,
    LeftPaused,
    RollbackFailed,
    Undone,
    WorkflowNotFound,
)
from fivetran_state.workflow import DONE, KEEP, UNDO, VERDICT, UpdateRequest

_ID = re.compile(f"{updates.TOGETHER}:[0-9a-f]{{32}}")
_LONGEST_WAIT = 300.0


class Result(TypedDict):
    """What became of the updates."""

    workflow_ids: list[str]
    """In the order of the request, as far as they were started."""
    error: dict[str, Any] | None
    """Why the next one could not be started, if that is what failed."""


@DBOS.workflow(name=updates.TOGETHER, max_recovery_attempts=None)
async def update_states(requests: list[UpdateRequest]) -> Result:
    """Applies each change to its connection, in order; after the first failure undoes the others."""
    with workflow.running_here():
        started: list[updates.Handle] = []
        failure: FivetranStateError | None = None
        verdict = KEEP
        for request in requests:
            request["part_of"] = DBOS.workflow_id or ""
            try:
                started.append(await _start_next(request))
            except FivetranStateError as error:
                failure, verdict = error, UNDO
                break
            if await _news_of(request) != DONE:
                verdict = UNDO
                break
        for update in started:
            await DBOS.send_async(update.workflow_id, verdict, topic=VERDICT)
        for update in started:
            with suppress(FivetranStateError):  # Its own row tells how it failed.
                await update.get_result()
        return Result(
            workflow_ids=[update.workflow_id for update in started],
            error=None if failure is None else failure.to_json(),
        )


async def _start_next(request: UpdateRequest) -> updates.Handle:
    """Start the next update of the request's connection."""
    tried = 0
    while True:
        number = await _next_number(request, tried)
        workflow_id = f"{workflow.owner(request)}:{number}"
        try:
            with SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"):
                return await DBOS.start_workflow_async(workflow.update_state, request)
        except dbos_error.DBOSWorkflowIDInUseError:
            tried = number  # Somebody was first, or another account has a connection of that name.


@DBOS.step(name="next_number")
async def _next_number(request: UpdateRequest, tried: int) -> int:
    return max(await updates.latest_number(workflow.owner(request)), tried) + 1


async def _news_of(request: UpdateRequest) -> str:
    """`DONE`, or the code of the error by which the update has failed."""
    while True:
        news = await DBOS.recv_async(workflow.owner(request), _LONGEST_WAIT)
        if news is not None:
            return str(news)


@dataclass(frozen=True)
class Status:
    """How far connections are that are changed together."""

    workflow_ids: list[str]
    has_ended: bool
    error: FivetranStateError | None
    """Why not all of them were changed."""


async def start(requests: list[UpdateRequest], account: str | None, key: str | None) -> str:
    """Start the workflow, or attach to the one that was started with this key; its id.

    Raises `IdempotencyKeyReused`.
    """
    name = uuid.uuid4().hex if key is None else hashlib.sha256(key.encode()).hexdigest()[:32]
    workflow_id = f"{_prefix(account)}{name}"
    with SetWorkflowID(workflow_id):
        await DBOS.start_workflow_async(update_states, requests)
    if key is not None and _what(await updates.requests_of(workflow_id)) != _what(requests):
        raise IdempotencyKeyReused(
            "This idempotency key was used for a different request.", workflow_id=workflow_id
        )
    return workflow_id


def is_id(workflow_id: str) -> bool:
    """Whether it is the id of such a workflow, and not of one connection's update."""
    return _ID.fullmatch(workflow_id.rpartition("/")[2]) is not None


async def follow(workflow_id: str, account: str | None, seconds: float) -> Status:
    """Wait for the end, at most `seconds`; raises `WorkflowNotFound`."""
    if not workflow_id.startswith(_prefix(account)):
        raise WorkflowNotFound(f"There is no update {workflow_id!r}.")
    requests = await updates.requests_of(workflow_id)
    handle: WorkflowHandleAsync[Result] = await DBOS.retrieve_workflow_async(workflow_id)
    result: Result | None = None
    with suppress(asyncio.TimeoutError):
        result = await asyncio.wait_for(handle.get_result(polling_interval_sec=0.1), seconds)
    if result is None:
        return Status(await updates.parts_of(workflow_id, requests), False, None)
    return Status(result["workflow_ids"], True, await _failure(result))


async def _failure(result: Result) -> FivetranStateError | None:
    """The worst: what could not be put right, then what made the others be undone."""
    found = [(await updates.get(workflow_id)).error for workflow_id in result["workflow_ids"]]
    if result["error"] is not None:
        found.append(FivetranStateError.from_json(result["error"]))
    errors = [error for error in found if error is not None]
    errors.sort(key=lambda each: isinstance(each, Undone) - isinstance(each, _NOT_PUT_RIGHT))
    return errors[0] if errors else None


_NOT_PUT_RIGHT = (LeftPaused, RollbackFailed)


def _prefix(account: str | None) -> str:
    return f"{updates.TOGETHER}:" if account is None else f"{account}/{updates.TOGETHER}:"


def _what(requests: list[UpdateRequest]) -> list[Any]:
    return [(request["connection_id"], updates.what(request)) for request in requests]
