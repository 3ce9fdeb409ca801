"""The tools of an MCP server in smolagents."""

import asyncio
from typing import Any

from mcp import StdioServerParameters
from smolagents import ToolCollection
from smolagents.models import get_tool_json_schema

from tests.clients.conversation import converse, server

parameters = StdioServerParameters(**server())
with ToolCollection.from_mcp(
    parameters, trust_remote_code=True, structured_output=False
) as collection:
    tools = {tool.name: tool for tool in collection.tools}

    async def call(name: str, arguments: dict[str, Any]) -> tuple[None, str]:
        # This library does not tell whether a result is an error.
        return None, tools[name](**arguments)

    shown = [get_tool_json_schema(tool)["function"] for tool in tools.values()]
    asyncio.run(converse(shown, call))
