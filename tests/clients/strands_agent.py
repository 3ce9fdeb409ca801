"""The tools of an MCP server in Strands."""

import asyncio
from typing import Any

from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client
from strands.tools.mcp import MCPClient

from tests.clients.conversation import converse, server

parameters = StdioServerParameters(**server())
with MCPClient(lambda: stdio_client(parameters)) as client:
    tools = {tool.tool_name: tool for tool in client.list_tools_sync()}

    async def call(name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        use = {"toolUseId": "1", "name": name, "input": arguments}
        async for event in tools[name].stream(use, {}):
            result = event.tool_result
        return result["status"] == "error", result["content"][0]["text"]

    shown = [
        {"name": name, "parameters": tool.tool_spec["inputSchema"]["json"]}
        for name, tool in tools.items()
    ]
    asyncio.run(converse(shown, call))
