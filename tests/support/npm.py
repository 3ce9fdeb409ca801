"""Programs from npm, at exact versions, and a Node that is new enough for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NODE = "22.23.3"
SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
COMPOSE_LINTER = "dclint@3.1.0"
AXE = "axe-core@4.14.1"
CHROMIUM = "@sparticuz/chromium@153.0.0"
EXT_APPS = "@modelcontextprotocol/ext-apps@2.0.4"
ESBUILD = "esbuild@0.25.12"
OPENAPI_TYPESCRIPT = "openapi-typescript@7.13.0"
"""It brings TypeScript."""

_NODE_PACKAGE = """'node-' + process.platform.replace('32', '') + '-' + process.arch"""
_PRINT_PATH = "import os; print(os.environ['PATH'])"


def path_with(package: str) -> str:
    """A PATH with the programs of this package; npx downloads missing ones."""
    npx, node = shutil.which("npx"), shutil.which("node")
    if npx is None or node is None:
        raise SystemExit("Node is needed, with its npx: https://nodejs.org")
    node_package = _said_by(node, "--print", _NODE_PACKAGE)
    return _said_by(
        *(npx, "--yes", "--loglevel=error"),
        *(f"--package={node_package}@{NODE}", f"--package={package}"),
        *("--", sys.executable, "-c", _PRINT_PATH),
    )


def folder_of(package: str) -> Path:
    """The folder of a package that has no program."""
    name = package.rpartition("@")[0]
    folders = [Path(each).parent / name for each in path_with(package).split(os.pathsep)]
    return next(folder for folder in folders if folder.is_dir())


def _said_by(*command: str) -> str:
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    return run.stdout.strip()
