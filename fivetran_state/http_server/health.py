"""What a load balancer and an orchestrator ask."""

from fastapi import APIRouter, Response

from fivetran_state.errors import FivetranStateError
from fivetran_state.mcp_server.backend import Backend


def router(backend: Backend) -> APIRouter:
    """`/healthz`: the process lives. `/readyz`: its database and its engine are there."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/readyz")
    async def readyz(response: Response) -> dict[str, str]:
        try:
            service = await backend.service()
            await service.check_ready()
        except FivetranStateError as error:
            response.status_code = 503
            return {"status": error.code}  # Its message may name a path, and anybody may ask.
        return {"status": "ok"}

    return routes
