"""A small load balancer, in front of several servers that may die at any time."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

SESSION = "Mcp-Session-Id"


class Balancer:
    """Sends each request to the next server of `servers`, skipping those that cannot be reached.

    `servers` are the addresses by name, and may change at any time. A request of an MCP session
    goes only to the server that began the session. `served` are the names of the servers that
    answered, in order.
    """

    def __init__(self, servers: dict[str, str]) -> None:
        self.servers = servers
        self.served: list[str] = []
        self._sessions: dict[str, str] = {}
        self._turn = itertools.count()
        # Use no connection twice: it may lead to a server that is gone.
        limits = httpx.Limits(max_keepalive_connections=0, max_connections=None)
        self._client = httpx.AsyncClient(timeout=None, limits=limits)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Runs it; the address."""
        methods = ["GET", "POST", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self._forward, methods=methods)])
        # uvicorn would log every connection that breaks off.
        config = uvicorn.Config(
            app, log_config=None, log_level="critical", timeout_graceful_shutdown=1
        )
        server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            async with self._client:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving

    async def _forward(self, request: Request) -> Response:
        body = await request.body()
        for name in self._choice(request.headers.get(SESSION)):
            outgoing = self._client.build_request(
                request.method,
                f"{self.servers[name]}{request.url.path}",
                params=request.url.query,
                headers=[pair for pair in request.headers.raw if pair[0] != b"host"],
                content=body,
            )
            try:
                answer = await self._client.send(outgoing, stream=True)
            except httpx.ConnectError:
                continue
            except httpx.TransportError:
                return Response(status_code=502)  # The server may have acted on the request.
            self.served.append(name)
            if (session := answer.headers.get(SESSION)) is not None:
                self._sessions[session] = name
            relayed = StreamingResponse(_body(answer), answer.status_code)
            relayed.raw_headers = answer.headers.raw
            return relayed
        return Response(status_code=503)

    def _choice(self, session: str | None) -> list[str]:
        if session in self._sessions:
            return [self._sessions[session]]
        names = list(self.servers)
        first = next(self._turn) % len(names)
        return names[first:] + names[:first]


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    finally:
        await answer.aclose()
