"""The tools of an MCP server in Google's GenAI SDK, which converts them to Gemini's schemas."""

import asyncio
from typing import Any

from google.genai._adapters import McpToGenAiToolAdapter
from google.genai.types import FunctionCall
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.clients.conversation import converse, server


async def main() -> None:
    async with (
        stdio_client(StdioServerParameters(**server())) as streams,
        ClientSession(*streams) as session,
    ):
        await session.initialize()
        adapter = McpToGenAiToolAdapter(session, await session.list_tools())

        async def call(name: str, arguments: dict[str, Any]) -> tuple[bool, str]:
            result = await adapter.call_tool(FunctionCall(name=name, args=arguments))
            return result.is_error, result.content[0].text

        shown = []
        for tool in adapter.tools:
            (declaration,) = tool.function_declarations
            schema = declaration.parameters.json_schema.model_dump(
                mode="json", by_alias=True, exclude_none=True
            )
            shown.append({"name": declaration.name, "parameters": schema})
        await converse(shown, call)


asyncio.run(main())
