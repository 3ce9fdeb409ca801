"""A client of the Tasks extension, built with the SDK's support for extensions."""

from collections.abc import Sequence
from typing import Any, Literal

import anyio
from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.session import ClientSession
from mcp_types import CallToolResult, InputResponses, Request, RequestParams, Result
from pydantic import ConfigDict, Field

from tests.support.calls import until

IDENTIFIER = "io.modelcontextprotocol/tasks"
METHODS = ("tasks/get", "tasks/update", "tasks/cancel")

Fields = dict[str, Any]


class _Params(RequestParams):
    task_id: str
    input_responses: Fields = Field(default_factory=dict)


class _Request(Request[_Params, str]):
    name_param = "taskId"


class _Answer(Result):
    model_config = ConfigDict(extra="allow")

    @property
    def fields(self) -> Fields:
        return self.model_dump(mode="json", by_alias=True, exclude={"meta"})


class _Created(_Answer):
    result_type: Literal["task"]


class FollowsTasks(ClientExtension):
    """Declares the extension, and polls a task until its result, as a host would."""

    identifier = IDENTIFIER

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=_Created, resolve=self._resolve)]

    async def _resolve(self, created: _Created, context: ClaimContext) -> CallToolResult:
        ended = await _ended(context.session, created.fields["taskId"])
        return CallToolResult.model_validate(ended["result"])


async def ask(client: Client, method: str, task_id: str) -> Fields:
    """The server's answer to `tasks/...`; raises `MCPError`."""
    return await _ask(client.session, method, task_id)


async def task_of(
    client: Client,
    *,
    answers: InputResponses | None = None,
    request_state: str | None = None,
    tool: str = "update_state",
    **arguments: Any,
) -> Fields:
    """The task that the tool answers with; fails the test if the answer is something else or
    late.

    With `answers` and `request_state` this is the second round of a call.
    """
    with anyio.fail_after(15):
        result = await client.session.call_tool(
            tool,
            arguments,
            input_responses=answers,
            request_state=request_state,
            allow_claimed=True,
        )
    assert isinstance(result, _Created), result
    return result.fields


async def ended_task(client: Client, task_id: str) -> Fields:
    """The task when it has ended; fails the test after 30 s."""
    return await _ended(client.session, task_id)


async def _ask(session: ClientSession, method: str, task_id: str) -> Fields:
    request = _Request(method=method, params=_Params(task_id=task_id))
    return (await session.send_request(request, _Answer)).fields


async def _ended(session: ClientSession, task_id: str) -> Fields:
    async def ended() -> Fields | None:
        task = await _ask(session, "tasks/get", task_id)
        return None if task["status"] == "working" else task

    return await until(ended)
