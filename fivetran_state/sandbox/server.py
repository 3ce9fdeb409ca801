"""The sandbox over a real port, for tests and benchmarks."""

import asyncio
import socket
import threading

import uvicorn

from fivetran_state.sandbox import Sandbox

KEEP_ALIVE = 60
"""Seconds that an idle connection is kept, so long that the client closes it first."""


class SandboxServer:
    """Serves a sandbox on 127.0.0.1 in its own thread for the duration of the `with` block.

    At the end it breaks every open connection, including hung requests, like a server that dies.
    `port` 0 takes a free port.
    """

    def __init__(self, sandbox: Sandbox, port: int = 0) -> None:
        self.sandbox = sandbox
        self._port = port

    def __enter__(self) -> "SandboxServer":
        # With the protocol named, asyncio sets TCP_NODELAY; without it, answers are 40 ms late.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = _Server(
            uvicorn.Config(
                self.sandbox.app,
                interface="asgi3",
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="sandbox", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(10):
            raise RuntimeError("the sandbox server did not start")
        return self

    @property
    def open_connections(self) -> int:
        """The connections of all clients, idle ones included."""
        return len(self._server.server_state.connections)

    def __exit__(self, *exc: object) -> None:
        self._server.stop()
        self._thread.join(10)


class _Server(uvicorn.Server):
    """uvicorn's server without its ticks and its waiting, so that stopping takes no time."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)

    async def main_loop(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self.ready.set()
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await _turns(20)  # Connections that are being accepted become connections first.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await _turns(20)  # Aborted connections are closed now.
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=1)


async def _turns(number: int) -> None:
    """Let the event loop turn this number of times; this does not depend on the clock."""
    for _ in range(number):
        await asyncio.sleep(0)
