"""Builds what is released, from a clone of the last commit."""

import shutil
import subprocess
from pathlib import Path

from tests.release import described
from tests.support import npm
from tests.support.calls import ROOT

BUNDLER = "@anthropic-ai/mcpb@2.1.2"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program prints; exits with all of it if the program fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=cwd,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def clone(folder: Path) -> Path:
    """The last commit, without what only the work tree has."""
    run("git", "clone", "--quiet", "--no-hardlinks", ROOT, folder)
    return folder


def distributions(source: Path, into: Path) -> tuple[Path, Path]:
    """The source distribution, and the wheel that is built from it."""
    run(
        *("uv", "build", "--quiet", "--build-constraints", "constraints.txt"),
        *("--out-dir", into),
        cwd=source,
    )
    (sdist,) = into.glob("*.tar.gz")
    (wheel,) = into.glob("*.whl")
    return sdist, wheel


def bundle(source: Path, wheel: Path, work: Path, into: Path) -> Path:
    """The bundle for desktop hosts: the wheel, and exact versions of what it needs."""
    content = work / "bundle"
    content.mkdir()
    for name in ("server.py", "README.md", "LICENSE", "bundle/manifest.json"):
        shutil.copy(source / name, content)
    shutil.copy(wheel, content)
    version = wheel.name.split("-")[1]
    (content / "pyproject.toml").write_text(_project(source, wheel.name, version), encoding="utf-8")
    bundled = into / f"fivetran-state-{version}.mcpb"
    mcpb = shutil.which("mcpb", path=npm.path_with(BUNDLER))
    assert mcpb is not None
    run(mcpb, "validate", content / described.MANIFEST.name)
    run(mcpb, "pack", content, bundled)
    return bundled


def _project(source: Path, wheel: str, version: str) -> str:
    """The project that a host installs: only the wheel, in the versions that were tested."""
    lines = (source / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = (line.removesuffix(" \\").replace("'", '"') for line in lines if "==" in line)
    pinned = "".join(f"    '{line}',\n" for line in exact)
    python = described.manifest()["compatibility"]["runtimes"]["python"]
    return (
        "[project]\n"
        'name = "fivetran-state-bundle"\n'
        f'version = "{version}"\n'
        f'requires-python = "{python}"\n'
        'dependencies = ["fivetran-state"]\n'
        "\n[tool.uv]\n"
        "package = false\n"
        f"constraint-dependencies = [\n{pinned}]\n"
        "\n[tool.uv.sources]\n"
        f'fivetran-state = {{ path = "{wheel}" }}\n'
    )
