"""Checks what was built, as its users install it."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from fivetran_state import __version__
from tests.release import described
from tests.release.building import run
from tests.support.calls import ROOT, SYNCING, call

MINORS = range(10, 15)
"""Of Python 3: the versions that the wheel should work on."""
_TWINE, _CONTENTS = "twine==7.0.0", "check-wheel-contents==0.6.3"
_IMPORT_ALL = """
import importlib, pkgutil, fivetran_state
for module in pkgutil.walk_packages(fivetran_state.__path__, "fivetran_state."):
    if not module.name.endswith(("__main__", ".otlp")):  # `otlp` needs an extra.
        importlib.import_module(module.name)
"""


def metadata(sdist: Path, wheel: Path) -> None:
    """The index would take both, and the wheel holds the package alone."""
    run("uvx", "--quiet", _TWINE, "check", "--strict", sdist, wheel)
    run("uvx", "--quiet", _CONTENTS, "--toplevel", "fivetran_state", wheel)


def interpreters() -> dict[str, Path]:
    """The interpreters of this machine: 3.12 → its program."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for version in (f"3.{minor}" for minor in MINORS):
        named = shutil.which(f"python{version}")
        candidates = [Path(named)] if named else []
        candidates += sorted(pyenv.glob(f"{version}.*/bin/python"))
        working = [each for each in candidates if _is(version, each)]
        if working:
            found[version] = working[0]
    return found


def _is(version: str, program: Path) -> bool:
    """False for a name without an interpreter behind it, such as one of pyenv's."""
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    told = subprocess.run([program, "-c", asked], capture_output=True, text=True, check=False)
    return told.stdout.strip() == version


def installed(wheel: Path, interpreter: Path, environment: Path) -> None:
    """The wheel alone works: every module is there, it tells its version, and the demo runs."""
    run("uv", "venv", "--quiet", "--python", interpreter, environment)
    programs = environment / ("Scripts" if os.name == "nt" else "bin")
    run(
        *("uv", "pip", "install", "--quiet", "--python", programs / "python"),
        *("--constraint", ROOT / "constraints.txt", wheel),
    )
    run(programs / "python", "-c", _IMPORT_ALL, cwd=environment)
    program = programs / "fivetran-state"
    told = run(program, "--version")
    assert told.split() == ["fivetran-state", __version__], told
    run(program, "demo", cwd=environment)


def run_by_uvx(wheel: Path) -> None:
    """`uvx fivetran-state` works, as from the index."""
    told = run("uvx", "--quiet", "--from", wheel, "fivetran-state", "--version")
    assert told.split() == ["fivetran-state", __version__], told


def bundled(bundle: Path, work: Path) -> None:
    """A host that installs the bundle and starts it as its manifest says gets the sandbox."""
    folder = work / "installed-bundle"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    configured = described.configuration(str(folder))
    serves_the_sandbox(configured["command"], *configured["args"], home=work, **configured["env"])


def serves_the_sandbox(command: str, *arguments: str, home: Path, **variables: str) -> None:
    """A host that starts this command gets every tool, and a state of the sandbox."""
    data = {"FIVETRAN_STATE_DATA_DIR": str(home / "data")}
    server = StdioServerParameters(
        command=command, args=list(arguments), env=os.environ | variables | data
    )

    async def conversation() -> None:
        async with Client(server) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            found = await call(client, "get_state", connection_id=SYNCING)
        assert tools == [tool["name"] for tool in described.manifest()["tools"]], tools
        assert found["state"], found

    anyio.run(conversation)
