"""Scopes: a token allows reading, or changes too; nobody can use another principal's objects."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult, InputRequiredResult

from fivetran_state.http_server.gate import requires
from fivetran_state.sandbox import Sandbox
from tests.conftest import ERAS, Serve
from tests.support.calls import (
    IDLE,
    SYNCING,
    api_calls,
    call,
    refused,
    state_of,
    sync_runs_on,
    version_of,
)
from tests.support.http_server import HttpServer, authorization
from tests.support.issuer import OAuthIssuer
from tests.support.tasks import FollowsTasks, ask, task_of

PATCH = {"cursor": "2020"}


@pytest.mark.parametrize("era", ERAS)
async def test_a_read_token_reads_and_plans_and_is_refused_every_tool_that_writes(
    http: Serve, sandbox: Sandbox, era: str
) -> None:
    async with http() as server:
        token, writing = server.new_token("read"), server.new_token("write")
        async with server.mcp(era, token=writing) as client:
            everything = (await client.list_tools()).tools
        async with server.mcp(era, token=token) as client:
            listed = [tool.name for tool in (await client.list_tools()).tools]
            version = await version_of(client, IDLE)
            change = {"connection_id": IDLE, "merge_patch": PATCH}
            plan = await call(client, "update_state", **change, dry_run=True)
            errors = [
                await refused(client, "update_state", **change, expected_version=version),
                await refused(client, "update_state", **change),
                # Text is parsed as a boolean, and this text as false.
                await refused(client, "update_state", **change, dry_run="no"),
                await refused(client, "cancel_update", workflow_id=f"{IDLE}:1"),
            ]

    writers = {
        tool.name
        for tool in everything
        if not (tool.annotations and tool.annotations.read_only_hint)
    }
    assert {"update_state", "cancel_update"} <= writers
    assert set(listed) == {tool.name for tool in everything} - writers
    assert plan["status"] == "planned"
    assert {error["code"] for error in errors} == {"insufficient_scope"}
    assert {error["required_scope"] for error in errors} == {"write"}
    assert "PATCH" not in api_calls(sandbox, IDLE)


async def test_a_read_token_follows_a_task_and_cannot_cancel_it(
    http: Serve, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    async with http() as server:
        reading, writing = server.new_token("read"), server.new_token("write")
        extensions = [FollowsTasks()]
        async with server.mcp(token=writing, extensions=extensions) as client:
            version = await version_of(client, SYNCING)
            task = await task_of(
                client, connection_id=SYNCING, merge_patch=PATCH, expected_version=version
            )
        async with server.mcp(token=reading, extensions=extensions) as client:
            seen = await ask(client, "tasks/get", task["taskId"])
            with pytest.raises(MCPError, match="scope write"):
                await ask(client, "tasks/cancel", task["taskId"])
        async with server.mcp(token=writing, extensions=extensions) as client:
            await ask(client, "tasks/cancel", task["taskId"])
            ended = await call(
                client, "workflow_status", workflow_id=task["taskId"], wait_seconds=50
            )

    assert seen["status"] == "working"
    assert ended["status"] == "cancelled"


async def test_a_route_that_requires_write_refuses_a_read_token(http: Serve) -> None:
    async with http() as server:

        @server.app.post("/change", dependencies=[requires("write")])
        async def change() -> str:
            return "changed"

        async def answer(token: str | None) -> httpx.Response:
            return await server.client.post("/change", headers=authorization(token))

        opened = await answer(None)
        reading, writing = server.new_token("read"), server.new_token("write")
        refused, allowed = await answer(reading), await answer(writing)

    assert (opened.status_code, allowed.status_code) == (200, 200)
    assert refused.status_code == 403
    assert refused.json()["code"] == "insufficient_scope"
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope", scope="write"'


@pytest.fixture(params=["file", "two users of one OAuth client", "two OAuth clients"])
async def two(
    request: pytest.FixtureRequest, http: Serve, issuer: OAuthIssuer, trusting: Mapping[str, str]
) -> Any:
    """A server, and the tokens of two principals."""
    async with http(**trusting) as server:
        if request.param == "file":
            yield server, server.new_token(), server.new_token()
        elif request.param == "two OAuth clients":
            yield server, issuer.token(client_id="one"), issuer.token(client_id="another")
        else:
            yield server, issuer.token(sub="ann"), issuer.token(sub="bob")


Two = tuple[HttpServer, str, str]


async def test_the_session_of_one_principal_is_unknown_to_another(two: Two) -> None:
    server, mine, other = two
    accept = {"Accept": "application/json, text/event-stream"}
    initialize = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }

    async def post(token: str, method: str, **headers: str) -> httpx.Response:
        params = initialize if method == "initialize" else {}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers |= accept | authorization(token)
        return await server.client.post("/mcp", json=message, headers=headers)

    session = {"Mcp-Session-Id": (await post(mine, "initialize")).headers["Mcp-Session-Id"]}
    assert (await post(other, "ping", **session)).status_code == 404
    deleted = await server.client.delete("/mcp", headers=session | authorization(other))
    assert deleted.status_code == 404
    assert (await post(mine, "ping", **session)).status_code == 200


async def test_the_confirmation_that_one_principal_was_asked_for_is_worth_nothing_to_another(
    two: Two, sandbox: Sandbox
) -> None:
    server, mine, other = two
    before = state_of(sandbox, IDLE)
    accept = ElicitResult(action="accept", content={})

    async def unasked(_: Any, params: ElicitRequestParams) -> ElicitResult:
        raise AssertionError(params.message)

    async def send(
        client: Client, question: InputRequiredResult | None = None
    ) -> CallToolResult | InputRequiredResult:
        return await client.session.call_tool(
            "update_state",
            {"connection_id": IDLE, "merge_patch": PATCH},
            input_responses=dict.fromkeys((question and question.input_requests) or {}, accept),
            request_state=None if question is None else question.request_state,
            allow_input_required=True,
        )

    async with (
        server.mcp(token=mine, ask=unasked) as mine_,
        server.mcp(token=other, ask=unasked) as other_,
    ):
        question = await send(mine_)
        assert isinstance(question, InputRequiredResult)
        with pytest.raises(MCPError, match="requestState"):
            await send(other_, question)
        assert state_of(sandbox, IDLE) == before
        assert isinstance(await send(mine_, question), CallToolResult)
    assert state_of(sandbox, IDLE) == before | PATCH


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:resources/subscribe is removed")
async def test_one_principal_listens_to_at_most_200_resources_and_takes_none_from_another(
    two: Two,
) -> None:
    server, mine, other = two
    uris = [f"fivetran://workflows/{IDLE}:{number}" for number in range(1, 101)]

    async with AsyncExitStack() as stack:

        async def listen(token: str) -> list[str] | None:
            client = await stack.enter_async_context(server.mcp(token=token))
            stream = client.listen(resource_subscriptions=uris)
            return (await stack.enter_async_context(stream)).honored.resource_subscriptions

        legacy = await stack.enter_async_context(server.mcp("legacy", token=mine))
        for uri in uris[:60]:
            await legacy.subscribe_resource(uri)
        assert await listen(mine) == uris
        assert await listen(mine) == uris[:40]
        assert await listen(mine) is None
        with pytest.raises(MCPError, match="This principal listens to 200"):
            await legacy.subscribe_resource(uris[60])
        assert await listen(other) == uris
    async with (
        server.mcp(token=mine) as client,
        client.listen(resource_subscriptions=uris) as stream,
    ):
        assert stream.honored.resource_subscriptions == uris
