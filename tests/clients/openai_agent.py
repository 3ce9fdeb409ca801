"""The tools of an MCP server in OpenAI's Agents SDK, with strict schemas where it can make them."""

import asyncio
import json
from typing import Any

from agents.mcp import MCPServerStdio, MCPUtil
from agents.tool_context import ToolContext

from tests.clients.conversation import converse, server


async def main() -> None:
    async with MCPServerStdio(server(), client_session_timeout_seconds=60) as connection:
        tools = {
            tool.name: MCPUtil.to_function_tool(tool, connection, convert_schemas_to_strict=True)
            for tool in await connection.list_tools()
        }

        async def call(name: str, arguments: dict[str, Any]) -> tuple[None, str]:
            text = json.dumps(arguments)
            context = ToolContext(None, tool_name=name, tool_call_id="1", tool_arguments=text)
            output = await tools[name].on_invoke_tool(context, text)
            # This library does not tell the model's code whether a result is an error.
            return None, output["text"]

        shown = [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.params_json_schema,
                "strict": tool.strict_json_schema,
            }
            for tool in tools.values()
        ]
        await converse(shown, call)


asyncio.run(main())
