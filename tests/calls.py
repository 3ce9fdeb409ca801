"""What tests say to a server, and what they ask of the sandbox's log."""

import json
from pathlib import Path
from typing import Any

from mcp import Client
from mcp_types import TextContent

from fivetran_state.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
API_KEY = "key-for-tests"
API_SECRET = "secret-that-must-never-be-seen"

IDLE = "bullion_shutdown"
PAUSED = "gentle_harbour"
SYNCING = "speak_inexpensive"
EMPTY = "quiet_meadow"
LARGE = "vast_library"
EXACT = "exact_ledger"
RESCHEDULED = "late_ferry"
STATELESS = "postgres_mirror"


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """A tool's structured result; fails the test if the tool answers an error."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The error that a tool answers; fails the test if it answers none."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.content
    assert isinstance(result.content[0], TextContent)
    error: dict[str, Any] = json.loads(result.content[0].text)
    assert error["code"]
    assert error["message"]
    assert error["hint"]
    return error


async def version_of(client: Client, connection_id: str) -> str:
    version: str = (await call(client, "get_state", connection_id=connection_id))["version"]
    return version


def api_calls(sandbox: Sandbox, connection_id: str, since: int = 0) -> list[str]:
    """What was asked of Fivetran about one connection: 'GET', 'PATCH', 'GET state', 'PATCH state'."""
    return [
        f"{request.method}{' state' if request.path.endswith('/state') else ''}"
        for request in sandbox.log[since:]
        if request.connection_id == connection_id
    ]


def state_of(sandbox: Sandbox, connection_id: str) -> Any:
    text = sandbox.connection(connection_id).state
    return None if text is None else json.loads(text)
