"""Server processes that can be killed: over stdio like any client's server, but with a known pid.

They are forked, so a shell stands between the client and the server, and passes on what they say.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from mcp import Client
from mcp.client.extension import ClientExtension
from mcp.client.stdio import (
    PROCESS_TERMINATION_TIMEOUT,
    StdioServerParameters,
    get_default_environment,
    stdio_client,
)

from fivetran_state.sandbox import Sandbox
from tests.support import warm
from tests.support.calls import call, until

# The client sees the end of the server: only the first `cat` holds the shell's stdout.
_PASS_ON = 'cat "$1" & exec >&-; cat >"$0"; wait'


@dataclass(frozen=True)
class Server:
    """A running server and a client of it."""

    client: Client
    process: ForkServerProcess

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    async def kill(self) -> None:
        """Kills the server (SIGKILL); returns when the process is gone, and its locks with it."""
        self.process.kill()
        await anyio.wait_readable(self.process.sentinel)
        warm.join(self.process)

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
    """`fivetran-state` with `folder` as its working directory; its stderr is added to a file
    there."""
    complete = get_default_environment() | environment | variables
    with tempfile.TemporaryDirectory() as name:
        requests, answers = Path(name) / "requests", Path(name) / "answers"
        for pipe in (requests, answers):
            os.mkfifo(pipe)
        starting = asyncio.create_task(
            anyio.to_thread.run_sync(_start, arguments, complete, folder, requests, answers)
        )
        parameters = StdioServerParameters(
            command="/bin/sh", args=["-c", _PASS_ON, str(requests), str(answers)]
        )
        try:
            async with Client(
                stdio_client(parameters), mode="2026-07-28", extensions=extensions
            ) as client:
                process = await starting
                await client.list_tools()
                yield Server(client, process)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_end, await starting)


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


def _start(
    arguments: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    requests: Path,
    answers: Path,
) -> ForkServerProcess:
    """Starts a server between these pipes, once the shell has opened them too."""
    with (
        requests.open("rb", buffering=0) as stdin,
        answers.open("wb", buffering=0) as stdout,
        (folder / "stderr.txt").open("ab") as stderr,
    ):
        standard = (stdin.fileno(), stdout.fileno(), stderr.fileno())
        return warm.start(arguments, environment, folder, *standard)


def _end(process: ForkServerProcess) -> None:
    """Ends a server whose client has left, as `stdio_client` does."""
    warm.join(process, PROCESS_TERMINATION_TIMEOUT)
    process.terminate()
    warm.join(process, PROCESS_TERMINATION_TIMEOUT)
    process.kill()
    warm.join(process)
