"""The service, coming up behind the protocol's handshake.

Importing DBOS takes longer than a client likes to wait for its first answer, so that it is
imported in a thread, and tools wait for it here.
"""

import asyncio
import importlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fivetran_state.config import Settings

if TYPE_CHECKING:
    from fivetran_state.service import Service


logger = logging.getLogger(__name__)

HEAD_START = 0.3
"""Seconds that the handshake gets before the import competes with it for the interpreter."""


class Backend:
    """Use `running()` around the server's life, and `service()` within a call.

    With `ends_process`, the end of `running()` is the end of the process: nothing is waited for,
    and a signal to terminate is such an end too. Otherwise updates in flight get `patience`
    seconds to end before they are handed over.
    """

    def __init__(
        self, settings: Settings, *, ends_process: bool = False, patience: float = 0
    ) -> None:
        self._settings = settings
        self._ends_process = ends_process
        self._patience = patience
        self._is_needed = asyncio.Event()
        self._starting: asyncio.Task[Service] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._starting = asyncio.create_task(self._start())
        if self._ends_process:
            self._leave_on_signals()
        try:
            yield
        finally:
            service = await self._came_up()
            if service is not None:
                await (service.leave() if self._ends_process else service.close(self._patience))

    async def service(self) -> "Service":
        assert self._starting is not None, "outside of running()"
        self._is_needed.set()
        return await asyncio.shield(self._starting)

    async def _start(self) -> "Service":
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._is_needed.wait(), HEAD_START)
        module = await asyncio.to_thread(importlib.import_module, "fivetran_state.service")
        service: Service = module.Service(self._settings)
        service.start()
        return service

    async def _came_up(self) -> "Service | None":
        """The service, or None if it cannot even be imported: then there is nothing to leave."""
        try:
            return await self.service()
        except Exception:
            logger.exception("The service did not start")
            return None

    def _leave_on_signals(self) -> None:
        async def leave() -> None:
            service = await self._came_up()
            if service is not None:
                await service.leave()
            os._exit(0)

        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):  # Windows has no such signals.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, lambda: asyncio.ensure_future(leave()))
