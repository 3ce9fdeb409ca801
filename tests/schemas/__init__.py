"""Each tool as `tools/list` returns it: clients rely on these files.

`python -m tests.schemas` writes them again.
"""

from pathlib import Path
from typing import Any

from mcp import Client

FOLDER = Path(__file__).parent


async def listed(client: Client) -> dict[str, dict[str, Any]]:
    """Each tool by its name, as it is on the wire."""
    tools = (await client.list_tools()).tools
    return {
        tool.name: tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools
    }
