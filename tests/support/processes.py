"""Server processes that can be killed: over stdio like any client's server, but with a known pid."""

import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from mcp import Client
from mcp.client.extension import ClientExtension
from mcp.client.stdio import StdioServerParameters, stdio_client

from fivetran_state.sandbox import Sandbox
from tests.support.calls import ROOT, call, until

_WRITE_PID_AND_BECOME_THE_SERVER = 'echo $$ > "$0" && exec "$@"'


@dataclass(frozen=True)
class Server:
    """A running server and a client of it."""

    client: Client
    pid: int

    async def kill(self) -> None:
        """Kills the server (SIGKILL); returns when the process is gone, and its locks with it."""
        os.kill(self.pid, signal.SIGKILL)
        await anyio.to_thread.run_sync(_wait_until_gone, self.pid)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """The process lives, but does nothing, as in a sleeping laptop or under a debugger."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@asynccontextmanager
async def running(
    environment: dict[str, str],
    folder: Path,
    *arguments: str,
    extensions: Sequence[ClientExtension] = (),
    **variables: str,
) -> AsyncIterator[Server]:
    """`python server.py` with `folder` as its working directory; its stderr is added to a file
    there."""
    pid_file = folder / f"{uuid.uuid4().hex}.pid"
    command = [sys.executable, str(ROOT / "server.py"), *arguments]
    parameters = StdioServerParameters(
        command="/bin/sh",
        args=["-c", _WRITE_PID_AND_BECOME_THE_SERVER, str(pid_file), *command],
        env=environment | variables,
        cwd=folder,
    )
    with (folder / "stderr.txt").open("a") as stderr:
        transport = stdio_client(parameters, stderr)
        async with Client(transport, mode="2026-07-28", extensions=extensions) as client:
            await client.list_tools()  # The pid has been written before the first answer.
            yield Server(client, int(pid_file.read_text()))


@contextmanager
def simulated_account(environment: dict[str, str]) -> Iterator[Sandbox]:
    """The account of servers with `--sandbox`, even if none runs."""
    folder = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "sandbox"
    folder.mkdir(parents=True, exist_ok=True)
    with closing(Sandbox(folder / "world.db")) as sandbox:
        yield sandbox


async def ended(client: Client, workflow_id: str) -> dict[str, Any]:
    """The update's status when it has ended, or after 50 seconds."""
    return await call(client, "workflow_status", workflow_id=workflow_id, wait_seconds=50)


async def noticed_once_more(folder: Path) -> None:
    """Returns when the server has once more noticed that its database is away."""
    log = folder / "stderr.txt"

    def times() -> int:
        return log.read_text().count("Keeping watch: ")

    async def are_more() -> bool:
        return times() > before

    before = times()
    await until(are_more)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.005)
    raise TimeoutError(f"process {pid} outlived its SIGKILL")
