"""What the bundle's manifest and the registry's `server.json` say, and the rules for both."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tests.support.calls import ROOT

MANIFEST = ROOT / "bundle" / "manifest.json"
SERVER = ROOT / "server.json"


def manifest() -> dict[str, Any]:
    described: dict[str, Any] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return described


def semantic(version: str) -> str:
    """A version of Python's as semantic versioning spells it: 0.2.0.dev0 is 0.2.0-dev.0."""
    return re.sub(r"\.?(a|b|rc|dev)(\d+)$", r"-\1.\2", version)


def configuration(folder: str, **chosen: str) -> dict[str, Any]:
    """`command`, `args` and `env` as a host makes them of the manifest and the user's choices.

    As in the bundle's specification: booleans are spelt `true` and `false`.
    """
    described = manifest()
    values = {"__dirname": folder}
    for name, option in described["user_config"].items():
        default = option["default"]
        spelt = str(default).lower() if isinstance(default, bool) else default
        values[f"user_config.{name}"] = chosen.get(name, spelt)

    def filled(text: str) -> str:
        return re.sub(r"\$\{([\w.]+)\}", lambda found: values[found[1]], text)

    configured = described["server"]["mcp_config"]
    return {
        "command": configured["command"],
        "args": [filled(argument) for argument in configured["args"]],
        "env": {name: filled(value) for name, value in configured["env"].items()},
    }


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Transport(_Strict):
    type: Literal["stdio"]


class Variable(_Strict):
    name: str
    description: str
    format: Literal["string", "number", "boolean", "filepath"] = "string"
    default: str | None = None
    is_secret: bool = Field(False, alias="isSecret")
    is_required: bool = Field(False, alias="isRequired")


class Package(_Strict):
    registry_type: Literal["pypi"] = Field(alias="registryType")
    identifier: str
    version: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[0-9][0-9a-z.]*$")]
    runtime_hint: Literal["uvx"] = Field(alias="runtimeHint")
    transport: _Transport
    variables: list[Variable] = Field(alias="environmentVariables")


class Server(_Strict):
    """`server.json`, as far as we use it: the registry refuses what breaks one of these rules."""

    schema_: Literal[
        "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
    ] = Field(alias="$schema")
    name: Annotated[
        str, Field(min_length=3, max_length=200, pattern=r"^[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+$")
    ]
    title: Annotated[str, Field(min_length=1, max_length=100)]
    description: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[str, Field(max_length=255, pattern=r"^\d+\.\d+\.\d+(-[0-9a-z.]+)?$")]
    packages: list[Package]


def server() -> Server:
    """Raises `pydantic.ValidationError` if the registry would refuse it."""
    return Server.model_validate_json(SERVER.read_text(encoding="utf-8"))
