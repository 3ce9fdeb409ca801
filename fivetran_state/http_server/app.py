"""The FastAPI application: what is mounted where, and its life."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from fivetran_state import __version__, mcp_server
from fivetran_state.config import Settings
from fivetran_state.http_server import health
from fivetran_state.mcp_server.backend import Backend

logger = logging.getLogger(__name__)

MCP_PATH = "/mcp"
LONGEST_GOODBYE = 5
"""Seconds that open connections get to end when the server stops."""


def build(settings: Settings) -> FastAPI:
    """The application for these settings; it serves one event loop."""
    backend = Backend(settings, patience=settings.shutdown_wait)
    mcp = mcp_server.build(settings, backend)
    mcp_app = mcp.streamable_http_app(streamable_http_path=MCP_PATH)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with mcp.session_manager.run():  # Which runs the backend too.
            yield

    app = FastAPI(
        title="Fivetran state",
        version=__version__,
        description="Reads and safely changes the state of Fivetran connections.",
        lifespan=lifespan,
    )
    app.include_router(health.router(backend))
    app.router.routes.extend(mcp_app.routes)
    return app


def run(settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes a free one, which the log tells."""
    server, listener = bind(settings, host=host, port=port)
    server.run(sockets=[listener])


def bind(settings: Settings, *, host: str, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """The server, and the socket that it is to be run with."""
    config = uvicorn.Config(
        build(settings),
        host=host,
        port=port,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LONGEST_GOODBYE,
    )
    listener = config.bind_socket()
    logger.info("Serving MCP and REST on http://%s:%d", host, listener.getsockname()[1])
    return uvicorn.Server(config), listener
