"""The HTTP server in the process of a test, and how it is asked."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import httpx2
import uvicorn
from mcp import Client
from mcp.client.session import ElicitationFnT
from mcp.client.streamable_http import streamable_http_client


class HttpServer:
    """`client` asks it without a token; `asking(token)` and `mcp(token=...)` with one."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.client = self.asking()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["HttpServer"]:
        self._listener.listen()  # So that connections wait until the server has started.
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        try:
            async with self.client:
                yield self
        finally:
            self._server.should_exit = True
            await serving

    def asking(self, token: str | None = None) -> httpx.AsyncClient:
        """A client of its own, to be closed by the caller."""
        return httpx.AsyncClient(base_url=self.url, headers=_authorization(token), timeout=30)

    @asynccontextmanager
    async def mcp(
        self,
        era: str = "2026-07-28",
        *,
        token: str | None = None,
        ask: ElicitationFnT | None = None,
    ) -> AsyncIterator[Client]:
        """An MCP client of it."""
        async with httpx2.AsyncClient(headers=_authorization(token), timeout=60) as http_client:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=http_client)
            async with Client(transport, mode=era, elicitation_callback=ask) as client:
                yield client


def _authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
