"""Calls to a server, and questions about the sandbox's log."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import anyio
from mcp import Client
from mcp_types import TextContent

from fivetran_state.sandbox import Connection, LoggedRequest, Sandbox

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
API_KEY = "key-for-tests"
API_SECRET = "secret-that-must-never-be-seen"

IDLE = "bullion_shutdown"
PAUSED = "gentle_harbour"
SYNCING = "speak_inexpensive"
EMPTY = "quiet_meadow"
LARGE = "vast_library"
EXACT = "exact_ledger"
RESCHEDULED = "late_ferry"
STATELESS = "postgres_mirror"

NO_VERSION = "0123456789abcdef" * 2
"""A value that occurs in no state."""

_FOR_EVER = 1e9


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """A tool's structured result; fails the test if the tool answers an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    structured: dict[str, Any] = result.structured_content
    return structured


async def refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """A tool's error; fails the test if the tool answers a result."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.content
    assert isinstance(result.content[0], TextContent)
    error: dict[str, Any] = json.loads(result.content[0].text)
    assert error["code"]
    assert error["message"]
    assert error["hint"]
    return error


async def version_of(client: Client, connection_id: str) -> str:
    version: str = (await call(client, "get_state", connection_id=connection_id))["version"]
    return version


def updates_in(page: dict[str, Any]) -> list[dict[str, Any]]:
    """The updates on a page of `state_history`, newest first."""
    return [entry for entry in page["entries"] if "workflow_id" in entry]


async def update(client: Client, connection_id: str, **change: Any) -> dict[str, Any]:
    """An update of the current state."""
    version = await version_of(client, connection_id)
    return await call(
        client,
        "update_state",
        connection_id=connection_id,
        expected_version=version,
        wait_seconds=50,
        **change,
    )


def api_calls(sandbox: Sandbox, connection_id: str, since: int = 0) -> list[str]:
    """The requests to Fivetran about one connection: 'GET', 'PATCH', 'GET state', 'PATCH state'."""
    return [
        f"{request.method}{' state' if request.path.endswith('/state') else ''}"
        for request in sandbox.log[since:]
        if request.connection_id == connection_id
    ]


def in_order(calls: list[str]) -> list[str]:
    """An update's calls; the first two are made at the same time."""
    return [*sorted(calls[:2]), *calls[2:]]


def is_pause(request: LoggedRequest) -> bool:
    return _sets_paused(request) is True


def is_resume(request: LoggedRequest) -> bool:
    return _sets_paused(request) is False


def is_read(request: LoggedRequest) -> bool:
    return request.method == "GET" and request.path.endswith("/state")


def _sets_paused(request: LoggedRequest) -> bool | None:
    """The paused flag in a PATCH of a connection; every PATCH must say that no setup tests run."""
    if request.method != "PATCH" or request.path.endswith("/state"):
        return None
    body = request.body if isinstance(request.body, dict) else {}
    assert body.get("run_setup_tests") is False, body
    paused: bool | None = body.get("paused")
    return paused


def state_of(sandbox: Sandbox, connection_id: str) -> Any:
    text = sandbox.connection(connection_id).state
    return None if text is None else json.loads(text)


def sync_until_paused(sandbox: Sandbox) -> None:
    """Keep the sync of SYNCING running until a pause. Otherwise it would end by the clock and move
    the cursor before a slow machine has started the update."""
    _change(sandbox, SYNCING, lambda syncing: replace(syncing, sync_seconds=_FOR_EVER))


def sync_runs_on(sandbox: Sandbox, connection_id: str = SYNCING) -> None:
    """Keep the sync running, even after a pause, until `sandbox.finish_sync`."""
    _change(sandbox, connection_id, lambda syncing: replace(syncing, drain_seconds=_FOR_EVER))


def _change(
    sandbox: Sandbox, connection_id: str, change: Callable[[Connection], Connection]
) -> None:
    sandbox.world.change(
        connection_id,
        lambda connection, now: replace(change(connection), sync_ends_at=now + _FOR_EVER),
    )


async def status_once(
    client: Client, workflow_id: str, wanted: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The first workflow_status for which `wanted` is true; fails the test after 30 s."""
    with anyio.fail_after(30):
        while True:
            status = await call(
                client, "workflow_status", workflow_id=workflow_id, wait_seconds=0.1
            )
            if wanted(status):
                return status


async def end_of(client: Client, workflow_id: str) -> dict[str, Any]:
    """The workflow_status of an update that has ended; fails the test after 30 s."""
    return await status_once(client, workflow_id, lambda found: bool(found["status"] != "running"))


async def arrival(sandbox: Sandbox, wanted: Callable[[LoggedRequest], bool]) -> LoggedRequest:
    """The first request of the sandbox's log, past or future, for which `wanted` is true."""
    return await anyio.to_thread.run_sync(sandbox.wait_for, wanted)


async def until(look: Callable[[], Awaitable[T | None]], seconds: float = 30) -> T:
    """The first result of `look` that is not empty; yields to other tasks between two looks."""
    with anyio.fail_after(seconds):
        while True:
            if found := await look():
                return found
            await anyio.sleep(0.02)


async def written_down(client: Client, connection_id: str, version: str | None = None) -> None:
    """Returns when the history has a version of the state, or this one.

    A server that is suspended while it writes the history locks a SQLite database.
    """

    async def is_there() -> bool:
        page = await call(client, "state_history", connection_id=connection_id)
        found = {entry["version"] for entry in page["entries"] if "seen_until" in entry}
        return bool(found) if version is None else version in found

    await until(is_there)


class Watch:
    """One connection from now on, and the promises that every update must keep."""

    def __init__(self, sandbox: Sandbox, connection_id: str) -> None:
        self._sandbox = sandbox
        self._id = connection_id
        self._since = len(sandbox.log)
        self.old = state_of(sandbox, connection_id)
        self.was_paused = sandbox.connection(connection_id).paused

    @property
    def calls(self) -> list[str]:
        return api_calls(self._sandbox, self._id, self._since)

    def requests(self, method: str, *, state: bool) -> list[LoggedRequest]:
        return [
            request
            for request in self._sandbox.log[self._since :]
            if request.connection_id == self._id
            and request.method == method
            and request.path.endswith("/state") == state
        ]

    def ended_with(self, state: Any) -> None:
        """The state is exactly this. The connection is paused only if it was paused before. No
        write met a sync or a connection that was not paused. The last write was read back before
        any resume."""
        assert state_of(self._sandbox, self._id) == state
        assert self._sandbox.connection(self._id).paused == self.was_paused
        writes = [each for each in self.requests("PATCH", state=True) if each.applied]
        assert [(each.paused, each.syncing) for each in writes] == [(True, False)] * len(writes)
        if writes:
            reads = [
                each.index
                for each in self.requests("GET", state=True)
                if each.index > writes[-1].index
                and each.status == 200
                and each.fault in (None, "hang")  # The request was answered in the end.
            ]
            assert reads, "never verified"
            resumes = [
                each.index
                for each in self.requests("PATCH", state=False)
                if each.index > writes[-1].index and each.body["paused"] is False
            ]
            assert all(reads[0] < resume for resume in resumes), "resumed before it was verified"
