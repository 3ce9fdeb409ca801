"""A group: several connections that are changed together, all of them or none.

A workflow that starts one update after the other. Each waits, written, verified and still paused,
until all are: then all are resumed, or else every state is put back first. So no sync can run
between a connection's write and the decision whether it stays.
"""

import asyncio
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, WorkflowHandleAsync
from dbos import error as dbos_error
from typing_extensions import TypedDict

from fivetran_state import database, turns
from fivetran_state.errors import (
    Cancelled,
    FivetranStateError,
    IdempotencyKeyReused,
    InternalError,
    LeftPaused,
    RollbackFailed,
    Undone,
    WorkflowNotFound,
)
from fivetran_state.ids import UpdateId
from fivetran_state.text import shown
from fivetran_state.updates import binding, records, workflow
from fivetran_state.updates import store as updates
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.updates.workflow import DONE, KEEP, MAX_RETRY_PAUSE, UNDO, VERDICT
from fivetran_state.vault import Bound

_ID = re.compile(f"{updates.GROUP}:[0-9a-f]{{32}}")
_COUNTER = 8
"""Hex digits, of the 32, that count equal requests without a key."""
_POLL_SECONDS = 0.1


class Result(TypedDict):
    """The ends of a group's updates."""

    workflow_ids: list[str]
    """In the order of the request, as far as they were started."""
    error: dict[str, Any] | None
    """Why the next one could not be started, if that is what failed."""


@DBOS.workflow(name=updates.GROUP, max_recovery_attempts=None)
async def update_states(requests: Bound) -> Bound:
    """Apply each change to its connection, in order; undo all after the first failure.

    Takes a list of `UpdateRequest` and returns a `Result`.
    """
    workflow_id = DBOS.workflow_id or ""
    with binding.bound_errors(binding.output_of(workflow_id)):
        asked = binding.opened(requests, binding.input_of(workflow_id, updates.GROUP))
        return Bound(binding.output_of(workflow_id), await _run_here(asked))


async def _run_here(requests: list[UpdateRequest]) -> Result:
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
            if await _news_of(request, started[-1].workflow_id) != DONE:
                verdict = UNDO
                break
        for update in started:
            await binding.send(update.workflow_id, verdict, VERDICT)
        for update in started:
            with suppress(FivetranStateError):  # The update's own row has its error.
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
        workflow_id = str(UpdateId(records.owner(request), number))
        try:
            with (
                SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"),
                SetWorkflowAttributes(records.attributes(request)),
            ):
                return await updates.begin(workflow_id, request)
        except (dbos_error.DBOSWorkflowIDInUseError, InternalError):
            # On replay, DBOS raises the second instead of the first. Somebody was first,
            # or another account has a connection of that name.
            tried = number


@binding.step("next_number")
async def _next_number(request: UpdateRequest, tried: int) -> int:
    if await updates.is_cancelled(request["part_of"]):
        raise Cancelled("The update was cancelled; nothing was written.")
    return max(await updates.latest_number(records.owner(request)), tried) + 1


async def _news_of(request: UpdateRequest, workflow_id: str) -> str:
    """`DONE`, or the error of the update."""
    while True:
        news = await binding.receive(records.owner(request), MAX_RETRY_PAUSE)
        if news is None and await workflow.has_ended(workflow_id):
            # It has said so before it ended, or somebody else has ended it.
            news = await binding.receive(records.owner(request), 0) or UNDO
        if news is not None:
            return str(news)


@dataclass(frozen=True)
class Status:
    """The progress of a group."""

    workflow_ids: list[str]
    """In the order of the request, as far as they were started."""
    has_ended: bool
    error: FivetranStateError | None
    """Why they were not changed."""


async def start(requests: list[UpdateRequest], account: str | None, key: str | None) -> str:
    """Start a group, or attach to the one with this key; return its id.

    Without a key it attaches to a running group with equal requests. Raises `IdempotencyKeyReused`.
    """
    workflow_id = (
        await _running_or_next(requests, account) if key is None else _of_key(account, key)
    )
    place = binding.input_of(workflow_id, updates.GROUP)
    with (
        database.answering(),
        SetWorkflowID(workflow_id),
        SetWorkflowAttributes(records.attributes(requests[0])),
    ):
        await DBOS.start_workflow_async(update_states, Bound(place, requests))
    if key is not None:
        await with_key(requests, account, key)
    return workflow_id


async def attach(requests: list[UpdateRequest], account: str | None, key: str | None) -> str | None:
    """The id of the group that `start` would attach to, if there is one."""
    if key is not None:
        return await with_key(requests, account, key)
    last = await updates.last_group(_prefix_of(requests, account))
    return last[0] if last is not None and last[1] else None


