"""Clients that are generated from the OpenAPI document, in Python and TypeScript."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from fivetran_state.sandbox import Sandbox
from tests.clients import libraries
from tests.conftest import Serve
from tests.support import npm
from tests.support.calls import IDLE, state_of
from tests.support.http_server import HttpServer

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("openapi_client.py")
TYPED_PROGRAM = PROGRAM.with_suffix(".ts")


async def run(*command: str, folder: Path, path: str, **variables: str) -> str:
    """What the command prints; fails the test with all of it if the command fails."""
    environment = {"HOME": str(folder), "PATH": path, **variables}
    done = await anyio.run_process(
        command, check=False, cwd=folder, env=environment, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


async def document_of(server: HttpServer, folder: Path) -> Path:
    """The OpenAPI document as a file."""
    file = anyio.Path(folder / "openapi.json")
    await file.write_bytes((await server.client.get("/openapi.json")).content)
    return Path(file)


async def test_a_generated_python_client_changes_a_state_and_follows_the_update(
    http: Serve, sandbox: Sandbox, tmp_path: Path
) -> None:
    python = await anyio.to_thread.run_sync(libraries.python_with, "openapi")
    # The generator formats its code with ruff.
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    async with http() as server:
        document = await document_of(server, tmp_path)
        made = await run(
            *(str(python), "-m", "openapi_python_client", "generate", "--fail-on-warning"),
            *("--path", str(document), "--output-path", "client"),
            folder=tmp_path,
            path=path,
        )
        printed = await run(
            *(str(python), str(PROGRAM), server.url, IDLE),
            folder=tmp_path,
            path=path,
            PYTHONPATH=str(tmp_path / "client"),
        )

    assert "warning" not in made.lower()
    assert json.loads(printed) == ["updated", state_of(sandbox, IDLE)]
    assert state_of(sandbox, IDLE)["cursor"] == "2020"


async def test_generated_types_fit_a_program_in_typescript(http: Serve, tmp_path: Path) -> None:
    path = await anyio.to_thread.run_sync(npm.path_with, npm.OPENAPI_TYPESCRIPT)
    async with http() as server:
        document = await document_of(server, tmp_path)
    shutil.copy(TYPED_PROGRAM, tmp_path)
    made = await run(
        *("openapi-typescript", str(document), "--output", "openapi.d.ts"),
        folder=tmp_path,
        path=path,
    )
    await run(
        *("tsc", "--strict", "--noEmit", "--target", "es2022", "--lib", "es2022,dom"),
        TYPED_PROGRAM.name,
        folder=tmp_path,
        path=path,
    )

    assert "warn" not in made.lower()
