"""The suite's tasks are updates of the sandbox, wherever an update can do what the suite wants.

The suite calls tools by its own names. Here such a call becomes a call of `update_state`, so the
product's Tasks extension, service and workflow handle it. Only two behaviours are simulated,
because no update has them: a question while it runs, and a failure of the protocol instead of the
tool.
"""

import itertools
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer, require_client_extension
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import ElicitRequest, ElicitRequestFormParams
from pydantic import BaseModel

from fivetran_state import state
from fivetran_state.sandbox import Sandbox

EXTENSION = "io.modelcontextprotocol/tasks"
STATE = '{"cursor":1}'

Context = ServerRequestContext[Any, Any]
Result = dict[str, Any]


class _User(BaseModel):
    name: str


def _ask_for_user() -> Elicit[_User]:
    return Elicit("Who are you?", _User)


def add_to(mcp: MCPServer[Any], sandbox: Sandbox) -> None:
    """Adds them to the product's server."""

    @mcp.tool()
    def greet(name: str) -> str:
        """Never a task."""
        return f"Hello, {name}!"

    @mcp.tool()
    def test_tool_with_task(user: Annotated[_User, Resolve(_ask_for_user)]) -> str:
        """Asks before it becomes a task."""
        return user.name

    # The server takes its middleware only when it is built; its lower level takes more later.
    mcp._lowlevel_server.middleware.append(_Tasks(sandbox))


class _Tasks:
    """Middleware: sees each request before the product's tools and tasks do."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._numbers = itertools.count(1)
        self._played: dict[str, _Played] = {}

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        params = dict(ctx.params or {})
        if ctx.method == "tools/call":
            return await self._call(ctx, params.get("name"), params.get("arguments", {}), call_next)
        played = self._played.get(params.get("taskId", ""))
        if played is None:
            return await call_next(ctx)
        return played.answer(ctx.method, params)

    async def _call(
        self, ctx: Context, tool: str | None, arguments: dict[str, Any], call_next: CallNext
    ) -> HandlerResult:
        match tool:
            case "slow_compute":
                return await call_next(self._update(ctx, drain_seconds=arguments["seconds"]))
            case "failing_job":
                require_client_extension(ctx, EXTENSION)
                # The stopped sync moves the cursor as it stops: a conflict.
                moved = self._update(ctx, drain_seconds=0.5, stopped_sync_counts=True)
                return await call_next(moved)
            case "test_tool_with_task":
                answer = await call_next(ctx)
                assert isinstance(answer, dict)
                if answer["resultType"] == "input_required":
                    return answer
                return await call_next(self._update(ctx, user=answer["content"][0]["text"]))
            case "protocol_error_job":
                return self._play(error={"code": -32603, "message": "Broken"})
            case "confirm_delete":
                return self._play("confirm")
            case "multi_input":
                return self._play("first", "second")
        return await call_next(ctx)

    def _update(
        self,
        ctx: Context,
        *,
        user: str = "nobody",
        drain_seconds: float = 0,
        stopped_sync_counts: bool = False,
    ) -> Context:
        """The same request, for an update of a connection that was not used yet."""
        connection_id = f"connection_{next(self._numbers)}"
        self._sandbox.add_connection(
            connection_id,
            state=STATE,
            sync_seconds=3600,
            drain_seconds=drain_seconds,
            stopped_sync_counts=stopped_sync_counts,
        )
        if drain_seconds:
            self._sandbox.start_sync(connection_id)
        arguments = {
            "connection_id": connection_id,
            "merge_patch": {"user": user},
            "expected_version": state.version(state.parse(STATE)),
        }
        named = {"name": "update_state", "arguments": arguments}
        answers = ("inputResponses", "requestState")
        kept = {key: value for key, value in (ctx.params or {}).items() if key not in answers}
        return replace(ctx, params=kept | named)

    def _play(self, *questions: str, error: dict[str, Any] | None = None) -> Result:
        played = _Played(f"played_{next(self._numbers)}", set(questions), error)
        self._played[played.task_id] = played
        return {**played.fields, "status": "working", "resultType": "task"}


@dataclass
class _Played:
    """A task that fails, or is completed by the answer to its last question."""

    task_id: str
    questions: set[str]
    error: dict[str, Any] | None
    is_cancelled: bool = field(default=False, init=False)

    @property
    def fields(self) -> Result:
        moment = "2026-11-23T00:00:00Z"
        return {
            "taskId": self.task_id,
            "createdAt": moment,
            "lastUpdatedAt": moment,
            "ttlMs": None,
        }

    def answer(self, method: str, params: dict[str, Any]) -> Result:
        if method == "tasks/get":
            return {**self.fields, **self._status(), "resultType": "complete"}
        if method == "tasks/update":
            self.questions -= params["inputResponses"].keys()
        if method == "tasks/cancel":
            self.is_cancelled = True
        return {"resultType": "complete"}

    def _status(self) -> Result:
        if self.is_cancelled:
            return {"status": "cancelled"}
        if self.error is not None:
            return {"status": "failed", "error": self.error}
        if self.questions:
            schema = {"type": "object", "properties": {}}
            request = ElicitRequest(
                params=ElicitRequestFormParams(message="Well?", requested_schema=schema)
            ).model_dump(mode="json", by_alias=True, exclude_none=True)
            return {
                "status": "input_required",
                "inputRequests": dict.fromkeys(self.questions, request),
            }
        return {"status": "completed", "result": {"content": []}}
