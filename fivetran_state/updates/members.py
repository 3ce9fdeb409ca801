"""Updates that another workflow starts as its children: the members of a group, and what a proposal asks for."""

import asyncio
from collections.abc import Sequence

from dbos import DBOS
from dbos import error as dbos_error

from fivetran_state.errors import InternalError
from fivetran_state.ids import UpdateId
from fivetran_state.updates import binding
from fivetran_state.updates.ends import End
from fivetran_state.updates.records import GROUP, UpdateRequest, owner
from fivetran_state.updates.refusals import called_off
from fivetran_state.updates.start import Handle, Starter
from fivetran_state.updates.store import Store

_POLL_SECONDS = 0.2
_MAX_POLL_SECONDS = 2.0


class Members:
    """Starts updates, and waits for their ends. The methods are part of the workflow that starts them."""

    def __init__(self, starter: Starter, store: Store) -> None:
        self._starter = starter
        self._store = store

    async def start(self, request: UpdateRequest) -> Handle:
        """Start the next update of the request's connection; raises `UpdateInProgress` or `Cancelled`."""
        tried = -1
        # The plan has seen the number of the latest update; mostly, nothing has come since.
        number = request.get("number") or 0
        while True:
            if number <= max(tried, 0):
                number = await self._next_number(request, max(tried, 0))
            workflow_id = str(UpdateId(owner(request), number))
            try:
                return await self._starter.begin(workflow_id, request)
            except (dbos_error.DBOSWorkflowIDInUseError, InternalError):
                # On replay, DBOS raises the second instead of the first. Somebody was first,
                # or another account has a connection of that name.
                tried = number

    @binding.step("next_number")
    async def _next_number(self, request: UpdateRequest, tried: int) -> int:
        if any(await self._store.is_cancelled(DBOS.workflow_id or "")):
            raise called_off(GROUP)
        if tried:
            tried = max(tried, await self._store.series.last(owner(request)))
        number = max(await self._store.latest_number(owner(request)), tried) + 1
        await self._store.series.mark({owner(request): number})
        return number

    @binding.step("until_free")
    async def until_free(
        self, requests: Sequence[UpdateRequest], unreported: Sequence[str] = ()
    ) -> list[str] | None:
        """Wait until none of the connections has a running update, or the group was cancelled.

        Returns before that if `unreported` members of the group have ended: these.
        """
        while running := await self._running(requests):
            pause = _POLL_SECONDS
            while await self._store.unfinished(running):
                if any(await self._store.is_cancelled(DBOS.workflow_id or "")):
                    return None
                left = await self._store.unfinished(unreported)
                if len(left) < len(unreported):
                    return [each for each in unreported if each not in left]
                await asyncio.sleep(pause)
                pause = min(pause * 2, _MAX_POLL_SECONDS)
        return None

    async def _running(self, requests: Sequence[UpdateRequest]) -> list[str]:
        """The ids of the connections' running updates. It takes a look-up for each connection."""
        found = [await self._store.running(owner(request)) for request in requests]
        return [each for each in found if each is not None]

    @binding.step("any_ended")
    async def any_ended(self, workflow_ids: Sequence[str]) -> bool:
        """True if one of these has ended."""
        return len(await self._store.unfinished(workflow_ids)) < len(workflow_ids)

    @binding.step("ends")
    async def ends(self, workflow_ids: Sequence[str]) -> list[End]:
        """Wait until all have ended; returns how."""
        pause = _POLL_SECONDS
        left = list(workflow_ids)
        while left := await self._store.unfinished(left):
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_POLL_SECONDS)
        return await self._store.ends_of(workflow_ids)
