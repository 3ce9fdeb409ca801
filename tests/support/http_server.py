"""The HTTP server, in the process of a test or in its own, and its clients."""

import asyncio
import json
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import uvicorn
from fastapi import FastAPI
from mcp import Client
from mcp.client.extension import ClientExtension
from mcp.client.session import ElicitationFnT
from mcp.client.streamable_http import streamable_http_client
from sqlalchemy import Engine, event

from fivetran_state.access import Scope
from fivetran_state.config import Settings
from fivetran_state.tokens import TokenFile
from tests.support import commands, warm
from tests.support.calls import ROOT, until

WRONG_TOKEN = "fst_00000000_this-is-no-token"

NO_TLS = False
"""Do not load certificates: nothing here needs them, and it takes each client longer than a call.
"""


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    """Every SQL statement of this process, the server's too, within the `with` block."""
    statements: list[str] = []

    def count(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def authorization(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def mcp_client(
    url: str,
    era: str = "2026-07-28",
    *,
    token: str | None = None,
    ask: ElicitationFnT | None = None,
    extensions: Sequence[ClientExtension] = (),
    headers: dict[str, str] | None = None,
) -> AsyncIterator[Client]:
    """An MCP client of the server at that address, which sends these headers too."""
    async with httpx2.AsyncClient(
        headers=authorization(token) | (headers or {}), timeout=60, verify=NO_TLS
    ) as http_client:
        transport = streamable_http_client(f"{url}/mcp", http_client=http_client)
        async with Client(
            transport, mode=era, elicitation_callback=ask, extensions=extensions
        ) as client:
            yield client


class HttpServer:
    """A server in this process. `client` calls it without a token, `mcp(token=...)` by MCP."""

    def __init__(self, settings: Settings, server: uvicorn.Server, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self.settings = settings
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=120, verify=NO_TLS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["HttpServer"]:
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        try:
            async with self.client:
                yield self
        finally:
            self._server.should_exit = True
            await serving

    @property
    def app(self) -> FastAPI:
        assert isinstance(self._server.config.app, FastAPI)
        return self._server.config.app

    @property
    def open_requests(self) -> int:
        """Requests whose answer has not ended."""
        return len(self._server.server_state.tasks)

    async def has_open(self, count: int) -> None:
        """Waits until this number of requests is open."""

        async def has() -> bool:
            return self.open_requests == count

        await until(has)

    def new_token(self, scope: Scope = "write", *, days: float | None = None) -> str:
        """Adds a token. After the first one, the server refuses callers without a token."""
        text, _ = TokenFile(self.settings).create(scope, None, days)
        return text

    async def status(self, path: str = "/", token: str | None = None, **named: Any) -> int:
        """The status of the answer to a GET."""
        headers = authorization(token) | named.pop("headers", {})
        return (await self.client.get(path, headers=headers, **named)).status_code

    @asynccontextmanager
    async def half_sent(
        self, method: str, path: str, *, half: str = "{", **headers: str
    ) -> AsyncIterator[Callable[[], Awaitable[str]]]:
        """A request with an incomplete body; yields a function for the head of the next answer."""
        headers = {"Host": "localhost", "Content-Length": "1000"} | headers
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def head() -> str:
            return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode()

        with closing(writer):
            writer.write("\r\n".join([*lines, "", half]).encode())
            yield head

    @asynccontextmanager
    async def mcp(self, *arguments: Any, **named: Any) -> AsyncIterator[Client]:
        """An MCP client of this server; see `mcp_client`."""
        async with mcp_client(self.url, *arguments, **named) as client:
            yield client


@dataclass(frozen=True)
class HttpProcess:
    """`python server.py --http`, and a client of it."""

    client: httpx.AsyncClient
    process: asyncio.subprocess.Process

    async def kill(self) -> None:
        """Kills the server (SIGKILL); returns when the process is gone, and its locks with it."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def http_running(
    environment: dict[str, str], folder: Path, *arguments: str
) -> AsyncIterator[HttpProcess]:
    """A server as users start it, for what is measured; its stderr goes to a file of its
    own in `folder`."""
    command = [sys.executable, str(ROOT / "server.py"), "--http", "--port", "0", *arguments]
    log = _log_in(folder)
    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=folder, stderr=stderr
        )
        try:
            url = await _url_in(log)
            async with httpx.AsyncClient(base_url=url, timeout=60, verify=NO_TLS) as client:
                yield HttpProcess(client, process)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            with anyio.CancelScope(shield=True):
                await process.wait()


@dataclass(frozen=True)
class ForkedServer:
    """`fivetran-state --http` in a forked process, and a client of it."""

    client: httpx.AsyncClient
    process: ForkServerProcess

    async def kill(self) -> None:
        """Kills the server (SIGKILL); returns when the process is gone, and its locks with it."""
        self.process.kill()
        await self.ended()

    async def ended(self) -> None:
        """Returns when the process is gone."""
        await anyio.wait_readable(self.process.sentinel)
        warm.join(self.process)


@asynccontextmanager
async def http_process(
    environment: dict[str, str], folder: Path, *arguments: str
) -> AsyncIterator[str]:
    """The address of `fivetran-state --http`; its stderr goes to a file in `folder`."""
    async with http_forked(environment, folder, *arguments) as server:
        yield str(server.client.base_url).rstrip("/")


@asynccontextmanager
async def http_forked(
    environment: dict[str, str], folder: Path, *arguments: str, max_files: int | None = None
) -> AsyncIterator[ForkedServer]:
    """A server process that may be killed; its stderr goes to a file of its own in `folder`.

    `max_files` limits its open files.
    """
    log = _log_in(folder)
    command = ["--http", "--port", "0", *arguments]
    start = partial(warm.start_server, command, environment, folder, log, max_files=max_files)
    process = await anyio.to_thread.run_sync(start)
    try:
        url = await _url_in(log)
        async with httpx.AsyncClient(base_url=url, timeout=60, verify=NO_TLS) as client:
            yield ForkedServer(client, process)
    finally:
        process.terminate()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(warm.join, process)


def _log_in(folder: Path) -> Path:
    log = folder / "stderr.txt"
    while log.exists():
        log = log.with_name(f"again-{log.name}")
    return log


async def _url_in(log: Path) -> str:
    async def told() -> re.Match[str] | None:
        return re.search(r"on (http://[\d.]+:\d+)", await anyio.Path(log).read_text())

    return (await until(told))[1]


def lines_of(log: Path) -> list[dict[str, Any]]:
    """Every line of the log; each has to be JSON."""
    return [json.loads(line) for line in log.read_text().splitlines()]


async def run_cli(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Runs `fivetran-state ...` to its end: exit code, stdout, stderr."""
    ended = await anyio.to_thread.run_sync(commands.run, environment, Path.cwd(), *arguments)
    return ended.returncode, ended.stdout, ended.stderr
