"""A stdio server without a client library: its messages and its pipes."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.support.calls import ROOT

Message = dict[str, Any]
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE: Message = {
    "jsonrpc": "2.0",
    "id": "handshake",
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}
INITIALIZED: Message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST_TOOLS: Message = {"jsonrpc": "2.0", "id": "tools", "method": "tools/list", "params": {}}
DISCOVER: Message = {
    "jsonrpc": "2.0",
    "id": "handshake",
    "method": "server/discover",
    "params": {"_meta": META},
}
LEGACY = [INITIALIZE, INITIALIZED, LIST_TOOLS]
MODERN = [DISCOVER, LIST_TOOLS | {"params": {"_meta": META}}]
ODD_ANSWERS: list[Any] = [
    {},
    {"action": "accept", "content": []},
    {"action": "accept", "content": "true"},
    {"action": "accept", "content": {"confirmed": True}},
    {"action": "accept", "content": {"confirmed": {"yes": True}}},
    {"action": "yes", "content": {}},
    {"action": ["accept"], "content": {}},
    {"action": None},
    {"content": {}},
    {"roots": []},
    ["accept"],
    "true",
    True,
    None,
]


def tool_call(name: str, **arguments: Any) -> Message:
    return {
        "jsonrpc": "2.0",
        "id": name,
        "method": "tools/call",
        "params": {"name": name, "arguments": arguments},
    }


def message(line: bytes) -> Message:
    """A line of stdout; it has to be a whole JSON-RPC message."""
    assert line.endswith(b"\n"), line
    parsed: Message = json.loads(line)
    assert parsed["jsonrpc"] == "2.0", parsed
    kind = parsed.keys() & {"method", "result", "error"}
    assert len(kind) == 1, parsed
    assert "id" in parsed or kind == {"method"}, parsed
    return parsed


class RawServer:
    """`python server.py` and its three pipes."""

    def __init__(self, process: "subprocess.Popen[bytes]", stderr: Path) -> None:
        self.process = process
        self.heard: list[Message] = []
        self.lines: list[bytes] = []
        self._stderr = stderr

    def say(self, *lines: Message | bytes) -> None:
        assert self.process.stdin is not None
        for line in lines:
            self.process.stdin.write(
                (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
            )
        self.process.stdin.flush()

    def answer(self, request_id: str) -> Message:
        return self.hear(lambda each: each.get("id") == request_id)

    def hear(self, wanted: Callable[[Message], bool]) -> Message:
        """The first message for which `wanted` is true; every earlier line has to be a message too."""
        assert self.process.stdout is not None
        while True:
            self.lines.append(self.process.stdout.readline())
            self.heard.append(message(self.lines[-1]))
            if wanted(self.heard[-1]):
                return self.heard[-1]

    def refusal(self, tool: str) -> str:
        """The code of this tool's error."""
        result = self.answer(tool)["result"]
        assert result["isError"] is True
        code: str = json.loads(result["content"][0]["text"])["code"]
        return code

    def exit_code(self) -> int:
        """Closes stdin if it is open, reads the rest of stdout, and waits for the end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.heard += [message(line) for line in self.process.stdout]
        return self.process.wait(60)

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()


Start = Callable[..., AbstractContextManager[RawServer]]


@contextmanager
def ends_in_time(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Kills a server that hangs: its stdout then ends, which fails the test."""
    deadline = threading.Timer(60, process.kill)
    deadline.start()
    try:
        yield
    finally:
        deadline.cancel()
        process.kill()


@contextmanager
def raw_server(environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[RawServer]:
    """`python server.py`; its stderr goes to a file in `folder`."""
    stderr = folder / "stderr.txt"
    with (
        stderr.open("wb") as stderr_file,
        subprocess.Popen(
            [sys.executable, str(ROOT / "server.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr_file,
            env=environment,
            cwd=folder,
        ) as process,
        ends_in_time(process),
    ):
        yield RawServer(process, stderr)
