"""MCP Inspector, the protocol's own client, run from its command line as a new user would."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from filelock import FileLock

from fivetran_state.sandbox import Sandbox
from tests.support import npm
from tests.support.calls import IDLE, ROOT, Watch, state_of

Inspect = Callable[..., dict[str, Any]]

PATCH = {"cursor": "2020"}


@pytest.fixture(scope="session")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PATH with the Inspector."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "npm.lock"):
        return npm.path_with(npm.INSPECTOR)


@pytest.fixture(params=["legacy", "modern"])
def era(request: pytest.FixtureRequest) -> str:
    """The era, by the Inspector's name for it."""
    name: str = request.param
    return name


@pytest.fixture
def config(environment: dict[str, str], tmp_path: Path) -> str:
    """A configuration file that names the server `fivetran-state`."""
    server = {"command": sys.executable, "args": [str(ROOT / "server.py")], "env": environment}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"fivetran-state": server}}))
    return str(path)


@pytest.fixture
def inspect(inspector: str, config: str, era: str, tmp_path: Path) -> Inspect:
    """Starts the server, makes one call, and returns the result that the Inspector prints."""

    def inspected(method: str, *arguments: str) -> dict[str, Any]:
        printed = _printed_by(
            *("mcp-inspector", "--cli", "--config", config, "--server", "fivetran-state"),
            *("--protocol-era", era, "--format", "json", "--method", method, *arguments),
            environment={"PATH": inspector, "HOME": str(tmp_path)},
        )
        result: dict[str, Any] = printed["result"]
        return result

    return inspected


@pytest.fixture
def asked(inspector: str, config: str, era: str, tmp_path: Path) -> Iterator[Inspect]:
    """Makes calls to a server that runs until the end: the Inspector keeps its connection."""
    # The path of a socket must be short.
    with TemporaryDirectory(prefix="mcpdo", ignore_cleanup_errors=True) as folder:
        environment = {
            "PATH": inspector,
            "HOME": str(tmp_path),
            "MCP_INSPECTOR_DAEMON_DIR": folder,
            "MCP_INSPECTOR_DAEMON_TOKEN": secrets.token_urlsafe(),
            "MCP_INSPECTOR_SECRET_STORE": "memory",
        }
        ask = partial(_printed_by, "mcpdo", "--format", "json", environment=environment)
        ask("connect", "fivetran-state", "--config", config, "--era", era)
        try:
            yield ask
        finally:
            ask("daemon", "stop")


def _printed_by(*command: str, environment: dict[str, str], exit_code: int = 0) -> dict[str, Any]:
    run = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == exit_code, run.stderr
    printed: dict[str, Any] = json.loads(run.stdout)
    return printed


def called(inspect: Inspect, tool: str, arguments: dict[str, Any]) -> Any:
    """The text of the tool's result, which a model would read, parsed."""
    result = inspect("tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    text = json.loads(result["content"][0]["text"])
    assert result["structuredContent"] == text
    return text


@pytest.mark.slow
def test_the_inspector_finds_no_error_in_the_schemas_of_the_tools(inspect: Inspect) -> None:
    tools = inspect("tools/list", "--strict")["tools"]

    assert "update_state" in [tool["name"] for tool in tools]


@pytest.mark.slow
def test_a_state_is_read_and_changed_from_the_inspectors_command_line(
    inspect: Inspect, sandbox: Sandbox
) -> None:
    watch = Watch(sandbox, IDLE)
    read = called(inspect, "get_state", {"connection_id": IDLE})
    change = {"connection_id": IDLE, "merge_patch": PATCH, "expected_version": read["version"]}
    update = called(inspect, "update_state", change)

    assert read["state"] == watch.old
    assert update["status"] == "updated"
    watch.ended_with(watch.old | PATCH)


@pytest.mark.slow
def test_nothing_is_written_until_the_human_at_the_inspector_agrees(
    asked: Inspect, sandbox: Sandbox
) -> None:
    is_tool_error = 5
    watch = Watch(sandbox, IDLE)
    change = json.dumps({"connection_id": IDLE, "merge_patch": PATCH})

    def question() -> dict[str, Any]:
        call = asked("@fivetran-state", "tools/call", "update_state", change)
        pending: dict[str, Any] = call["elicitationPending"]
        return pending

    first = question()
    answer = ("elicitation/respond", first["elicitationId"])
    declined = asked(*answer, "--decline", exit_code=is_tool_error)
    untouched = state_of(sandbox, IDLE)
    second = question()
    agreed = asked("elicitation/respond", second["elicitationId"], "{}")

    assert 'to "2020"' in first["message"]
    assert json.loads(declined["content"][0]["text"])["code"] == "not_confirmed"
    assert (untouched, second["message"]) == (watch.old, first["message"])
    assert agreed["structuredContent"]["status"] == "updated"
    watch.ended_with(watch.old | PATCH)
