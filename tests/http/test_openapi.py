"""The OpenAPI document is correct, and the server conforms to it."""

import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from html import unescape
from pathlib import Path
from typing import Any

import anyio
import jsonschema  # type: ignore[import-untyped]
import pytest

from fivetran_state.errors import codes
from fivetran_state.http_server.docs import EXAMPLES
from fivetran_state.http_server.problems import REFUSED
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.examples import blurred, recorded
from tests.support.calls import IDLE
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


@pytest.mark.slow
async def test_schemathesis_finds_no_5xx_and_no_undocumented_answer(
    http: Serve, tmp_path: Path
) -> None:
    async with http(
        sandbox=True, FIVETRAN_STATE_RATE_LIMIT="0", FIVETRAN_STATE_SYNC_WAIT="1"
    ) as server:
        await insist(server, tmp_path, "--max-examples=100")


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
    problem = {"$ref": "#/components/schemas/Problem"}
    for name, operation in operations.items():
        assert operation["tags"], name
        assert operation["description"], name
        for status, answer in operation["responses"].items():
            if status == "304":
                assert "content" not in answer
                continue
            kinds = ["application/problem+json" if status >= "400" else "application/json"]
            assert list(answer["content"]) == kinds, (name, status)
            assert status < "400" or answer["content"][kinds[0]]["schema"] == problem
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


def examples_in(content: dict[str, Any], components: dict[str, Any]) -> list[Any]:
    named = [each["$ref"].rpartition("/")[2] for each in content.get("examples", {}).values()]
    own = [content["example"]] if "example" in content else []
    return own + [components["examples"][name]["value"] for name in named]


async def test_every_answer_has_an_example_that_fits_its_schema(http: Serve) -> None:
    async with http() as server:
        document = await get(server.client, "/openapi.json")

    components = document["components"]
    answers = [
        (status, content)
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        for content in answer.get("content", {}).values()
    ]
    lacking = set()
    for status, content in answers:
        examples = examples_in(content, components)
        lacking |= set() if examples else {status}
        for example in examples:
            jsonschema.validate(example, content["schema"] | {"components": components})
            assert status < "400" or str(example["status"]) == status
    # These say something only when something is wrong.
    assert lacking == {"408", "413", "429", "500", "502", "503"}


@pytest.mark.slow
async def test_the_examples_are_what_a_server_answers(http: Serve, sandbox: Sandbox) -> None:
    known = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    async with http() as server:
        answers = await recorded(server, sandbox)

    assert blurred(answers) == blurred(known), "if that is what you want: python -m tests.examples"


@pytest.mark.parametrize("prefix", ["", "/state"])
async def test_the_page_of_the_routes_is_everybodys_and_loads_nothing_from_elsewhere(
    http: Serve, prefix: str
) -> None:
    public = {"FIVETRAN_STATE_PUBLIC_URL": f"https://state.example.com{prefix}"}
    async with http() as server:
        server.new_token()
    async with http(**public) as server:
        page = await server.client.get("/docs")
        (style,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', page.text)
        linked = set(re.findall(r'href="([^"#]+)"', page.text))
        answers = [
            await server.client.get(url.removeprefix(prefix))
            for url in (style, f"{prefix}/openapi.json")
        ]

    assert linked >= {style, f"{prefix}/openapi.json"}
    assert [url for url in linked if not url.startswith(f"{prefix}/")] == []
    assert [answer.status_code for answer in answers] == [200, 200]
    assert "src=" not in page.text
    assert "<script" not in page.text
    assert "http" not in page.headers["Content-Security-Policy"]


async def test_the_page_of_the_routes_shows_all_that_the_document_says(http: Serve) -> None:
    async with http() as server:
        document = await get(server.client, "/openapi.json")
        page = (await server.client.get("/docs")).text

    shown = {re.sub("<[^>]+>", "", row) for row in re.findall(r"<(?:h3|th)[^>]*>(.*?)</", page)}
    examples = {
        place: json.loads(unescape(example), parse_float=Decimal)
        for place, example in re.findall(r'<pre[^>]*"Answer ([^"]+)">(.*?)</pre>', page, re.DOTALL)
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in shown
            for parameter in operation.get("parameters", []):
                assert parameter["name"] in shown
            for status, answer in operation["responses"].items():
                media = answer.get("content", {}).get("application/json", {})
                if "example" in media:
                    place = f"{status} of {method.upper()} {path}"
                    assert examples.pop(place) == media["example"]
    assert examples == {}
    for name in ("UpdateState", "UpdateStates"):
        assert document["components"]["schemas"][name]["properties"].keys() <= shown


@pytest.mark.parametrize("prefix", ["", "/state"])
async def test_the_type_of_a_problem_leads_to_where_the_server_explains_it(
    http: Serve, prefix: str
) -> None:
    public = {"FIVETRAN_STATE_PUBLIC_URL": f"https://state.example.com{prefix}"}
    async with http() as server:
        token = authorization(server.new_token())
    async with http(**public) as server:
        page = (await server.client.get("/docs/errors")).text
        problems = [
            (await server.client.get(path, headers=headers)).json()
            for path, headers in [
                ("/connections", {}),
                ("/connections", {"Host": "elsewhere.example"}),
                ("/connections?limit=0", token),
                ("/connections/not_there/state", token),
            ]
        ]
        nothing = (await server.client.get("/nothing", headers=token)).json()

    wanted = ["authentication_required", "foreign_host", "invalid_request", "connection_not_found"]
    assert [problem["type"] for problem in problems] == [
        f"{prefix}/docs/errors#{code}" for code in wanted
    ]
    for problem in problems:
        assert f'<h2 id="{problem["code"]}">{problem["title"]}</h2>' in page
    assert (nothing["type"], nothing["title"]) == ("about:blank", "Not Found")


async def test_every_code_is_explained_on_one_page(http: Serve) -> None:
    async with http() as server:
        page = (await server.client.get("/docs/errors")).text

    assert re.findall('<h2 id="([a-z_]+)">', page) == [*codes(), *REFUSED]


async def test_a_command_on_the_page_of_the_routes_works(http: Serve) -> None:
    async with http() as server:
        page = (await server.client.get("/docs")).text
        commands = [
            unescape(each)
            for each in re.findall(r'<pre[^>]*"Command for[^>]*>(.*?)</pre>', page, re.DOTALL)
        ]
        seen = await get(server.client, f"/connections/{IDLE}/state")
        own = {
            "URL": server.url,
            "TOKEN": server.new_token(),
            "CONNECTION_ID": IDLE,
            "FROM": seen["version"],
        }
        answers = [
            json.loads((await anyio.run_process(["sh", "-c", each], env=os.environ | own)).stdout)
            for each in commands
            if "/connections" in each or "/state/get" in each
        ]

    assert len(answers) == 6
    assert [answer for answer in answers if "code" in answer] == []
