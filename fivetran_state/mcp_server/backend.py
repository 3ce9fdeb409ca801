"""The service, coming up behind the protocol's handshake.

Importing DBOS takes longer than a client likes to wait for its first answer, so that it is
imported in a thread, and tools wait for it here.
"""

import asyncio
import importlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fivetran_state.config import Settings

if TYPE_CHECKING:
    from fivetran_state.service import Service


class Backend:
    """Use `running()` around the server's life, and `service()` within a call.

    With `ends_process`, the end of `running()` is the end of the process: nothing is waited for,
    and a signal to terminate is such an end too.
    """

    def __init__(self, settings: Settings, *, ends_process: bool) -> None:
        self._settings = settings
        self._ends_process = ends_process
        self._starting: asyncio.Task[Service] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._starting = asyncio.create_task(self._start())
        if self._ends_process:
            self._leave_on_signals()
        try:
            yield
        finally:
            service = await self._starting
            await (service.leave() if self._ends_process else service.close())

    async def service(self) -> "Service":
        assert self._starting is not None, "outside of running()"
        return await asyncio.shield(self._starting)

    async def _start(self) -> "Service":
        module = await asyncio.to_thread(importlib.import_module, "fivetran_state.service")
        service: Service = module.Service(self._settings)
        service.start()
        return service

    def _leave_on_signals(self) -> None:
        async def leave() -> None:
            await (await self.service()).leave()
            os._exit(0)

        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):  # Windows has no such signals.
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, lambda: asyncio.ensure_future(leave()))
