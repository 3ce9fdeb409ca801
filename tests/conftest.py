"""Fixtures for every test: a simulated Fivetran over real HTTP, and the server in front of it."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from mcp import Client
from mcp.client.extension import ClientExtension
from mcp.client.session import ElicitationFnT, MessageHandlerFnT
from mcp.client.stdio import StdioServerParameters

from fivetran_state import http_server
from fivetran_state.config import Settings
from fivetran_state.mcp_server import build
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from fivetran_state.startup import read_settings
from tests.support.calls import API_KEY, API_SECRET, ROOT, sync_until_paused
from tests.support.http_server import HttpServer
from tests.support.postgres import SECRET_KEY, Postgres
from tests.support.updates import SLOW

# These signals end the servers, which would inherit that they are ignored: SIGINT is, of what a script
# starts in the background, and SIGHUP under nohup.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

ERAS = ("legacy", "2026-07-28")

Connect = Callable[..., AbstractAsyncContextManager[Client]]
Serve = Callable[..., AbstractAsyncContextManager[HttpServer]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(api_key=API_KEY, api_secret=API_SECRET)
    sync_until_paused(sandbox)
    yield sandbox
    sandbox.close()


@pytest.fixture
def fivetran(sandbox: Sandbox) -> Iterator[SandboxServer]:
    with SandboxServer(sandbox) as server:
        yield server


@pytest.fixture
def fivetran_url(fivetran: SandboxServer) -> str:
    return fivetran.url


@pytest.fixture
def environment(fivetran_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a server: credentials, the sandbox's URL, a data directory of its own.

    It does not watch, unless a test says so: the calls of its looks would be among those that tests count.
    """
    return {
        "FIVETRAN_API_KEY": API_KEY,
        "FIVETRAN_API_SECRET": API_SECRET,
        "FIVETRAN_API_URL": fivetran_url,
        "FIVETRAN_STATE_DATA_DIR": str(tmp_path / "data"),
        "FIVETRAN_STATE_WATCH_INTERVAL": "0",
    }


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One server for all the tests of this process."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        # As root it creates a user for itself, which only one process may do at a time.
        with FileLock(tmp_path_factory.getbasetemp().parent / "postgres.lock"):
            server = Postgres()
        yield server
        server.close()


@pytest.fixture
def on_postgres(environment: dict[str, str], postgres: Postgres) -> dict[str, str]:
    """The environment of a server whose updates are in a database of its own."""
    return environment | {
        "DBOS_SYSTEM_DATABASE_URL": postgres.new_database(),
        "FIVETRAN_STATE_SECRET_KEY": SECRET_KEY,
    }


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.slow), "postgres"])
def on_both(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a server, once with each kind of database."""
    return _on(request)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def on_either(request: pytest.FixtureRequest) -> dict[str, str]:
    """Like `on_both`, but the quick suite skips PostgreSQL."""
    return _on(request)


def _on(request: pytest.FixtureRequest) -> dict[str, str]:
    name = "environment" if request.param == "sqlite" else "on_postgres"
    environment: dict[str, str] = request.getfixturevalue(name)
    return environment


@pytest.fixture
def connect(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Connects a client to a server in this process: `async with connect() as client`.

    One at a time: DBOS allows one instance in a process.
    """

    @asynccontextmanager
    async def connected(
        era: str = "2026-07-28",
        *,
        ask: ElicitationFnT | None = None,
        on_message: MessageHandlerFnT | None = None,
        extensions: Sequence[ClientExtension] = (),
        **variables: str,
    ) -> AsyncIterator[Client]:
        for name, value in (environment | variables).items():
            monkeypatch.setenv(name, value)
        async with Client(
            build(Settings()),
            mode=era,
            elicitation_callback=ask,
            message_handler=on_message,
            extensions=extensions,
        ) as client:
            yield client

    return connected


@pytest.fixture
def http(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves HTTP from this process, on a real socket: `async with http() as server`.

    One at a time, as with `connect`.
    """

    @asynccontextmanager
    async def served(
        host: str = "127.0.0.1",
        *,
        sandbox: bool = False,
        takes_guests: bool = False,
        **variables: str,
    ) -> AsyncIterator[HttpServer]:
        for name, value in (environment | variables).items():
            monkeypatch.setenv(name, value)
        settings = read_settings(sandbox, takes_guests)
        server, listener = http_server.bind(settings, host=host, port=0)
        async with HttpServer(settings, server, listener).running() as running:
            yield running

    return served


@pytest.fixture
def spawn(environment: dict[str, str], tmp_path: Path) -> Connect:
    """Connects a client to `python server.py` over stdio; its stderr goes to a file."""

    @asynccontextmanager
    async def spawned(
        era: str = "2026-07-28",
        *arguments: str,
        ask: ElicitationFnT | None = None,
        extensions: Sequence[ClientExtension] = (),
        **variables: str,
    ) -> AsyncIterator[Client]:
        server = StdioServerParameters(
            command=sys.executable,
            args=[str(ROOT / "server.py"), *arguments],
            env=environment | variables,
            cwd=tmp_path,
        )
        async with Client(
            server, mode=era, elicitation_callback=ask, extensions=extensions
        ) as client:
            yield client

    return spawned


@pytest.fixture(autouse=True)
def _no_credentials_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("FIVETRAN_", "DBOS_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture
def slow(sandbox: Sandbox) -> dict[str, Any]:
    """A connection with a running sync that takes an hour to stop after a pause; its state."""
    before = {"cursor": "2026-01-01T00:00:00Z"}
    sandbox.add_connection(
        SLOW,
        state=json.dumps(before),
        sync_seconds=7200,
        drain_seconds=3600,
        stopped_sync_counts=False,
    )
    sandbox.start_sync(SLOW)
    return before
