"""Every block of code in the documentation is run, or checked as far as a test can."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer
import yaml

from fivetran_state import notices, phases, policy_file, tracing
from fivetran_state.cli import files
from fivetran_state.config import Settings
from fivetran_state.events import Event, Name
from fivetran_state.pages import Pages
from fivetran_state.runtime import announcer
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.documentation import commands, sessions
from tests.documentation.pages import PAGES, Block, blocks_of, name_of, prose_of
from tests.support.calls import ROOT, SYNCING, state_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SCRIPTS = {
    "docs/how-to/back-up.md": "tests/integration/test_backup.py",
    "docs/how-to/change-many.md": __file__,
    "docs/how-to/files.md": __file__,
    "docs/how-to/jobs.md": __file__,
    "docs/reference/http.md": "tests/http/test_versions.py",
}
"""The pages whose blocks in `bash` are run as they stand, and the modules that run them."""
HOSTS = {"mcpServers", "servers", "context_servers", "mcp_servers", "extensions"}
"""Keys of hosts' files, which tests/integration/test_readme.py starts servers from."""
VARIABLES = {str(field.validation_alias) for field in Settings.model_fields.values()}
LEFT_PAUSED: notices.Notice = {
    "type": "connection.left_paused",
    "time": 0,
    "workflow_id": "speak_inexpensive:3",
    "paused_since": 0,
    "hint": "",
}
PROPOSED: notices.Notice = {
    "type": "proposal.created",
    "time": 0,
    "workflow_id": "proposal:5f0c2f7a9b7e4a6f8d1e3c5b7a9d0e2f",
    "connection_ids": ["speak_inexpensive"],
    "asked_by": "token:1a2b3c4d",
    "reason": "A bad deploy.",
    "expires_at": 0,
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_checked_by_what_knows_its_language(block: Block, tmp_path: Path) -> None:
    assert block.language in CHECKS, f"no test knows {block.language!r}"
    if block.language in ("sh", "bash"):
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    CHECKS[block.language](block, tmp_path)


def is_session(block: Block, _: Path) -> None:
    """test_sessions.py plays it."""
    assert sessions.exchanges(block.text)
    assert ROOT / "docs" in block.page.parents


def is_script(block: Block, _: Path) -> None:
    module = ROOT / SCRIPTS[name_of(block.page)]
    assert name_of(block.page) in module.read_text(encoding="utf-8")


def has_commands(block: Block, _: Path) -> None:
    for statement in commands.statements(block.text):
        words = commands.words(statement)
        check = next((PROGRAMS[each] for each in PROGRAMS if re.fullmatch(each, words[0])), None)
        assert check is not None, f"no test knows {words[0]!r}"
        check(words)


def is_ours(words: list[str]) -> None:
    commands.parse(words[1:])


def is_script_of_ours(words: list[str]) -> None:
    assert os.access(ROOT / words[0], os.X_OK)


def is_module_of_ours(words: list[str]) -> None:
    assert words[1] == "-m"
    module = importlib.util.find_spec(words[2])
    assert module is not None
    assert module.origin is not None
    sources = [Path(module.origin), *Path(module.origin).parent.glob("__main__.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert [word for word in words[3:] if word.startswith("--") and word not in source] == []


def installs_an_extra(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [f"{project['name']}[{extra}]" for extra in project["optional-dependencies"]]
    assert words[1:] in [["install", each] for each in extras]


def sets_variables(words: list[str]) -> None:
    set_ = {word.partition("=")[0] for word in words[1:] if re.match("[A-Z_]+=", word)}
    assert set_
    assert {each for each in set_ if not each.startswith("OTEL_")} <= VARIABLES


def runs_our_image(words: list[str]) -> None:
    """What stands behind the image, or behind the service of compose.yaml."""
    after = "server" if "compose" in words else "fivetran-state"
    if "run" in words:
        commands.parse(words[len(words) - words[::-1].index(after) :])


def names_our_resources(words: list[str]) -> None:
    manifests = [
        resource
        for path in (ROOT / "deploy/kubernetes").rglob("*.yaml")
        for resource in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]
    there = {
        f"{each['kind'].lower()}/{each['metadata']['name']}"
        for each in manifests
        if "metadata" in each
    }
    assert {word for word in words if re.match(r"(deployment|job)/", word)} <= there
    for folder in words[words.index("-k") + 1 :][:1] if "-k" in words else []:
        assert folder == "." or (ROOT / folder / "kustomization.yaml").exists()


def is_run_elsewhere(_: list[str]) -> None:
    """test_every_call_reaches_its_route and tests/integration/test_readme.py run it."""


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "fivetran-state": is_ours,
    r"scripts/\w+": is_script_of_ours,
    r"\.venv/bin/python": is_module_of_ours,
    "export": sets_variables,
    "docker": runs_our_image,
    "kubectl": names_our_resources,
    "curl|claude|gemini": is_run_elsewhere,
    "pip": installs_an_extra,
}


def is_json(block: Block, folder: Path) -> None:
    value = json.loads(block.text)
    if value.keys() & HOSTS:
        return
    if value.get("type") in ("connection.left_paused", "proposal.created"):
        notice = LEFT_PAUSED if value["type"] == LEFT_PAUSED["type"] else PROPOSED
        pages = Pages("https://state.example.com")
        told = notices.as_json(notice, f"notice:{notice['workflow_id']}", pages)
        times = {"time", "paused_since", "expires_at", "hint"}
        assert {key: value[key] for key in value if key not in times} == {
            key: told[key] for key in told if key not in times
        }
        assert value.keys() == told.keys()
        assert value.get("hint") in {None, *texts_in(Path(announcer.__file__))}
    elif "event" in value:
        assert Name(value["event"])
        log = {"time", "level", "logger", "message", "event", "request_id"}
        assert value.keys() <= log | {field.name for field in fields(Event)}
    else:
        path = files.path_of(folder, value["connection_id"])
        path.write_text(block.text)
        assert not files.read(path).is_edited


def texts_in(module: Path) -> set[object]:
    """The texts that a module says, each as a whole."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def is_toml(block: Block, _: Path) -> None:
    if not tomllib.loads(block.text).keys() & HOSTS:
        policy_file.parse(block.text)


def is_yaml(block: Block, _: Path) -> None:
    value: dict[str, Any] = yaml.safe_load(block.text)
    if value.keys() & HOSTS:
        return
    if "rule_files" in value:
        assert [(ROOT / "deploy/prometheus" / name).exists() for name in value["rule_files"]] == [
            True
        ]
        return
    assert value["resources"] == ["../deploy/kubernetes"]
    literals = [each for made in value["configMapGenerator"] for each in made["literals"]]
    assert {literal.partition("=")[0] for literal in literals} <= VARIABLES


def is_text(block: Block, _: Path) -> None:
    """A list of links, from each of which tests/integration/test_readme.py starts a server; or a trace."""
    if name_of(block.page) == "docs/how-to/install.md":
        return
    spans = set(re.findall(r"─ (\w+)", block.text))
    attributes = set(re.findall(r"\b(?:fivetran|fivetran_state|http)\.[\w.]+", block.text))
    assert spans - {"update", "GET"} <= {*phases.STEPS}
    assert attributes <= {tracing.WORKFLOW, tracing.OUTCOME, tracing.CONNECTION, tracing.STATUS}


def is_layout(block: Block, _: Path) -> None:
    """tests/integration/test_readme.py compares it with the tree."""
    assert name_of(block.page) == "CONTRIBUTING.md"


CHECKS: dict[str, Callable[[Block, Path], None]] = {
    sessions.LANGUAGE: is_session,
    "bash": is_script,
    "sh": has_commands,
    "json": is_json,
    "toml": is_toml,
    "yaml": is_yaml,
    "text": is_text,
    "": is_layout,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page, module in SCRIPTS.items() if module == __file__], ids=str
)
def test_a_script_works_as_it_stands(
    page: str, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    before = state_of(sandbox, SYNCING)
    for block in blocks_of(ROOT / page):
        if block.language == "bash":
            ended = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                env=environment | {"PATH": here},
                cwd=tmp_path,
            )
            assert ended.returncode == 0, ended

    assert state_of(sandbox, SYNCING) != before


@pytest.mark.slow
async def test_every_call_reaches_its_route(http: Serve, sandbox: Sandbox) -> None:
    sandbox.finish_sync(SYNCING)
    calls = [
        statement
        for block in BLOCKS
        if block.language == "sh"
        for statement in commands.statements(block.text)
        if statement.startswith("curl ")
    ]
    async with http() as server:
        # Once there is a token, the server needs one.
        variables = {"URL": server.url}
        for call in sorted(calls, key=lambda call: "$TOKEN" in call):
            if "$TOKEN" in call and "TOKEN" not in variables:
                variables["TOKEN"] = server.new_token("approve")
            there = call.replace("localhost:8000", "$URL") + " --silent --show-error"
            ended = await anyio.run_process(
                ["sh", "-c", there], env=os.environ | variables, check=False
            )
            answer = json.loads(ended.stdout)
            # The proposal of an example is not there.
            assert answer.get("code") in (None, "workflow_not_found"), (call, answer)

    assert len(calls) >= 5


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_in_a_sentence_is_one_of_the_program(page: Path) -> None:
    for named in re.findall(r"`(fivetran-state [^`]+)`", prose_of(page)):
        if "…" in named:
            continue
        try:
            words = commands.words(re.sub(r"[][]", "", named))
            commands.parse(words[1:], may_lack_arguments=True)
        except typer.TyperException as error:
            pytest.fail(f"{named}: {error.format_message()}")
