"""Looks of the watcher, and what the history knows after them."""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fivetran_state.config import Settings
from fivetran_state.sandbox import LoggedRequest, Sandbox
from fivetran_state.service import Service
from tests.support.calls import ROOT
from tests.support.commands import background

MINUTE = 60.0


@asynccontextmanager
async def service_in(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, **variables: str
) -> AsyncIterator[Service]:
    """A service in this process. One at a time: DBOS allows one instance in a process."""
    for name, value in (environment | variables).items():
        monkeypatch.setenv(name, value)
    service = Service(Settings())
    service.start()
    try:
        yield service
    finally:
        await service.close()


def watching(
    environment: dict[str, str], folder: Path
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """`fivetran-state watch` with a look a second, until it is killed."""
    every_second = environment | {"FIVETRAN_STATE_WATCH_INTERVAL": "1"}
    return background(every_second, folder, "fivetran_state", "watch")


def killed_look(
    environment: dict[str, str], folder: Path, at_write: int
) -> "subprocess.CompletedProcess[str]":
    """A look by a process that kills itself before its n-th write is committed."""
    return subprocess.run(
        [sys.executable, "-m", "tests.support.killed_look", str(at_write)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
    )


def sync(sandbox: Sandbox, connection_id: str, state: Any) -> None:
    """A sync of a minute ends now, and leaves this state."""
    with sandbox.world.transaction():
        sandbox.advance(MINUTE)
        sandbox.finish_sync(connection_id)
        sandbox.set_state(connection_id, json.dumps(state))


def only(sandbox: Sandbox, count: int) -> list[str]:
    """Replaces the sandbox's connections by this number of them, each with a state of its own."""
    for connection in sandbox.world.connections():
        sandbox.delete_connection(connection.id)
    ids = [f"connection_{number:04}" for number in range(count)]
    for number, connection_id in enumerate(ids):
        sandbox.add_connection(
            connection_id,
            state=json.dumps({"cursor": f"{number} before"}),
            succeeded_at=sandbox.world.now(),
        )
    return ids


def is_list(request: LoggedRequest) -> bool:
    return request.path == "/v1/connections"


def is_state_of(connection_id: str, request: LoggedRequest) -> bool:
    return request.path == f"/v1/connections/{connection_id}/state"


async def versions_of(service: Service, connection_id: str) -> list[Any]:
    """Every state of the connection that is remembered, oldest first."""
    page = await service.history.time_line(connection_id, limit=100)
    assert page.next_cursor is None
    versions = [each.version for each in page.entries if each.version is not None]
    found = []
    for version in reversed(versions):
        past = await service.history.at(connection_id, version)
        found.append(json.loads(json.dumps(past.document)))
    return found


async def kinds_of(service: Service, connection_id: str) -> list[str]:
    """What made each version that is remembered, oldest first."""
    page = await service.history.time_line(connection_id, limit=100)
    return [each.kind for each in reversed(page.entries)]


def now_text() -> str:
    """The present time, as people name it."""
    now = time.time_ns() // 1_000_000
    seconds, milliseconds = divmod(now, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"
