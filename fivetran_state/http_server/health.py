"""Health checks for load balancers and orchestrators."""

import asyncio
import time

from fastapi import APIRouter, Response

from fivetran_state.errors import FivetranStateError
from fivetran_state.startup import Backend

HOLDS_FOR = 1.0
"""Seconds for which an answer is kept: anybody may ask, and must not keep the database busy."""


class _Readiness:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._one_look_at_a_time = asyncio.Lock()
        self._look_again_at = 0.0
        self._trouble: FivetranStateError | None = None

    async def trouble(self) -> FivetranStateError | None:
        """The error that keeps the server from working, at most a second old."""
        async with self._one_look_at_a_time:
            if time.monotonic() >= self._look_again_at:
                self._trouble = await self._look()
                self._look_again_at = time.monotonic() + HOLDS_FOR
            return self._trouble

    async def _look(self) -> FivetranStateError | None:
        try:
            service = await self._backend.service()
            await service.operations.check_ready()
        except FivetranStateError as error:
            return error
        return None


def router(backend: Backend) -> APIRouter:
    """`/healthz`: the process lives. `/readyz`: its database and its engine are ready."""
    routes = APIRouter(include_in_schema=False)
    readiness = _Readiness(backend)

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        trouble = await readiness.trouble()
        if trouble is not None:
            response.status_code = 503
            # Its message may name a path, and anybody may read the answer.
            return {"status": trouble.code}
        return {"status": "ok"}

    return routes
