"""What the README shows works as it stands there."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from fivetran_state.config import Settings
from tests.calls import ROOT

README = (ROOT / "README.md").read_text()
INSTALLED = "/path/to/fivetran-state/.venv/bin/fivetran-state"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def snippets() -> list[list[str]]:
    """The command line that each host would start."""
    configured: list[dict[str, Any]] = [
        next(iter((snippet.get("mcpServers") or snippet["servers"]).values()))
        for snippet in map(json.loads, blocks("json"))
    ]
    found = [[server["command"], *server["args"]] for server in configured]
    for block in blocks("toml"):
        values = dict(re.findall(r"^(\w+) = (.*)$", block, re.MULTILINE))
        found.append([json.loads(values["command"]), *json.loads(values["args"])])
    lines = "".join(blocks("sh")).splitlines()
    return found + [
        shlex.split(line.partition(" -- ")[2])
        for line in lines
        if line.startswith("claude mcp add")
    ]


def test_there_is_a_snippet_for_each_host() -> None:
    assert len(snippets()) == 5
    for host in ("Claude Desktop", "Claude Code", "Cursor", "VS Code", "Codex"):
        assert host in README


@pytest.mark.parametrize("command", snippets(), ids=lambda command: str(len(command)))
async def test_a_host_that_is_configured_as_shown_gets_the_tools(
    command: list[str], tmp_path: Path
) -> None:
    assert command[0] == INSTALLED
    program = Path(sys.executable).parent / "fivetran-state"
    server = StdioServerParameters(
        command=str(program),
        args=command[1:],
        env={"FIVETRAN_STATE_DATA_DIR": str(tmp_path / "data")},
    )
    async with Client(server) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]

    assert [name for name in tools if f"| `{name}` |" in README] == tools


def test_every_setting_is_in_the_table_of_the_environment() -> None:
    table = README.partition("## Environment")[2].partition("## ")[0]
    for field in Settings.model_fields.values():
        if field.validation_alias is not None:  # The others come from the command line.
            assert f"`{field.validation_alias}`" in table


def test_every_file_that_is_named_is_there() -> None:
    for path in re.findall(r"\]\(([^)h#]+)\)", README):
        assert (ROOT / path).exists(), path
