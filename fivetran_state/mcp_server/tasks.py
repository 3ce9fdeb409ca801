"""The Tasks extension of MCP: a running update is answered with a task to follow.

The task is the workflow, and its id is the workflow's id. So it outlives this process, and nothing
is stored here. Only clients that declare the extension get tasks. Specification:
https://github.com/modelcontextprotocol/ext-tasks
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Extension, MethodBinding, require_client_extension
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolRequestParams,
    CallToolResult,
    RequestParams,
)

from fivetran_state.errors import (
    AlreadyDecided,
    Cancelled,
    FivetranStateError,
    InvalidRequest,
    NotAllowed,
    TooLateToCancel,
    WorkflowNotFound,
)
from fivetran_state.mcp_server.confirmation import asking_to_open, can_open
from fivetran_state.mcp_server.strict import error_result, success_result
from fivetran_state.pages import Pages
from fivetran_state.startup import Backend

if TYPE_CHECKING:
    from fivetran_state.models import Update, UpdatesView
    from fivetran_state.service.views import Task

    AnyTask: TypeAlias = Task[Update] | Task[UpdatesView]

IDENTIFIER = "io.modelcontextprotocol/tasks"
PROTOCOL_VERSIONS = frozenset({"2026-07-28"})
POLL_INTERVAL_MS = 1000

RequestContext = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    task_id: str


class UpdateTaskParams(TaskParams):
    input_responses: dict[str, Any]


class Tasks(Extension):
    """Pass it to the server as an extension, and `check_subscription` as middleware."""

    identifier = IDENTIFIER

    def __init__(self, backend: Backend, pages: Pages) -> None:
        self._backend = backend
        self._pages = pages

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get, PROTOCOL_VERSIONS),
            MethodBinding("tasks/update", UpdateTaskParams, self._update, PROTOCOL_VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, PROTOCOL_VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: RequestContext, call_next: CallNext
    ) -> HandlerResult:
        if params.name not in ("update_state", "update_states") or not gets_tasks(ctx):
            return await call_next(ctx)
        if params.arguments is not None:
            # A client that can follow a task does not need to wait within the call.
            params.arguments["wait_seconds"] = 0
        result = await call_next(ctx)
        workflow_id = _unfinished(result)
        if workflow_id is None:
            return result
        async with _protocol_errors():
            service = await self._backend.service()
            task = await service.by_id.task(workflow_id)
        fields = self._fields(ctx, task)
        if fields["status"] not in ("working", "input_required"):
            return _result(task)
        fields.pop("inputRequests", None)  # They belong to `tasks/get` alone.
        return {"resultType": "task", **fields}

    async def check_subscription(self, ctx: RequestContext, call_next: CallNext) -> HandlerResult:
        """Refuse to listen to tasks without the extension: the SDK would allow it."""
        if ctx.method == "subscriptions/listen" and ctx.request_id is not None:
            wanted = (ctx.params or {}).get("notifications")
            if isinstance(wanted, Mapping) and "taskIds" in wanted:
                require_client_extension(ctx, self.identifier)
        return await call_next(ctx)

    async def _get(self, ctx: RequestContext, params: TaskParams) -> HandlerResult:
        task = await self._task(ctx, params)
        fields = self._fields(ctx, task)
        if fields["status"] == "completed":
            result = _result(task).model_dump(mode="json", by_alias=True, exclude_none=True)
            return {**fields, "result": result}
        return fields

    async def _update(self, ctx: RequestContext, params: UpdateTaskParams) -> HandlerResult:
        # Nothing waits for the response to a page that was opened: what decides is what is done there.
        await self._task(ctx, params)
        return {}

    async def _cancel(self, ctx: RequestContext, params: TaskParams) -> HandlerResult:
        task = await self._task(ctx, params)
        workflow_id = _unfinished(_result(task))
        if workflow_id is None:
            return {}
        async with _protocol_errors():
            service = await self._backend.service()
            with suppress(TooLateToCancel, AlreadyDecided):
                await service.by_id.cancel(workflow_id)
        return {}

    async def _task(self, ctx: RequestContext, params: TaskParams) -> "AnyTask":
        """The requested task, if this client may see it."""
        require_client_extension(ctx, self.identifier)
        _check_name_header(ctx, params.task_id)
        async with _protocol_errors():
            service = await self._backend.service()
            try:
                return await service.by_id.task(params.task_id)
            except (WorkflowNotFound, InvalidRequest, NotAllowed):
                # The same answer for all: otherwise it would reveal hidden connections.
                raise MCPError(INVALID_PARAMS, "There is no such task.") from None

    def _fields(self, ctx: RequestContext, task: "AnyTask") -> dict[str, Any]:
        fields: dict[str, Any] = {
            "taskId": task.workflow_id,
            "status": _status(task),
            "statusMessage": task.message,
            "createdAt": task.created_at,
            "lastUpdatedAt": task.updated_at,
            "ttlMs": task.kept_ms,
            "pollIntervalMs": POLL_INTERVAL_MS,
        }
        if not isinstance(task.answer, FivetranStateError) and task.answer.status == "proposed":
            page = self._pages.proposal(task.workflow_id)
            if page is not None and can_open(ctx.session.client_capabilities):
                request = asking_to_open(page).model_dump(
                    mode="json", by_alias=True, exclude_none=True
                )
                fields |= {"status": "input_required", "inputRequests": {"approval": request}}
        return fields


def gets_tasks(ctx: RequestContext) -> bool:
    """True if this client declares that it follows tasks."""
    capabilities = ctx.session.client_capabilities
    return (
        ctx.protocol_version in PROTOCOL_VERSIONS
        and capabilities is not None
        and IDENTIFIER in (capabilities.extensions or {})
    )


def _unfinished(result: HandlerResult) -> str | None:
    """The workflow id, if the tool's answer is an update that runs or waits for approval."""
    content = result.structured_content if isinstance(result, CallToolResult) else None
    if isinstance(content, dict) and content.get("status") in ("running", "proposed"):
        return str(content["workflow_id"])
    return None


def _status(task: "AnyTask") -> str:
    # An error is the tool's result; "failed" is for errors of the protocol.
    if isinstance(task.answer, FivetranStateError):
        return "cancelled" if isinstance(task.answer, Cancelled) else "completed"
    if task.answer.status == "withdrawn":
        return "cancelled"
    return "working" if task.answer.status in ("running", "proposed") else "completed"


def _result(task: "AnyTask") -> CallToolResult:
    """The result that the tool would return now."""
    if isinstance(task.answer, FivetranStateError):
        return error_result(task.answer)
    return success_result(task.answer)


def _check_name_header(ctx: RequestContext, task_id: str) -> None:
    """Check that the routing header names the requested task. The SDK checks only its own methods."""
    if ctx.request is None:
        return
    if decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not name the task")


@asynccontextmanager
async def _protocol_errors() -> AsyncIterator[None]:
    try:
        yield
    except FivetranStateError as error:
        code = INVALID_REQUEST if isinstance(error, NotAllowed) else INTERNAL_ERROR
        raise MCPError(code, f"{error.message} {error.hint}", {"code": error.code}) from None