async def with_key(requests: list[UpdateRequest], account: str | None, key: str) -> str | None:
    """The id of the group with this key; raises `IdempotencyKeyReused`."""
    workflow_id = _of_key(account, key)
    try:
        started = await updates.requests_of(workflow_id)
    except WorkflowNotFound:
        return None
    if _what(started) != _what(requests):
        raise IdempotencyKeyReused(
            "This idempotency key was used for a different request.", workflow_id=workflow_id
        )
    return workflow_id


async def _running_or_next(requests: list[UpdateRequest], account: str | None) -> str:
    """The id of a running group with equal requests, or the next free id.

    The ids count up, as those of updates do. If several processes start the same id, the database's
    primary key lets one win.
    """
    prefix = _prefix_of(requests, account)
    last = await updates.last_group(prefix)
    if last is None:
        return f"{prefix}{1:0{_COUNTER}x}"
    workflow_id, is_running = last
    number = int(workflow_id.removeprefix(prefix), 16)
    return workflow_id if is_running else f"{prefix}{number + 1:0{_COUNTER}x}"


def _prefix_of(requests: list[UpdateRequest], account: str | None) -> str:
    return f"{_prefix(account)}{updates.asked(requests)[:-_COUNTER]}"


def _of_key(account: str | None, key: str) -> str:
    # Ids are stored as they are, so a caller's key is hashed.
    whose = f"{workflow.application_name}\n{account}\n{key}"
    return f"{_prefix(account)}{hashlib.sha256(whose.encode()).hexdigest()[:32]}"


def is_id(workflow_id: str) -> bool:
    """True for the id of a group, false for the id of an update."""
    return _ID.fullmatch(workflow_id.rpartition("/")[2]) is not None


async def cancel(workflow_id: str, account: str | None) -> None:
    """Ask the group to change nothing. That is too late once all are written. Raises `WorkflowNotFound`."""
    requests = await requests_of(workflow_id, account)
    # From now on no part is started, and none writes.
    await updates.cancel(workflow_id)
    for part in await updates.parts_of(workflow_id, requests):
        await updates.cancel(part)


async def follow(workflow_id: str, account: str | None, seconds: float) -> Status:
    """Wait for the end, at most `seconds`; raises `WorkflowNotFound`."""
    requests = await requests_of(workflow_id, account)
    end = asyncio.ensure_future(_end(workflow_id))
    try:
        async with turns.waiting():
            await asyncio.wait({end}, timeout=seconds)
        has_result = end.done() and end.exception() is None
        if not has_result and await updates.is_running(workflow_id):
            return Status(await updates.parts_of(workflow_id, requests), False, None)
        result = await end
    finally:
        end.cancel()
    return Status(result["workflow_ids"], True, await _failure(result))


async def _end(workflow_id: str) -> Result:
    handle: WorkflowHandleAsync[Bound] = await DBOS.retrieve_workflow_async(workflow_id)
    try:
        found = await handle.get_result(polling_interval_sec=_POLL_SECONDS)
        result: Result = binding.opened(found, binding.output_of(workflow_id))
        return result
    except dbos_error.DBOSException as error:
        raise InternalError(f"{workflow_id} ended by {type(error).__name__}.") from error


async def requests_of(workflow_id: str, account: str | None) -> list[UpdateRequest]:
    """The requests of the group, started or not; raises `WorkflowNotFound`."""
    if not _is_of(workflow_id, account):
        raise WorkflowNotFound(f"There is no update '{shown(workflow_id)}'.")
    return await updates.requests_of(workflow_id)


async def _failure(result: Result) -> FivetranStateError | None:
    """The worst error: first a connection that could not be put right, then the cause of the undo."""
    found = [(await updates.get(workflow_id)).error for workflow_id in result["workflow_ids"]]
    if result["error"] is not None:
        found.append(FivetranStateError.from_json(result["error"]))
    errors = [error for error in found if error is not None]
    errors.sort(key=lambda each: isinstance(each, Undone) - isinstance(each, _NOT_PUT_RIGHT))
    return errors[0] if errors else None


_NOT_PUT_RIGHT = (LeftPaused, RollbackFailed)


def _is_of(workflow_id: str, account: str | None) -> bool:
    return is_id(workflow_id) and workflow_id.startswith(_prefix(account))


def _prefix(account: str | None) -> str:
    return f"{updates.GROUP}:" if account is None else f"{account}/{updates.GROUP}:"


def _what(requests: list[UpdateRequest]) -> list[Any]:
    return [
        (request["connection_id"], updates.request_fingerprint(request)) for request in requests
    ]
