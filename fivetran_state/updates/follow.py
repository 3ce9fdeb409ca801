"""Waiting for an update's end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from dbos import DBOS

from fivetran_state import dbos_internals, turns
from fivetran_state.errors import FivetranStateError
from fivetran_state.updates.records import STARTED, Progress
from fivetran_state.updates.running import Running
from fivetran_state.updates.start import Handle
from fivetran_state.updates.store import Store
from fivetran_state.vault import Bound

_POLL_SECONDS = 0.1


class Followers:
    """The callers in this process that wait for updates."""

    def __init__(self, store: Store, running: Running) -> None:
        self._store = store
        self._running = running
        self._followed: dict[str, _Followed] = {}

    async def follow(
        self, handle: Handle, seconds: float, on_progress: Callable[[Progress], Awaitable[None]]
    ) -> None:
        """Wait until the update ends, at most `seconds`, reporting each change of its progress.

        Giving up, or being cancelled, leaves the update running.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        reported: Progress | None = None
        async with turns.waiting(), self._shared(handle) as followed:
            while True:
                news = followed.news
                if followed.progress not in (None, reported):
                    reported = followed.progress
                    await on_progress(reported)
                left = deadline - asyncio.get_running_loop().time()
                await asyncio.wait(
                    {news, followed.looking},
                    timeout=max(left, 0) if reported else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if followed.looking.done():
                    return followed.looking.result()
                if left <= 0:
                    return None

    @asynccontextmanager
    async def _shared(self, handle: Handle) -> AsyncIterator["_Followed"]:
        """Share one `_Followed` among the callers; the last one ends it."""
        workflow_id = handle.workflow_id
        followed = self._followed.get(workflow_id)
        if followed is None or followed.looking.done():
            followed = self._followed[workflow_id] = _Followed(handle, self._store, self._running)
        followed.callers += 1
        try:
            yield followed
        finally:
            followed.callers -= 1
            if not followed.callers:
                if self._followed.get(workflow_id) is followed:
                    del self._followed[workflow_id]
                followed.looking.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await followed.looking


class _Followed:
    """An update that callers in this process wait for. One task polls for all of them."""

    def __init__(self, handle: Handle, store: Store, running: Running) -> None:
        self._store = store
        self._running = running
        self.callers = 0
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done at the next change of the progress; then there is another."""
        self.progress: Progress | None = self._running.progress.get(handle.workflow_id)
        self.looking = asyncio.create_task(self._look(handle))
        """Done when the update has ended, or when the database cannot tell."""

    async def _look(self, handle: Handle) -> None:
        workflow_id = handle.workflow_id
        while True:
            end = asyncio.ensure_future(handle.get_result(polling_interval_sec=_POLL_SECONDS))
            try:
                while not end.done():
                    progress = self._running.progress.get(workflow_id)
                    # An update of this process needs no look into the database.
                    if progress is None and not dbos_internals.was_started_here(handle):
                        progress = await self._store.progress(workflow_id)
                    self._tell(progress or self.progress or STARTED)
                    await asyncio.wait({end}, timeout=_POLL_SECONDS)
                if not await self._goes_on(workflow_id, end):
                    return
            finally:
                end.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await end
            # This run was given up or ended in the database: wait for the next one.
            await asyncio.sleep(_POLL_SECONDS)
            handle = await DBOS.retrieve_workflow_async(workflow_id)

    def _tell(self, progress: Progress) -> None:
        if progress != self.progress:
            self.progress = progress
            self.news.set_result(None)
            self.news = asyncio.get_running_loop().create_future()

    async def _goes_on(self, workflow_id: str, end: "asyncio.Future[Bound]") -> bool:
        """True if only a run of the update has ended, and the update goes on."""
        if not end.cancelled() and isinstance(end.exception(), FivetranStateError | type(None)):
            return False
        return await self._store.is_running(workflow_id)
