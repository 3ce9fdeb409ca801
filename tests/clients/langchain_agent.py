"""LangChain's tools of an MCP server, called as the lines on stdin say; see `libraries.py`."""

import asyncio
import json
import sys

from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools


async def main() -> None:
    connection = {"transport": "stdio", **json.loads(sys.argv[1])}
    async with MultiServerMCPClient({"server": connection}).session("server") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}
        schemas = [convert_to_openai_tool(tool)["function"] for tool in tools.values()]
        print(json.dumps(schemas), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, arguments = json.loads(line)
            message = await tools[name].ainvoke(
                {"type": "tool_call", "id": "1", "name": name, "args": arguments}
            )
            (block,) = message.content
            print(json.dumps([message.status == "error", block["text"]]), flush=True)


asyncio.run(main())
