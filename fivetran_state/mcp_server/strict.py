"""Tools that read arguments exactly and answer every error as code, message and hint.

The SDK drops unknown arguments, and it parses text that looks like JSON with numbers as doubles. A
misspelt `expected_version` or a rounded cursor would go unnoticed. Agent libraries send null or
empty text for arguments that a model left out, and some add arguments of their own.
"""

import inspect
import json
import logging
from collections.abc import Callable
from functools import cache
from typing import Any, get_args

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp_types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import PrivateAttr, ValidationError

from fivetran_state import state
from fivetran_state.access import WRITE, demand
from fivetran_state.errors import (
    FivetranStateError,
    InsufficientScope,
    InternalError,
    InvalidRequest,
)
from fivetran_state.events import Events
from fivetran_state.mcp_server.scopes import held
from fivetran_state.models import ConnectionPage, HistoryPage, Model
from fivetran_state.validation import problems_of, unknown_arguments

logger = logging.getLogger(__name__)


class StrictTool(Tool):
    """One tool. Use `strict_tool` to create one."""

    _events: Events = PrivateAttr()

    def record_refusals(self, events: Events) -> None:
        """Record calls by callers who may not make them."""
        self._events = events

    async def run(
        self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False
    ) -> Any:
        try:
            self._demand_scope(arguments, context)
            return await super().run(self._given(arguments), context, convert_result)
        except (InsufficientScope, InvalidRequest) as error:
            return error_result(error)
        except ToolError as error:
            return error_result(self._explained(error))

    @property
    def _only_reads(self) -> bool:
        return self.annotations is not None and self.annotations.read_only_hint is True

    def _demand_scope(self, arguments: dict[str, Any], context: Context[Any, Any]) -> None:
        # Only a true that is certain counts: other values are not parsed as booleans yet.
        if not self._only_reads and arguments.get("dry_run") is not True:
            with self._events.refusing(connection=_connection_in(arguments)):
                demand(WRITE, held(context.request_context), self.name)

    def _given(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments without null and empty optional ones, which count as left out.

        If the tool writes, raises `InvalidRequest` for an unknown argument, which may be a misspelt
        condition. A tool that reads ignores it.
        """
        known, required = self.parameters["properties"], self.parameters.get("required", [])
        unknown = [name for name in arguments if name not in known]
        if unknown and not self._only_reads:
            raise InvalidRequest(f"{unknown_arguments(unknown, known)}. {self._takes}")
        return {
            name: value
            for name, value in arguments.items()
            if name in known and (name in required or (value is not None and value != ""))
        }

    @property
    def _takes(self) -> str:
        return f"{self.name} takes: {', '.join(self.parameters['properties'])}."

    def _explained(self, error: ToolError) -> FivetranStateError:
        cause = error.__cause__
        if isinstance(cause, FivetranStateError):
            return cause
        if isinstance(cause, ValidationError):
            return InvalidRequest(f"{problems_of(cause)}. {self._takes}")
        logger.error("Tool %s met an unexpected error", self.name, exc_info=error)
        return InternalError(f"{self.name} met an unexpected {type(cause).__name__}.")


def _connection_in(arguments: dict[str, Any]) -> str | None:
    given = arguments.get("connection_id")
    return given if isinstance(given, str) else None


class _Metadata(FuncMetadata):
    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        return data

    def convert_result(
        self, result: Model | InputRequiredResult
    ) -> CallToolResult | InputRequiredResult:
        """Pass a question on as it is."""
        return result if isinstance(result, InputRequiredResult) else success_result(result)


def strict_tool(
    function: Callable[..., Any],
    *,
    events: Events,
    annotations: ToolAnnotations,
    meta: dict[str, Any] | None = None,
) -> StrictTool:
    """The tool for this function. Its docstring is the description that a model reads."""
    tool = StrictTool.from_function(
        function,
        title=annotations.title,
        description=inspect.getdoc(function),
        annotations=annotations,
        meta=meta,
        # The SDK's schema of the output would be built for nothing: ours replaces it.
        structured_output=False,
    )
    tool.parameters = _compact(_for_adapters(tool.parameters))
    tool.fn_metadata = _Metadata(
        arg_model=tool.fn_metadata.arg_model, output_schema=_of_answers(function)
    )
    assert isinstance(tool, StrictTool)
    tool.record_refusals(events)
    return tool


def success_result(answer: Model) -> CallToolResult:
    """Compact JSON as text, and the same as structured content."""
    content = answer.to_json()
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=content)


def error_result(error: FivetranStateError) -> CallToolResult:
    """Code, message and hint as text."""
    # No structured content: clients validate it against the output schema even for an error.
    text = json.dumps(state.plain(error.to_json()), ensure_ascii=False)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _for_adapters(schema: Any) -> Any:
    """The schema with an empty schema instead of `"additionalProperties": true`.

    Both mean that an object is open. Google's client fails on the boolean, and pydantic-ai closes
    an object that has neither.
    """
    if isinstance(schema, list):
        return [_for_adapters(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {} if (key, value) == ("additionalProperties", True) else _for_adapters(value)
        for key, value in schema.items()
    }


def _of_answers(function: Callable[..., Any]) -> dict[str, Any]:
    """The schema of what the function returns: its fields, and those of the entries of a page.

    If it returns one of several models, the schema has the fields of all, and requires what all have.
    A model reads results, not this: so it has no descriptions, and nothing of what is deeper.
    """
    returned = inspect.signature(function).return_annotation
    models = [each for each in get_args(returned) or (returned,) if issubclass(each, Model)]
    properties: dict[str, Any] = {}
    required: list[set[str]] = []
    for model in models:
        fields = _fields_of(model)
        for name, field in fields["properties"].items():
            properties.setdefault(name, field)
        required.append(set(fields["required"]))
    by_all = set.intersection(*required)
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name in by_all],
    }


@cache
def _fields_of(model: type[Model]) -> dict[str, Any]:
    """The schemas of a model's fields. Several tools return the same model."""
    schema = _compact(_open(model.model_json_schema()))
    depth, defs = 2 if model in _PAGES else 0, schema.get("$defs", {})
    fields = schema["properties"].items()
    return {
        "properties": {name: _down_to(depth, field, defs) for name, field in fields},
        "required": schema["required"],
    }


def _down_to(depth: int, field: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field, without that of what is deeper in it."""
    field = defs[field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    kind = field.get("type")
    if kind not in ("array", "object"):
        return field
    if depth and kind == "array":
        return {"type": kind, "items": _down_to(depth - 1, field["items"], defs)}
    if depth and "properties" in field:
        inside = {
            name: _down_to(depth - 1, each, defs) for name, each in field["properties"].items()
        }
        return {"type": kind, "properties": inside, "required": field["required"]}
    return {"type": kind}


_PAGES = (ConnectionPage, HistoryPage)
_LEFT_OUT = {"additionalProperties", "enum", "const", "default", "description"}


def _open(schema: Any) -> Any:
    """The schema of a result, still valid when a later version adds a field or a status; without text."""
    if isinstance(schema, list):
        return [_open(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _open(value) for key, value in schema.items() if key not in _LEFT_OUT}


_SAYS_NOTHING = [("default", None), ("additionalProperties", True)]


def _compact(schema: Any) -> Any:
    """The schema without text that costs a model's context and has no meaning for it.

    Pydantic repeats every field's name as its title, and adds null to the types of each optional
    field. Two sets of words are two equal choices, once their words are left out.
    """
    if isinstance(schema, list):
        return [_compact(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    compact = {
        key: {name: _compact(field) for name, field in value.items()}
        if key in ("properties", "$defs")
        else _compact(value)
        for key, value in schema.items()
        if not (key == "title" or (key, value) in _SAYS_NOTHING)
    }
    choices: list[Any] = []
    for choice in compact.get("anyOf", []):
        if choice != {"type": "null"} and choice not in choices:
            choices.append(choice)
    if len(choices) == 1:
        del compact["anyOf"]
        return choices[0] | compact
    return compact | {"anyOf": choices} if choices else compact
