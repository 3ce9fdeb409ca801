"""`/docs`: the REST routes as a page, made from the OpenAPI document, and the errors as another.

They need no token, as they contain only what is in this project's source.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from fivetran_state.http_server.authority import Authority
from fivetran_state.http_server.gate import PAGE
from fivetran_state.http_server.page import Pages
from fivetran_state.http_server.paths import ERRORS
from fivetran_state.http_server.problems import Problem, kinds, with_routes

EXAMPLES = Path(__file__).with_name("examples.json")
"""Answers of each operation by status, as a server has given them; under `problems`, one for each
status."""


@dataclass(frozen=True)
class Value:
    """One value that a route takes: a parameter, or a member of its body."""

    name: str
    place: str
    """`path`, `query`, `header` or `body`."""
    kind: str
    is_required: bool
    description: str


@dataclass(frozen=True)
class Operation:
    """One route, as the page shows it."""

    id: str
    method: str
    path: str
    description: str
    values: list[Value]
    answers: dict[str, str]
    examples: dict[str, str]
    """Answers by their status, as JSON text."""
    command: str
    """A shell command that calls it; `$URL` and `$TOKEN` are the reader's."""


def routes(app: FastAPI, pages: Pages) -> list[BaseRoute]:
    """The pages of this app's routes and errors."""

    async def show(_: Request) -> Response:
        described = app.openapi()
        return pages.answer(
            "routes.html", here="rest", groups=operations(described), needs=described["security"]
        )

    async def show_errors(_: Request) -> Response:
        return pages.answer("errors.html", here="rest", errors=kinds())

    return [Route(PAGE, show), Route(ERRORS, show_errors)]


def operations(described: dict[str, Any]) -> dict[str, list[Operation]]:
    """The routes of an OpenAPI document, by their tag."""
    groups: dict[str, list[Operation]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            found = _operation(described, method.upper(), path, operation)
            groups.setdefault(operation["tags"][0], []).append(found)
    return groups


def _operation(
    described: dict[str, Any], method: str, path: str, operation: dict[str, Any]
) -> Operation:
    values = [
        Value(
            parameter["name"],
            parameter["in"],
            _kind(parameter["schema"]),
            parameter["required"],
            _description(parameter | parameter["schema"]),
        )
        for parameter in operation.get("parameters", [])
    ]
    example = None
    if "requestBody" in operation:
        body = _resolved(described, operation["requestBody"]["content"]["application/json"])
        example = body["examples"][0]
        values += [
            Value(name, "body", _kind(member), name in body["required"], _description(member))
            for name, member in body["properties"].items()
        ]
    return Operation(
        operation["operationId"],
        method,
        path,
        operation["description"],
        values,
        {status: answer["description"] for status, answer in operation["responses"].items()},
        {
            status: json.dumps(media["example"], indent=2)
            for status, answer in operation["responses"].items()
            for media in answer.get("content", {}).values()
            if "example" in media
        },
        _command(method, path, values, example),
    )


def _resolved(described: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    name = content["schema"]["$ref"].rpartition("/")[2]
    schema: dict[str, Any] = {"required": [], **described["components"]["schemas"][name]}
    return schema


def _kind(schema: dict[str, Any]) -> str:
    """The type of a value in words: `string`, `list of string`, `read or write`."""
    if "anyOf" in schema:
        kinds = [_kind(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _description(schema: dict[str, Any]) -> str:
    """What the document says of a value, which may stand in one of its types."""
    within = (each.get("description", "") for each in schema.get("anyOf", []))
    return schema.get("description") or next(filter(None, within), "")


def _command(method: str, path: str, values: list[Value], example: object) -> str:
    address = re.sub(r"\{(\w+)\}", lambda found: f"${found[1].upper()}", path)
    asked = [each.name for each in values if each.place == "query" and each.is_required]
    if asked:
        address += "?" + "&".join(f"{name}=${name.upper()}" for name in asked)
    lines = [f'curl "$URL{address}" -H "Authorization: Bearer $TOKEN"']
    if method != "GET":
        lines[0] += f" -X {method} -H 'Content-Type: application/json'"
    if example is not None:
        lines.append(f"-d {shlex.quote(json.dumps(example))}")
    return " \\\n  ".join(lines)


def describe(app: FastAPI, authority: Authority) -> None:
    """Add examples, the problems and the authentication to the OpenAPI document."""
    plain = app.openapi

    def complete() -> dict[str, Any]:
        # Here, because few servers are ever asked for the document.
        examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))
        described: dict[str, Any] = _with_routes(plain())
        for operation in _every_operation(described):
            operation["summary"] = _summary(operation["description"])
            answers = examples.get(operation["operationId"], {})
            _add_examples(operation["responses"], answers, examples["problems"])
        components = described["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema()
        components["examples"] = {
            status: {"value": problem} for status, problem in examples["problems"].items()
        }
        components["securitySchemes"] = {
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": (
                    "A token from `fivetran-state token create`, or from the OAuth issuer."
                ),
            }
        }
        return described | {"security": [{"token": []}] if authority.is_required() else []}

    app.openapi = complete  # type: ignore[method-assign]


def _add_examples(
    responses: dict[str, Any], answers: dict[str, Any], problems: dict[str, Any]
) -> None:
    for status, response in responses.items():
        for media in response.get("content", {}).values():
            if status in answers:
                media["example"] = answers[status]
            elif status in problems:
                media["examples"] = {status: {"$ref": f"#/components/examples/{status}"}}


def _every_operation(described: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in described["paths"].values() for operation in methods.values()]


def _summary(description: str) -> str:
    """The first sentence, or its part before a colon or semicolon, on one line."""
    return re.split(r"[.:;](?:\s|$)", description, maxsplit=1)[0].replace("\n", " ")


def _with_routes(described: Any) -> Any:
    """The OpenAPI document. Descriptions of the models name routes in place of tools."""
    if isinstance(described, list):
        return [_with_routes(item) for item in described]
    if not isinstance(described, dict):
        return described
    return {
        name: with_routes(value)
        if name == "description" and isinstance(value, str)
        else _with_routes(value)
        for name, value in described.items()
    }
