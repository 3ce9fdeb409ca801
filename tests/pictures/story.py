"""A real update on the sandbox, as the program's messages to the user show it."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import ElicitRequestParams, ElicitResult

from fivetran_state.sandbox import Fault, Sandbox
from fivetran_state.sandbox.server import SandboxServer

CONNECTION = "speak_inexpensive"
STATE = '{"orders":{"cursor":"2026-01-09T06:00:00Z"},"customers":{"cursor":"2026-01-08T12:00:00Z"}}'
CALL: dict[str, Any] = {
    "connection_id": CONNECTION,
    "merge_patch": {"orders": {"cursor": "2026-01-01T00:00:00Z"}},
    "then_sync": True,
}
_FOR_EVER = 1e9


@dataclass(frozen=True)
class Story:
    question: str
    progress: list[str]
    """The messages, each with the progress of the update: `2/7 Pausing the connection.`"""


async def tell(data: Path) -> Story:
    """Requests the update, agrees to it, and follows it to its end; `data` is an empty directory."""
    sandbox = Sandbox()
    sandbox.set_state(CONNECTION, STATE)
    sandbox.world.change(
        CONNECTION,
        lambda syncing, now: replace(
            syncing, sync_seconds=_FOR_EVER, drain_seconds=_FOR_EVER
        ).started(now),
    )
    with SandboxServer(sandbox) as fivetran:
        server = StdioServerParameters(
            command=sys.executable,
            args=["-m", "fivetran_state"],
            env={
                "FIVETRAN_API_KEY": "sandbox",
                "FIVETRAN_API_SECRET": "sandbox",
                "FIVETRAN_API_URL": fivetran.url,
                "FIVETRAN_STATE_DATA_DIR": str(data),
                "FIVETRAN_STATE_LOG_LEVEL": "ERROR",
            },
        )
        user = _User(sandbox)
        with anyio.fail_after(60):
            async with Client(server, elicitation_callback=user.agree) as client:
                result = await client.call_tool("update_state", CALL, progress_callback=user.hear)
    sandbox.close()
    assert result.structured_content is not None, result.content
    assert result.structured_content["status"] == "updated", result.content
    (question,) = user.questions
    return Story(question, user.progress)


class _User:
    """Agrees to the update, and holds each call to Fivetran until the message for it has come. The
    server does not send a message if the next one comes first."""

    _HELD = (
        ("Looking at", "PATCH", ""),
        ("Pausing", "GET", ""),
        ("Waiting for the running sync", "PATCH", "/state"),
        ("Writing", "GET", "/state"),
        ("Reading", "PATCH", ""),
        ("Putting", "POST", "/sync"),
    )
    """The beginning of each message, and the call that is held until the next message."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._held: Fault | None = None
        self.questions: list[str] = []
        self.progress: list[str] = []

    async def agree(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        self.questions.append(params.message)
        # The answer repeats the plan, with the same calls as before.
        made = sum(
            request.connection_id == CONNECTION and not request.path.endswith("/state")
            for request in self._sandbox.log
        )
        self._hold("GET", "", skip=made)
        return ElicitResult(action="accept", content={})

    async def hear(self, progress: float, total: float | None, message: str | None) -> None:
        assert message is not None
        assert total is not None
        self.progress.append(f"{progress:g}/{total:g} {message}")
        if message.startswith("Waiting for the running sync"):
            self._sandbox.finish_sync(CONNECTION)
        released = self._held
        for start, method, path in self._HELD:
            if message.startswith(start):
                self._hold(method, path)
        if released is not None:
            released.release()

    def _hold(self, method: str, path: str, skip: int = 0) -> None:
        self._held = self._sandbox.fault(
            "hang", method=method, path=f"/{CONNECTION}{path}$", skip=skip
        )
