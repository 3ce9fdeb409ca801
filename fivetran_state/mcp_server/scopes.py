"""A token's scopes in the protocol: hidden tools and refused methods.

On stdio the caller is the user of this machine and may do everything. On HTTP the gate has put the
scopes on the request; a request without scopes may do nothing.
"""

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp_types import INVALID_REQUEST

from fivetran_state.access import WITHOUT_TOKEN, WRITE, Principal, demand, working_for
from fivetran_state.errors import InsufficientScope

WRITING_METHODS = frozenset({"tasks/cancel"})
"""The protocol's methods, other than tools, that change something at Fivetran."""

_UNKNOWN = Principal("anonymous", ())
"""The sender of a request that no gate has let in."""

RequestContext = ServerRequestContext[Any, Any]


def held(context: RequestContext) -> Collection[str]:
    """The scopes of this message's sender."""
    return WITHOUT_TOKEN if context.request is None else context.request.auth.scopes


async def within_scopes(ctx: RequestContext, call_next: CallNext) -> HandlerResult:
    """Middleware: hides the tools that the caller may not call (`StrictTool` refuses them), and
    refuses `WRITING_METHODS`."""
    if ctx.request_id is None:  # A notification calls no method, even if it has the name of one.
        return await call_next(ctx)
    if ctx.method in WRITING_METHODS:
        try:
            demand(WRITE, held(ctx), ctx.method)
        except InsufficientScope as error:
            raise MCPError(INVALID_REQUEST, error.message, error.to_json()) from None
    with ExitStack() as stack:
        if ctx.request is not None:
            # A session's messages are handled in a task of its own.
            caller = ctx.request.scope.get("principal", _UNKNOWN)
            stack.enter_context(working_for(caller))
        result = await call_next(ctx)
    if ctx.method == "tools/list" and WRITE not in held(ctx):
        assert isinstance(result, dict)
        result["tools"] = [
            tool for tool in result["tools"] if tool["annotations"].get("readOnlyHint")
        ]
    return result
