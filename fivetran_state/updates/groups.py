"""Groups of connections that are changed together: start, attach, follow, cancel."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID, WorkflowHandleAsync
from dbos import error as dbos_error

from fivetran_state import database, turns
from fivetran_state.errors import (
    FivetranStateError,
    IdempotencyKeyReused,
    InternalError,
    LeftPaused,
    RollbackFailed,
    Undone,
    WorkflowNotFound,
)
from fivetran_state.text import shown
from fivetran_state.updates import binding
from fivetran_state.updates.group import GroupWorkflow, Result
from fivetran_state.updates.records import (
    GROUP,
    UpdateRequest,
    attributes,
    owner,
    request_fingerprint,
)
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.start import Starter
from fivetran_state.vault import Bound

_ID = re.compile(f"{GROUP}:[0-9a-f]{{32}}")
_COUNTER = 8
"""Hex digits, of the 32, that count equal requests without a key."""
_POLL_SECONDS = 0.1
_NOT_PUT_RIGHT = (LeftPaused, RollbackFailed)


@dataclass(frozen=True)
class Status:
    """The progress of a group."""

    workflow_ids: list[str]
    """In the order of the request, as far as they were started."""
    has_ended: bool
    error: FivetranStateError | None
    """Why they were not changed."""


class Groups:
    """The groups of one account and of its guests: an account's id stands in front of theirs."""

    def __init__(self, runtime: Runtime, starter: Starter, digest: Callable[[str], str]) -> None:
        self._application = runtime.application
        self._store = runtime.store
        self._starter = starter
        self._digest = digest
        self._workflow = GroupWorkflow(runtime, starter)

    async def start(
        self, requests: list[UpdateRequest], account: str | None, key: str | None
    ) -> str:
        """Start a group, or attach to the one with this key; return its id.

        Without a key it attaches to a running group with equal requests. Raises `IdempotencyKeyReused`.
        """
        workflow_id = (
            await self._running_or_next(requests, account)
            if key is None
            else self._of_key(account, key)
        )
        place = binding.input_of(workflow_id, GROUP)
        with (
            database.answering(),
            SetWorkflowID(workflow_id),
            SetWorkflowAttributes(attributes(requests[0])),
        ):
            await DBOS.start_workflow_async(self._workflow.registered, Bound(place, requests))
        if key is not None:
            await self.with_key(requests, account, key)
        return workflow_id

    async def attach(
        self, requests: list[UpdateRequest], account: str | None, key: str | None
    ) -> str | None:
        """The id of the group that `start` would attach to, if there is one."""
        if key is not None:
            return await self.with_key(requests, account, key)
        last = await self._store.last_group(self._prefix_of(requests, account))
        return last[0] if last is not None and last[1] else None

    async def with_key(
        self, requests: list[UpdateRequest], account: str | None, key: str
    ) -> str | None:
        """The id of the group with this key; raises `IdempotencyKeyReused`."""
        workflow_id = self._of_key(account, key)
        try:
            started = await self._store.requests_of(workflow_id)
        except WorkflowNotFound:
            return None
        if _what(started) != _what(requests):
            raise IdempotencyKeyReused(
                "This idempotency key was used for a different request.", workflow_id=workflow_id
            )
        return workflow_id

    async def _running_or_next(self, requests: list[UpdateRequest], account: str | None) -> str:
        """The id of a running group with equal requests, or the next free id.

        The ids count up, as those of updates do. If several processes start the same id, the database's
        primary key lets one win.
        """
        prefix = self._prefix_of(requests, account)
        last = await self._store.last_group(prefix)
        if last is None:
            return f"{prefix}{1:0{_COUNTER}x}"
        workflow_id, is_running = last
        number = int(workflow_id.removeprefix(prefix), 16)
        return workflow_id if is_running else f"{prefix}{number + 1:0{_COUNTER}x}"

    def _prefix_of(self, requests: list[UpdateRequest], account: str | None) -> str:
        return f"{_prefix(account)}{self._digest_of(requests)[:-_COUNTER]}"

    def _of_key(self, account: str | None, key: str) -> str:
        # Ids are stored as they are, so a caller's key is hashed.
        whose = f"{self._application}\n{account}\n{key}"
        return f"{_prefix(account)}{hashlib.sha256(whose.encode()).hexdigest()[:32]}"

    async def cancel(self, workflow_id: str, account: str | None) -> None:
        """Ask the group to change nothing. That is too late once all are written. Raises `WorkflowNotFound`."""
        requests = await self.requests_of(workflow_id, account)
        # From now on no part is started, and none writes.
        await self._starter.cancel(workflow_id)
        for part in await self._store.parts_of(workflow_id, requests):
            await self._starter.cancel(part)

    async def follow(self, workflow_id: str, account: str | None, seconds: float) -> Status:
        """Wait for the end, at most `seconds`; raises `WorkflowNotFound`."""
        requests = await self.requests_of(workflow_id, account)
        end = asyncio.ensure_future(self._end(workflow_id))
        try:
            async with turns.waiting():
                await asyncio.wait({end}, timeout=seconds)
            has_result = end.done() and end.exception() is None
            if not has_result and await self._store.is_running(workflow_id):
                return Status(await self._store.parts_of(workflow_id, requests), False, None)
            result = await end
        finally:
            end.cancel()
        return Status(result["workflow_ids"], True, await self._failure(result))

    async def _end(self, workflow_id: str) -> Result:
        handle: WorkflowHandleAsync[Bound] = await DBOS.retrieve_workflow_async(workflow_id)
        try:
            found = await handle.get_result(polling_interval_sec=_POLL_SECONDS)
            result: Result = binding.opened(found, binding.output_of(workflow_id))
            return result
        except dbos_error.DBOSException as error:
            raise InternalError(f"{workflow_id} ended by {type(error).__name__}.") from error

    async def requests_of(self, workflow_id: str, account: str | None) -> list[UpdateRequest]:
        """The requests of the group, started or not; raises `WorkflowNotFound`."""
        if not _is_of(workflow_id, account):
            raise WorkflowNotFound(f"There is no update '{shown(workflow_id)}'.")
        return await self._store.requests_of(workflow_id)

    async def _failure(self, result: Result) -> FivetranStateError | None:
        """The worst error: first a connection that could not be put right, then the cause of the undo."""
        found = [
            (await self._store.get(workflow_id)).error for workflow_id in result["workflow_ids"]
        ]
        if result["error"] is not None:
            found.append(FivetranStateError.from_json(result["error"]))
        errors = [error for error in found if error is not None]
        errors.sort(key=lambda each: isinstance(each, Undone) - isinstance(each, _NOT_PUT_RIGHT))
        return errors[0] if errors else None

    def _digest_of(self, requests: list[UpdateRequest]) -> str:
        """A digest of the requests. Equal requests have equal digests (see `request_fingerprint`)."""
        # The requests of a group have only derived keys.
        whats = [f"{owner(request)} {request['idempotency_key']}" for request in requests]
        return self._digest("\n".join([self._application, *whats]))


def is_id(workflow_id: str) -> bool:
    """True for the id of a group, false for the id of an update."""
    return _ID.fullmatch(workflow_id.rpartition("/")[2]) is not None


def _is_of(workflow_id: str, account: str | None) -> bool:
    return is_id(workflow_id) and workflow_id.startswith(_prefix(account))


def _prefix(account: str | None) -> str:
    return f"{GROUP}:" if account is None else f"{account}/{GROUP}:"


def _what(requests: list[UpdateRequest]) -> list[Any]:
    return [(request["connection_id"], request_fingerprint(request)) for request in requests]
