"""The tools of an MCP server in LlamaIndex."""

import asyncio
from typing import Any

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

from tests.clients.conversation import converse, server


async def main() -> None:
    parameters = server()
    client = BasicMCPClient(parameters["command"], parameters["args"], parameters["env"])
    tools = {tool.metadata.name: tool for tool in await McpToolSpec(client).to_tool_list_async()}

    async def call(name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
        output = (await tools[name].acall(**arguments)).raw_output
        return output.is_error, output.content[0].text

    await converse([tool.metadata.to_openai_tool()["function"] for tool in tools.values()], call)


asyncio.run(main())
