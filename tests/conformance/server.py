"""The product's own HTTP server, with the fixtures that the suite calls."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvicorn
from fastapi import FastAPI
from mcp.server.mcpserver import MCPServer

from fivetran_state import http_server, logs, mcp_server
from fivetran_state.config import Settings
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.conformance import fixtures, tasks
from tests.support.calls import API_KEY, API_SECRET
from tests.support.postgres import SECRET_KEY


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    """The URL of a server on 127.0.0.1, in front of a sandbox; its data is in this folder."""
    for name in os.environ:
        if name.startswith(("FIVETRAN_", "DBOS_")):
            del os.environ[name]
    sandbox = Sandbox(api_key=API_KEY, api_secret=API_SECRET)
    with SandboxServer(sandbox) as fivetran:
        os.environ |= {
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_API_URL": fivetran.url,
            "FIVETRAN_STATE_DATA_DIR": str(folder),
            # The fixtures may ask before the engine has made a key.
            "FIVETRAN_STATE_SECRET_KEY": SECRET_KEY,
            # The suite's simulated user answers only the suite's own questions.
            "FIVETRAN_STATE_CONFIRM": "never",
        }
        logs.configure("ERROR")
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(_app(sandbox), log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            await running
    sandbox.close()


def _app(sandbox: Sandbox) -> FastAPI:
    build = mcp_server.build

    def build_with_fixtures(*arguments: Any) -> MCPServer[None]:
        mcp = build(*arguments)
        fixtures.add_to(mcp)
        tasks.add_to(mcp, sandbox)
        return mcp

    with patch.object(mcp_server, "build", build_with_fixtures):
        return http_server.build(Settings())
