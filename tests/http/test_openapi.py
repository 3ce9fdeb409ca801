"""The OpenAPI document, and whether the server keeps to it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.conftest import Serve
from tests.http.rest import get
from tests.http_server import HttpServer, authorization

UNWANTED_CHECKS = [
    # Rules that JSON Schema does not state: credentials come in pairs, ids are those of
    # connections, exactly one kind of change is given.
    "positive_data_acceptance",
]


async def insist(server: HttpServer, folder: Path, *arguments: str) -> None:
    """Fails the test with the report of Schemathesis if it finds anything wrong."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += [f"--exclude-checks={','.join(UNWANTED_CHECKS)}", "--generation-deterministic"]
    done = await anyio.run_process(
        [*command, "--no-color", *arguments],
        check=False,
        cwd=folder,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("examples", [2, pytest.param(100, marks=pytest.mark.slow)])
async def test_schemathesis_finds_no_5xx_and_no_undocumented_answer(
    http: Serve, tmp_path: Path, examples: int
) -> None:
    async with http(
        sandbox=True, FIVETRAN_STATE_RATE_LIMIT="0", FIVETRAN_STATE_SYNC_WAIT="1"
    ) as server:
        await insist(server, tmp_path, "--max-examples", str(examples))


@pytest.mark.slow
async def test_schemathesis_finds_none_either_where_tokens_are_asked_for(
    http: Serve, tmp_path: Path
) -> None:
    async with http(sandbox=True, FIVETRAN_STATE_RATE_LIMIT="0") as server:
        header = f"Authorization: {authorization(server.new_token('read'))['Authorization']}"
        await insist(
            server, tmp_path, "--max-examples=2", "--phases=examples,coverage", "--header", header
        )


async def test_the_document_names_describes_and_gives_an_example_of_everything(
    http: Serve,
) -> None:
    async with http() as server:
        open_ = await get(server.client, "/openapi.json")
        token = authorization(server.new_token("read"))
        closed = (await server.client.get("/openapi.json", headers=token)).json()
        page = await server.client.get("/docs", headers=token)

    operations: dict[str, dict[str, Any]] = {
        f"{method.upper()} {path}": operation
        for path, methods in open_["paths"].items()
        for method, operation in methods.items()
    }
    assert list(operations) == [
        "POST /state/get",
        "POST /state/get-multiple",
        "POST /state/update",
        "POST /state/update-multiple",
        "GET /connections",
        "GET /workflows",
        "POST /workflows/{workflow_id}/cancel",
        "GET /workflows/{workflow_id}",
    ]
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for name, operation in operations.items():
        assert operation["tags"], name
        assert operation["description"], name
        for status, answer in operation["responses"].items():
            kinds = ["application/problem+json" if status >= "400" else "application/json"]
            assert list(answer["content"]) == kinds, (name, status)
            assert status < "400" or answer["content"][kinds[0]] == problem
        if "requestBody" in operation:
            ref = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
            assert open_["components"]["schemas"][ref.rpartition("/")[2]]["examples"]
    updated = operations["POST /state/update"]["responses"]
    assert "Location" in updated["202"]["headers"]
    assert "Retry-After" in updated["429"]["headers"]
    assert "HTTPValidationError" not in open_["components"]["schemas"]
    assert open_["components"]["schemas"]["Problem"]["required"]
    assert (open_["security"], closed["security"]) == ([], [{"token": []}])
    assert closed["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert page.status_code == 200
