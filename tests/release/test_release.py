"""`scripts/release` and `scripts/demo` work from a clean clone."""

import hashlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fivetran_state import __version__
from tests.release import building, checking, described
from tests.support.calls import ROOT

pytestmark = pytest.mark.slow


def test_a_release_is_built_checked_and_listed(tmp_path: Path) -> None:
    released = subprocess.run(
        [ROOT / "scripts" / "release", tmp_path / "dist"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout

    built = {path.name: path.read_bytes() for path in (tmp_path / "dist").iterdir()}
    assert built.keys() == {
        f"fivetran_state-{__version__}.tar.gz",
        f"fivetran_state-{__version__}-py3-none-any.whl",
        f"fivetran-state-{__version__}.mcpb",
        described.SERVER.name,
    }
    for name, content in built.items():
        digest = hashlib.sha256(content).hexdigest()
        assert re.search(rf"^{digest} +{len(content):,} {name}$", released, re.MULTILINE)


def test_a_stranger_clones_it_runs_the_demo_and_gives_it_to_an_assistant(tmp_path: Path) -> None:
    clone = building.clone(tmp_path / "clone")
    readme = (clone / "README.md").read_text(encoding="utf-8")

    shown = building.run(clone / "scripts" / "demo")
    has = building.run(clone / ".runtime/bin/python", "-m", "pip", "list", "--format=freeze")
    (told,) = re.findall(r"^claude mcp add \S+ -- (.+)$", readme, re.MULTILINE)
    command, *arguments = shlex.split(told.replace("/path/to/fivetran-state", str(clone)))
    checking.serves_the_sandbox(command, *arguments, home=tmp_path)

    assert "The update was recovered and verified." in shown
    installed = {line.partition("==")[0].lower() for line in has.splitlines()}
    assert "dbos" in installed
    assert installed & {"pytest", "mypy", "ruff", "hypothesis", "playwright", "uv"} == set()
