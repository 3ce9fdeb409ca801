"""A sandbox of each test's own, without the server in front of it."""

from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.sandbox import a_client


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with closing(Sandbox(seed=False)) as sandbox:
        sandbox.add_connection("bold_heron", state='{"cursor":"2024-01-01T00:00:00Z"}')
        yield sandbox


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[SandboxServer]:
    with SandboxServer(sandbox) as server:
        yield server


@pytest.fixture
def client(server: SandboxServer) -> Iterator[httpx.Client]:
    with a_client(server) as client:
        yield client
