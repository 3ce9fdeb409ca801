"""The tools of an MCP server in OpenAI's Agents SDK, called as the lines on stdin say; see `libraries.py`."""

import asyncio
import json
import sys

from agents.mcp import MCPServerStdio, MCPUtil
from agents.tool_context import ToolContext


async def main() -> None:
    async with MCPServerStdio(json.loads(sys.argv[1]), client_session_timeout_seconds=60) as server:
        tools = {
            tool.name: MCPUtil.to_function_tool(tool, server, convert_schemas_to_strict=True)
            for tool in await server.list_tools()
        }
        schemas = [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.params_json_schema,
                "strict": tool.strict_json_schema,
            }
            for tool in tools.values()
        ]
        print(json.dumps(schemas), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, arguments = json.loads(line)
            text = json.dumps(arguments)
            context = ToolContext(None, tool_name=name, tool_call_id="1", tool_arguments=text)
            output = await tools[name].on_invoke_tool(context, text)
            # This library does not tell the model's code whether a result is an error.
            print(json.dumps([None, output["text"]]), flush=True)


asyncio.run(main())
