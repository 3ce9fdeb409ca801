"""Agent libraries without a model, each in an environment of its own, as for a new user.

A library may need another version of the MCP SDK than ours, so it runs in its own process. The
process reads a model's calls from stdin, one a line: `[tool, arguments]`. It prints the tools as it
would show them to a model, and then for each call `[is_error, text]`.
"""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.support.calls import ROOT

HERE = Path(__file__).parent
SILENT = {
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "OTEL_SDK_DISABLED": "true",
}
"""Disable the telemetry of the libraries."""


class Agent:
    """A running agent; `tools` are the functions that its library would offer to a model."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.tools: list[dict[str, Any]] = self._heard()

    def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """The answer that the model would read, parsed; fails the test if the library calls it an
        error."""
        is_error, text = self._told(tool, arguments)
        assert not is_error, text
        return json.loads(text)

    def refused(self, tool: str, arguments: dict[str, Any]) -> Any:
        """The error that the model would read; fails the test if the library calls it a result."""
        is_error, text = self._told(tool, arguments)
        assert is_error is not False, text
        return json.loads(text)

    def _told(self, tool: str, arguments: dict[str, Any]) -> tuple[bool | None, str]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([tool, arguments]) + "\n")
        self._process.stdin.flush()
        is_error, text = self._heard()
        return is_error, text

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the agent has ended; its stderr says why"
        return json.loads(line)


@contextmanager
def running(library: str, server: dict[str, Any], folder: Path) -> Iterator[Agent]:
    """An agent of this library. It starts the server with these stdio parameters."""
    with subprocess.Popen(
        [str(python_with(library)), "-m", f"tests.clients.{library}_agent", json.dumps(server)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"HOME": str(folder), "PYTHONPATH": str(ROOT), **SILENT},
    ) as process:
        # Kill an agent that hangs: its stdout then ends, which fails the test.
        deadline = threading.Timer(240, process.kill)
        deadline.start()
        try:
            yield Agent(process)
        finally:
            deadline.cancel()


def python_with(library: str) -> Path:
    """The interpreter of the library's environment, which is built again when its requirements
    change."""
    requirements = HERE / f"requirements-{library}.txt"
    version = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
    environment = Path(sys.prefix) / "clients" / f"{library}-{version}"
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    environment.parent.mkdir(exist_ok=True)
    with FileLock(environment.with_suffix(".lock")):
        if not (environment / "installed").exists():
            _run("venv", "--clear", "--without-pip", str(environment))
            _run(
                *("pip", "--python", str(python), "install", "-qq", "--no-deps", "--no-compile"),
                *("--disable-pip-version-check", "--requirement", str(requirements)),
            )
            (environment / "installed").touch()
    return python


def _run(*module: str) -> None:
    subprocess.run([sys.executable, "-m", *module], check=True)
