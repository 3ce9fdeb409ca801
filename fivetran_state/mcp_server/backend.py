"""The service, coming up behind the protocol's handshake.

Importing DBOS takes longer than a client likes to wait for its first answer, so that it is
imported in a thread, and tools wait for it here.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fivetran_state.config import Settings

if TYPE_CHECKING:
    from fivetran_state.service import Service


class Backend:
    """Use `running()` around the server's life, and `service()` within a call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._starting: asyncio.Task[Service] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._starting = asyncio.create_task(self._start())
        try:
            yield
        finally:
            await (await self._starting).close()

    async def service(self) -> "Service":
        assert self._starting is not None, "outside of running()"
        return await asyncio.shield(self._starting)

    async def _start(self) -> "Service":
        module = await asyncio.to_thread(importlib.import_module, "fivetran_state.service")
        service: Service = module.Service(self._settings)
        service.start()
        return service
