"""MCP Inspector, the protocol's own client, used from its command line as a stranger would."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fivetran_state.sandbox import Sandbox
from tests.calls import IDLE, ROOT, Watch
from tests.conformance import npm

Inspect = Callable[..., dict[str, Any]]

PATCH = {"cursor": "2020"}


@pytest.fixture(scope="session")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PATH that has it."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "npm.lock"):
        return npm.path_with(npm.INSPECTOR)


@pytest.fixture(params=["legacy", "modern"])
def inspect(
    request: pytest.FixtureRequest, inspector: str, environment: dict[str, str], tmp_path: Path
) -> Inspect:
    """Starts the server and asks it one thing: the result, as the Inspector prints it."""
    config = tmp_path / "mcp.json"
    server = {"command": sys.executable, "args": [str(ROOT / "server.py")], "env": environment}
    config.write_text(json.dumps({"mcpServers": {"fivetran-state": server}}))

    def inspected(method: str, *arguments: str) -> dict[str, Any]:
        run = subprocess.run(
            [
                *("mcp-inspector", "--cli", "--config", str(config), "--server", "fivetran-state"),
                *("--protocol-era", request.param, "--format", "json", "--method", method),
                *arguments,
            ],
            env={"PATH": inspector, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        result: dict[str, Any] = json.loads(run.stdout)["result"]
        return result

    return inspected


def called(inspect: Inspect, tool: str, arguments: dict[str, Any]) -> Any:
    """What a model would read: the text of the tool's result, parsed."""
    result = inspect("tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    text = json.loads(result["content"][0]["text"])
    assert result["structuredContent"] == text
    return text


def test_the_inspector_finds_no_error_in_the_schemas_of_the_tools(inspect: Inspect) -> None:
    tools = inspect("tools/list", "--strict")["tools"]

    assert "update_state" in [tool["name"] for tool in tools]


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
