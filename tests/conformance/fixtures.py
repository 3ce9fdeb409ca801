"""Tools and a resource that the official suite calls by names of its own."""

from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp_types import CreateMessageResult, SamplingMessage, TextContent
from pydantic import BaseModel, Field


class _Answer(BaseModel):
    answer: str


def _ask() -> Elicit[_Answer]:
    return Elicit("What is the answer?", _Answer)


def _sample() -> Sample:
    question = TextContent(type="text", text="What is the answer?")
    return Sample([SamplingMessage(role="user", content=question)], max_tokens=10)


def add_to(mcp: MCPServer[Any]) -> None:
    """Adds them to the product's server."""

    # server-stateless

    @mcp.tool()
    def test_missing_capability(
        answer: Annotated[CreateMessageResult, Resolve(_sample)],
    ) -> str:
        """Needs a client that samples."""
        return str(answer)

    @mcp.tool()
    def test_streaming_elicitation(answer: Annotated[_Answer, Resolve(_ask)]) -> str:
        """Asks a human."""
        return answer.answer

    @mcp.tool()
    async def test_logging_tool(context: Context[Any, Any]) -> str:
        """Logs to the client, if the client wants it."""
        await context.info("a line")
        return "logged"

    @mcp.tool()
    async def test_trigger_tool_change(context: Context[Any, Any]) -> str:
        """Says that the list of tools has changed."""
        await context.notify_tools_changed()
        return "changed"

    @mcp.tool()
    async def test_trigger_prompt_change(context: Context[Any, Any]) -> str:
        """Says that the list of prompts has changed."""
        await context.notify_prompts_changed()
        return "changed"

    # http-custom-header-server-validation

    @mcp.tool()
    def test_header(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
    ) -> str:
        """Takes an argument that is a header too."""
        return region

    # caching

    @mcp.resource("test://resource")
    def test_resource() -> str:
        """Can be read."""
        return "text"
