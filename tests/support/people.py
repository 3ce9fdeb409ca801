"""Callers of an HTTP server, each with a token of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from fivetran_state.access import SCOPES, WITHOUT_TOKEN, Principal, Scope
from fivetran_state.models import GroupPlanView
from fivetran_state.plan import Plan
from fivetran_state.tokens import Token, TokenFile
from tests.support.http_server import NO_TLS, HttpServer, authorization
from tests.support.rest import ANY, get, post


@dataclass(frozen=True)
class Person:
    """A caller; `name` is how the server calls its principal."""

    client: httpx.AsyncClient
    token: Token
    text: str

    @property
    def name(self) -> str:
        return f"token:{self.token.id}"

    async def get(self, path: str, *, status: int = 200, **query: Any) -> dict[str, Any]:
        return await get(self.client, path, status=status, **query)

    async def post(
        self, path: str, body: Any = None, *, status: int = 200, **headers: str
    ) -> dict[str, Any]:
        return await post(self.client, path, body or {}, status=status, **headers)

    async def propose(self, connection_id: str, *, status: int = 202, **body: Any) -> str:
        """Propose a change; returns the id of the proposal."""
        asked = await self.post(
            "/state/update",
            ANY | {"connection_id": connection_id, "propose": True} | body,
            status=status,
        )
        assert asked["status"] == "proposed", asked
        return str(asked["workflow_id"])

    async def version_of(self, proposal: str) -> str:
        """The version of the plan that this person sees now."""
        plan = (await self.get(f"/proposals/{proposal}"))["plan"]
        return str(plan["version" if "mode" in plan else "version_before"])

    async def approve(
        self, proposal: str, *, version: str | None = None, status: int = 200
    ) -> dict[str, Any]:
        """Approve what this person sees now, and wait for the update's end."""
        body = {"expected_version": version or await self.version_of(proposal)}
        return await self.post(f"/proposals/{proposal}/approve", body, status=status)


@asynccontextmanager
async def person(
    server: HttpServer, scope: Scope, name: str | None = None
) -> AsyncIterator[Person]:
    """A caller with a new token of this scope; `name` is the user's."""
    text, token = TokenFile(server.settings).create(scope, name, None)
    async with client_of(server.url, text) as client:
        yield Person(client, token, text)


def client_of(url: str, token: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=authorization(token), timeout=120, verify=NO_TLS)


ASKER = Principal("stdio", WITHOUT_TOKEN)
APPROVER = Principal("shell:alice", SCOPES)


def version_of(plan: Plan | GroupPlanView) -> str:
    return plan.version_before if isinstance(plan, Plan) else str(plan.version)
