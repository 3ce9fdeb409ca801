"""The examples in the documentation work as written, and its lists are complete."""

import base64
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import anyio
import pytest
import typer
import yaml
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from fivetran_state.cli.app import app
from fivetran_state.config import Settings
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import ROOT, SYNCING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

README = ROOT / "README.md"
FIRST_UPDATE = ROOT / "docs/start/first-update.md"
INSTALL, CONNECT, JOBS = (
    ROOT / f"docs/how-to/{name}.md" for name in ("install", "connect", "jobs")
)
TOOLS, ENVIRONMENT, COMMANDS, SHELL = (
    ROOT / f"docs/reference/{name}.md" for name in ("tools", "environment", "commands", "shell")
)
STARTS = (["/path/to/fivetran-state/.runtime/bin/fivetran-state"], ["uvx", "fivetran-state"])
"""How the snippets start the program: from a clone, and by uv."""


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)


def configured() -> list[dict[str, Any]]:
    """The server in each host's file, and in each install link."""
    files = [
        *(json.loads(block) for block in blocks(INSTALL, "json")),
        *(tomllib.loads(block) for block in blocks(INSTALL, "toml")),
        *(yaml.safe_load(block) for block in blocks(INSTALL, "yaml")),
    ]
    keys = ("mcpServers", "servers", "mcp_servers", "context_servers", "extensions")
    servers = [next(iter(file[key].values())) for file in files for key in keys if key in file]
    (links,) = blocks(INSTALL, "text")
    return [*servers, *map(linked, links.split())]


def linked(link: str) -> dict[str, Any]:
    """The server that an install link describes."""
    scheme, query = link.partition(":")[0], link.partition("?")[2]
    values = parse_qs(query)
    if scheme == "goose":
        return {"command": values["cmd"][0], "args": values["arg"]}
    text = unquote(query) if scheme == "vscode" else base64.b64decode(values["config"][0])
    server: dict[str, Any] = json.loads(text)
    return server


def commands_of_hosts() -> list[str]:
    lines = "".join(
        block for page in (README, FIRST_UPDATE, INSTALL) for block in blocks(page, "sh")
    ).splitlines()
    return [line for line in lines if re.match(r"(claude|gemini) mcp add", line)]


def snippets() -> list[list[str]]:
    """The command line that each host would start."""
    found = [[server.get("command", server.get("cmd")), *server["args"]] for server in configured()]
    for line in commands_of_hosts():
        words = shlex.split(line)
        at = words.index("--") + 1 if "--" in words else words.index("uvx")
        found.append(words[at:])
    return found


def test_the_readme_is_short_and_names_two_commands_that_exist() -> None:
    commands = [line.partition(" ")[0] for line in blocks(README, "sh")[0].splitlines()]

    assert len(text(README).split()) <= 700
    assert commands == ["scripts/demo", "scripts/test"]
    assert all(os.access(ROOT / command, os.X_OK) for command in commands)


def test_there_is_a_snippet_for_each_host() -> None:
    hosts = ["Claude Desktop", "Claude Code", "Cursor", "VS Code", "Codex", "Gemini CLI", "Goose"]
    for host in [*hosts, "Zed"]:
        assert f"\n## {host}\n" in text(INSTALL)
        assert host in text(README)
    assert len(snippets()) == 13


def test_no_snippet_holds_a_secret() -> None:
    named = re.compile(r"\$\{?(env:|input:)?[\w-]+\}?")
    values = [value for server in configured() for value in server.get("env", {}).values()]
    for line in commands_of_hosts():
        values += [word.partition("=")[2] for word in shlex.split(line) if word.startswith("FIVET")]
    headers = re.findall(r"Bearer ([^\"']+)", text(CONNECT))

    assert len(values) == 8
    assert len(headers) == 4
    assert [value for value in [*values, *headers] if not named.fullmatch(value)] == []


@pytest.mark.slow
@pytest.mark.parametrize("command", snippets(), ids="-".join)
async def test_a_host_that_is_configured_as_shown_gets_the_tools(
    command: list[str], tmp_path: Path
) -> None:
    start = next(each for each in STARTS if command[: len(each)] == each)
    program = Path(sys.executable).parent / "fivetran-state"
    server = StdioServerParameters(
        command=str(program),
        args=command[len(start) :],
        env={"FIVETRAN_STATE_DATA_DIR": str(tmp_path / "data")},
    )
    async with Client(server) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]

    for page in (README, TOOLS):
        first_column = [name for row in rows(page) for name in names(row[0])]
        assert [name for name in first_column if name in tools] == tools, page


def rows(page: Path) -> list[list[str]]:
    """The cells of its tables' rows, without the headings."""
    return [line.strip("| ").split(" | ") for line in text(page).splitlines() if line[:3] == "| `"]


def test_the_table_of_the_environment_is_the_settings() -> None:
    documented = {name: row for row in rows(ENVIRONMENT) for name in names(row[0])}
    settings = {
        str(field.validation_alias): field.default
        for field in Settings.model_fields.values()
        if field.validation_alias is not None  # Other settings come from the command line.
    }

    assert documented.keys() == settings.keys()
    for name, default in settings.items():
        if isinstance(default, str | bool | int | float) and default != "":
            shown = str(default).lower() if isinstance(default, bool) else f"{default}"
            assert f"`{shown}`" == documented[name][1], name


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_command_and_option_is_named() -> None:
    named = text(COMMANDS) + text(SHELL)
    for path, command in commands(typer.main.get_command(app)):
        assert not path or f"`{path.removeprefix(' ')}" in named, path
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert parameter.opts[0] in named, parameter.opts[0]


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each command, with its words on the command line."""
    if not (subcommands := getattr(command, "commands", {})):
        yield path, command
    for name, subcommand in subcommands.items():
        yield from commands(subcommand, f"{path} {name}")


def test_the_layout_is_that_of_the_tree() -> None:
    layout = text(ROOT / "CONTRIBUTING.md")
    package, tests = ROOT / "fivetran_state", ROOT / "tests"
    modules = [path.name for path in package.glob("*.py") if not path.stem.startswith("__")]
    packages = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    kinds = [f"tests/{path.parent.name}" for path in tests.glob("*/__init__.py")]

    listed = re.search(r"## Layout\n\n```\n(.*?)```", layout, re.DOTALL)
    assert listed is not None
    for name in [*modules, *packages, *kinds]:
        assert re.search(rf"(^|[ ,]){name}\b|^ *{name} ", listed[1], re.MULTILINE), name


async def test_a_job_updates_as_shown_and_repeats_without_harm(
    http: Serve, sandbox: Sandbox
) -> None:
    (lines,) = [block for block in blocks(JOBS, "sh") if block.startswith("curl")]
    sandbox.finish_sync(SYNCING)
    async with http() as server:
        job = {"URL": server.url, "TOKEN": server.new_token()}

        async def run(**more: str) -> "subprocess.CompletedProcess[bytes]":
            return await anyio.run_process(
                ["sh", "-c", lines], env=os.environ | job | more, check=False
            )

        first, again, stranger = await run(), await run(), await run(TOKEN="none")

    assert (first.returncode, again.returncode, stranger.returncode) == (0, 0, 22)
    updates = [json.loads(each.stdout) for each in (first, again)]
    assert [update["status"] for update in updates] == ["updated", "updated"]
    assert updates[0]["workflow_id"] == updates[1]["workflow_id"]
    assert json.loads(stranger.stdout)["code"] == "invalid_token"
    assert updates[0]["verified_state"]["orders"]["cursor"] == "2026-01-01T00:00:00Z"
