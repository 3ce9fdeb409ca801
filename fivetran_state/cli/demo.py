"""The main job on the embedded sandbox, in a terminal: an update that survives `kill -9`."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters
from rich.console import Console
from rich.table import Table

from fivetran_state.sandbox import Sandbox

CONNECTION = "speak_inexpensive"
REWIND = {"orders": {"cursor": "2026-01-01T00:00:00Z"}}

LONG = 600.0
"""Seconds, more than any step takes."""

SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def run() -> None:
    """Raises `AssertionError` if anything is not as it should be."""
    with tempfile.TemporaryDirectory(prefix="fivetran-state-demo-") as home:
        anyio.run(_Demo(Path(home)).show)


class _Demo:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._console = Console(highlight=False)
        # Shows what the simulated Fivetran has, without asking the server.
        (home / "sandbox").mkdir(mode=0o700)
        self._fivetran = Sandbox(home / "sandbox" / "world.db")
        # On a slow machine, the sync would end before the update looks at it.
        self._fivetran.world.change(
            CONNECTION, lambda syncing, now: replace(syncing, sync_ends_at=now + LONG)
        )

    async def show(self) -> None:
        async with self._server() as client:
            version = await self._look(client)
            await self._plan(client)
            workflow_id = await self._update_until_killed(client, version)
        self._title("A new server starts, without any instructions")
        async with self._server() as client:
            await self._recovered(client, workflow_id)
        self._fivetran.close()

    async def _look(self, client: Client) -> str:
        self._title(f"The assistant reads the state of {CONNECTION}, in the middle of a sync")
        seen = await _call(client, "get_state", connection_id=CONNECTION)
        self._console.print_json(json.dumps(seen["state"]))
        self._say(f"version {seen['version']}, sync_state {seen['sync_state']}")
        return str(seen["version"])

    async def _plan(self, client: Client) -> None:
        self._title("It asks for the plan to rewind the orders")
        plan = await _call(client, "update_state", connection_id=CONNECTION, merge_patch=REWIND)
        changes = Table("", "path", "before", "after", box=None)
        for change in plan["changes"]:
            changes.add_row(change["op"], change["path"], change.get("before"), change.get("after"))
        self._console.print(changes)
        self._say(plan["message"])

    async def _update_until_killed(self, client: Client, version: str) -> str:
        self._title("It updates exactly that version, and the server is killed half-way")
        waiting = anyio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            self._say(f"· {message}")
            if message is not None and message.startswith("Waiting for the running sync"):
                waiting.set()

        async def update() -> None:
            arguments = {
                "connection_id": CONNECTION,
                "merge_patch": REWIND,
                "expected_version": version,
                "reason": "bad orders since January",
            }
            with suppress(MCPError):  # The server dies, so there is no answer.
                await client.call_tool("update_state", arguments, progress_callback=on_progress)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(update)
            with anyio.fail_after(LONG):
                await waiting.wait()
            server = self._server_pid()
            os.kill(server, SIGKILL)
        left = self._fivetran.connection(CONNECTION)
        assert left.paused
        self._say(
            f"[bold red]kill -9 {server}[/]  The connection is paused, and no server is running."
        )
        return f"{CONNECTION}:1"

    async def _recovered(self, client: Client, workflow_id: str) -> None:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            self._say(f"· {message}")

        arguments = {"workflow_id": workflow_id, "wait_seconds": 40}
        result = await client.call_tool("workflow_status", arguments, progress_callback=on_progress)
        update = result.structured_content
        assert update is not None, result.content
        assert update["status"] == "updated", update
        steps = Table("step", "started", "seconds", box=None)
        for step in update["steps"]:
            steps.add_row(step["name"], step["started_at"], str(step["seconds"]))
        self._console.print(steps)
        self._say(update["message"])

        self._title("Fivetran's state now")
        now = self._fivetran.connection(CONNECTION)
        assert now.state is not None
        self._console.print_json(now.state)
        self._say(f"paused {now.paused}, sync_state {now.sync_state}")
        assert json.loads(now.state)["orders"]["cursor"] == REWIND["orders"]["cursor"]
        assert not now.paused
        self._console.print("\n[bold green]The update was recovered and verified.[/]")

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[Client]:
        server = StdioServerParameters(
            command=sys.executable,
            args=["-m", "fivetran_state", "--sandbox"],
            env={
                "FIVETRAN_STATE_DATA_DIR": str(self._home),
                "FIVETRAN_STATE_LOG_LEVEL": "ERROR",
            },
        )
        async with Client(server) as client:
            yield client

    def _server_pid(self) -> int:
        (lock,) = (self._home / "sandbox" / "executors").glob("*.lock")
        return int(lock.name.partition("-")[0])

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold]{text}[/]")

    def _say(self, text: str) -> None:
        self._console.print(f"  {text}")


async def _call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content
