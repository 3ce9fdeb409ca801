"""LangChain's tools of an MCP server."""

import asyncio
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

from tests.clients.conversation import converse, server


async def main() -> None:
    connection = {"transport": "stdio", **server()}
    async with MultiServerMCPClient({"server": connection}).session("server") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}

        async def call(name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
            message = await tools[name].ainvoke(
                {"type": "tool_call", "id": "1", "name": name, "args": arguments}
            )
            (block,) = message.content
            return message.status == "error", block["text"]

        shown = [convert_to_openai_tool(tool)["function"] for tool in tools.values()]
        await converse(shown, call)


asyncio.run(main())
