"""The OpenAPI document is correct, and the server conforms to it."""

import base64
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import anyio
import pytest

from tests.conftest import Serve
from tests.support.http_server import HttpServer, authorization
from tests.support.rest import get

UNWANTED_CHECKS = [
    # Rules that JSON Schema does not state: credentials come in pairs, ids are those of
    # connections, exactly one kind of change is given.
    "positive_data_acceptance",
]


async def insist(server: HttpServer, folder: Path, *arguments: str) -> None:
    """Fails the test with Schemathesis's report if it finds an error."""
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
        server.new_token()
        closed = await get(server.client, "/openapi.json")

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
        "POST /states/update",
        "GET /connections",
        "GET /connections/{connection_id}/state",
        "GET /connections/{connection_id}/history",
        "GET /connections/{connection_id}/diff",
        "GET /proposals",
        "GET /proposals/{workflow_id}",
        "POST /proposals/{workflow_id}/approve",
        "POST /proposals/{workflow_id}/reject",
        "POST /proposals/{workflow_id}/withdraw",
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


@pytest.mark.parametrize("prefix", ["", "/state"])
async def test_the_page_of_the_routes_is_everybodys_and_loads_nothing_from_elsewhere(
    http: Serve, prefix: str
) -> None:
    public = {"FIVETRAN_STATE_PUBLIC_URL": f"https://state.example.com{prefix}"}
    async with http() as server:
        server.new_token()
    async with http(**public) as server:
        page = await server.client.get("/docs")
        at = f"https://state.example.com{prefix}/docs"
        loaded = {
            urljoin(at, url)
            for url in re.findall(r'(?:src|href|url)[=:] ?["\']([^"\']+)', page.text)
        }
        answers = {
            url: await server.client.get(url.removeprefix(f"https://state.example.com{prefix}"))
            for url in loaded - {"data:,"}
        }
        poked = await server.client.get("/docs/../openapi.json/../__init__.py")

    assert len(answers) == 3
    assert {answer.status_code for answer in answers.values()} == {200}
    (script,) = re.findall("<script>(.*?)</script>", page.text, re.DOTALL)
    hash_ = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.headers["Content-Security-Policy"]
    assert f"script-src 'self' 'sha256-{hash_}';" in policy
    assert "http" not in policy
    assert poked.status_code == 401
