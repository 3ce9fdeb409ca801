"""The tools of an MCP server in CrewAI, which starts the server again for each call."""

import asyncio
from typing import Any

from crewai.mcp import MCPServerStdio, MCPToolResolver
from crewai.utilities.logger import Logger

from tests.clients.conversation import converse, server

resolver = MCPToolResolver(None, Logger())
tools = {tool.original_tool_name: tool for tool in resolver.resolve([MCPServerStdio(**server())])}


async def call(name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
    answer = tools[name].run(**arguments)
    return (False, answer) if isinstance(answer, str) else (True, answer.message)


shown = [
    {"name": name, "parameters": tool.args_schema.model_json_schema()}
    for name, tool in tools.items()
]
asyncio.run(converse(shown, call))
