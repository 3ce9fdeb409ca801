"""The shell's commands, in this process and without a terminal."""

import io
import json
from dataclasses import dataclass
from typing import Any

import pytest

from fivetran_state.cli import app


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """stdout, one JSON object a line."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def object(self) -> dict[str, Any]:
        (only,) = self.objects
        return only

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.object["error"]
        return found


class Shell:
    """Runs commands one after the other, each with an engine of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        pipe = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
        self._monkeypatch.setattr("sys.stdin", pipe)
        self._capsys.readouterr()
        code = app.run(list(arguments))
        stdout, stderr = self._capsys.readouterr()
        return Ended(code, stdout, stderr)

    def done(self, *arguments: str, stdin: str = "") -> Ended:
        """A command that has to end with 0."""
        ended = self(*arguments, stdin=stdin)
        assert ended.code == 0, ended
        return ended

    def version_of(self, connection_id: str) -> str:
        version: str = self.done("get", connection_id, "--json").object["version"]
        return version
