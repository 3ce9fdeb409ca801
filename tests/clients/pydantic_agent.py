"""The tools of an MCP server in pydantic-ai, as it shows them to OpenAI's models."""

import asyncio
import json
from typing import Any

from fastmcp.client.transports import StdioTransport
from pydantic_ai import ModelRetry, RunContext, ToolReturn
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.test import TestModel
from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer
from pydantic_ai.usage import RunUsage

from tests.clients.conversation import converse, server


def _as_shown(schema: dict[str, Any], *, strict: bool | None) -> dict[str, Any]:
    transformed: dict[str, Any] = OpenAIJsonSchemaTransformer(schema, strict=strict).walk()
    return transformed


async def main() -> None:
    context: RunContext[None] = RunContext(deps=None, model=TestModel(), usage=RunUsage())
    async with MCPToolset(StdioTransport(**server()), init_timeout=60) as toolset:
        tools = await toolset.get_tools(context)

        async def call(name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
            tool = tools[name]
            valid = tool.args_validator.validate_python(arguments)
            try:
                answer = await toolset.call_tool(name, valid, context, tool)
            except ModelRetry as error:
                return True, error.message
            if isinstance(answer, ToolReturn):  # With what an App gets, which no model reads.
                answer = answer.return_value
            return False, json.dumps(answer)

        definitions = [tool.tool_def for tool in tools.values()]
        shown = [
            {
                "name": definition.name,
                "parameters": _as_shown(definition.parameters_json_schema, strict=None),
                "strictest": _as_shown(definition.parameters_json_schema, strict=True),
            }
            for definition in definitions
        ]
        await converse(shown, call)


asyncio.run(main())
