"""Hosts of a stdio server, and each way in which a host ends its server."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mcp.client.stdio import PROCESS_TERMINATION_TIMEOUT

from tests.support.calls import ROOT

RELAY = Path(__file__).with_name("relay.py")
INITIALIZE = {
    "method": "initialize",
    "id": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "host", "version": "1"},
    },
}


class Host:
    """A process with a server as its child."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int | None, life: int) -> None:
        self.process = process
        self._terminal = terminal
        self._life = life
        assert process.stdout is not None
        self.server_pid = int(process.stdout.readline())
        self.say(**INITIALIZE)
        self.say(method="notifications/initialized")

    def say(self, **message: Any) -> None:
        self._write(json.dumps({"jsonrpc": "2.0"} | message).encode())

    def call(self, tool: str, **arguments: Any) -> None:
        """Call a tool; the answer has the tool's name as its id."""
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": tool}}
        self.say(method="tools/call", id=tool, params=params)

    def result(self, tool: str) -> dict[str, Any]:
        """The structured result of that call."""
        assert self.process.stdout is not None
        while True:
            message = json.loads(self.process.stdout.readline())
            if message.get("id") == tool:
                structured: dict[str, Any] = message["result"]["structuredContent"]
                return structured

    def start_update(self, connection_id: str) -> None:
        self.call("get_state", connection_id=connection_id)
        self.call(
            "update_state",
            connection_id=connection_id,
            merge_patch={"cursor": "2020"},
            expected_version=self.result("get_state")["version"],
            wait_seconds=50,
        )

    def close(self, *numbers: int) -> None:
        """The host's ends of the server's stdin (0), stdout (1) and stderr (2)."""
        self._write(b"close " + b" ".join(b"%d" % number for number in numbers))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close_terminal(self) -> None:
        assert self._terminal is not None, "it has none"
        os.close(self._terminal)
        self._terminal = None

    def stop_reading(self) -> None:
        """Stop reading, and let the server write a lot."""
        self._write(b"ignore 1")
        for number in range(100):
            self.say(method="tools/list", id=number)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server."""
        os.kill(self.server_pid, number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to the host and the server."""
        os.killpg(self.process.pid, number)

    def is_left_within(self, seconds: float) -> bool:
        """True if the server is gone: only the server holds the other end of the life line."""
        return bool(select.select([self._life], [], [], seconds)[0])

    def end_all(self) -> None:
        with suppress(ProcessLookupError):
            self.send_to_group(signal.SIGKILL)
        os.close(self._life)
        if self._terminal is not None:
            self.close_terminal()

    def _write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")


@contextmanager
def host(environment: dict[str, str], folder: Path, *, terminal: bool = False) -> Iterator[Host]:
    """A host and its server, in their own session; at the end, what remains of them is killed.

    The server's log is added to a file in `folder`.
    """
    ours, theirs = pty.openpty() if terminal else (None, os.open(os.devnull, os.O_RDWR))
    life, servers_life = os.pipe()
    name = os.ttyname(theirs) if terminal else os.devnull
    with (
        (folder / "stderr.txt").open("ab") as stderr,
        subprocess.Popen(
            [
                *(sys.executable, str(RELAY), name, str(servers_life)),
                *(sys.executable, str(ROOT / "server.py")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            env=environment,
            cwd=folder,
            start_new_session=True,
            pass_fds=[servers_life],
        ) as process,
    ):
        os.close(servers_life)
        os.close(theirs)
        started = Host(process, ours, life)
        try:
            yield started
        finally:
            started.end_all()


def _closes_stdout(host: Host) -> None:
    host.close(1)
    host.say(method="ping", id="ping")  # The server notices when it answers.


def _stops_reading_and_closes_stdin(host: Host) -> None:
    host.stop_reading()
    host.close(0)


def _stops_reading_and_is_killed(host: Host) -> None:
    host.stop_reading()
    host.process.send_signal(signal.SIGSTOP)
    host.kill()


def _closes_stderr_and_sends_sigterm(host: Host) -> None:
    host.close(2)
    host.send(signal.SIGTERM)


def _closes_as_clients_do(host: Host) -> None:
    host.close(0)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not host.is_left_within(PROCESS_TERMINATION_TIMEOUT):
            host.send(number)


TERMINAL = "closes its terminal"
WAYS: dict[str, Callable[[Host], None]] = {
    "closes stdin and stdout": lambda host: host.close(0, 1),
    "closes stdout": _closes_stdout,
    "is killed": Host.kill,
    TERMINAL: Host.close_terminal,
    "stops reading and is killed": _stops_reading_and_is_killed,
    "stops reading and closes stdin": _stops_reading_and_closes_stdin,
    "sends SIGHUP": lambda host: host.send(signal.SIGHUP),
    "closes stdin": lambda host: host.close(0),
    "closes stdin, stdout and stderr": lambda host: host.close(0, 1, 2),
    "closes stderr and sends SIGTERM": _closes_stderr_and_sends_sigterm,
    "closes stdin, sends SIGTERM, sends SIGKILL": _closes_as_clients_do,
    "sends SIGTERM": lambda host: host.send(signal.SIGTERM),
    "sends SIGINT": lambda host: host.send(signal.SIGINT),
    "sends SIGQUIT": lambda host: host.send(signal.SIGQUIT),
    "gets SIGHUP with its group": lambda host: host.send_to_group(signal.SIGHUP),
    "gets SIGINT with its group": lambda host: host.send_to_group(signal.SIGINT),
}
"""The host's actions, in the words of a test's name."""
