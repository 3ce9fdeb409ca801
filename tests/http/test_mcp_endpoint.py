"""The MCP endpoint answers every request completely, unless the caller has disconnected."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fivetran_state.http_server.mcp_endpoint import FewSessions
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import IDLE, state_of
from tests.support.frames import LEGACY, MODERN, REQUESTS, Frame, RawClient, headers_of, valid
from tests.support.http_server import HttpServer
from tests.support.wire import INITIALIZE, INITIALIZED, ODD_ANSWERS, tool_call

BOTH = {"Accept": "application/json, text/event-stream"}


def raw_client(server: HttpServer, token: str = "") -> RawClient:
    return RawClient(server.port, token)


@pytest.mark.parametrize("method", ["tools/list", "notifications/initialized"])
async def test_a_request_whose_session_ends_meanwhile_is_answered_to_its_end(
    http: Serve, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    statuses = set()
    async with http(FIVETRAN_STATE_RATE_LIMIT="0") as server:
        client = raw_client(server)
        for _ in range(20):
            await client.open_session()
            ends = Frame(headers_of(LEGACY, "", {}), method="DELETE")
            requests = [valid(LEGACY, method, {}, number) for number in range(4)]
            frames = [*requests[:2], ends, *requests[2:]]
            answers = await asyncio.gather(*map(client.send, frames))
            statuses |= {answer and answer.status for answer in answers}

    assert statuses == {404, 200} | ({202} if method == "notifications/initialized" else set())
    assert "A request met an unexpected error" not in caplog.text


async def test_a_stream_that_is_to_be_resumed_begins_anew(http: Serve) -> None:
    async with http() as server:
        client = raw_client(server)
        await client.open_session()
        headers = [*headers_of(LEGACY, "", {}), ("Last-Event-ID", b"1")]
        answer = await client.send(Frame(headers, method="GET"))

    assert answer is not None
    assert (answer.status, answer.is_stream) == (200, True)


async def test_a_session_that_opens_while_another_request_ends_is_counted() -> None:
    begun, may_open = asyncio.Event(), asyncio.Event()

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        headers = {}
        if scope["method"] == "POST":
            begun.set()
            await may_open.wait()
            headers = {MCP_SESSION_ID_HEADER: "opened"}
        await Response(headers=headers)(scope, receive, send)

    sessions = FewSessions(endpoint)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(sessions), base_url="http://localhost"
    ) as client:
        opening = asyncio.create_task(client.post("/mcp"))
        await begun.wait()
        await client.get("/mcp")
        may_open.set()
        await opening
        counted = sessions.count()
        await client.delete("/mcp", headers={MCP_SESSION_ID_HEADER: "opened"})

    assert (counted, sessions.count()) == (1, 0)


@pytest.mark.parametrize("era", [LEGACY, MODERN])
async def test_half_a_body_is_no_accident(
    http: Serve, caplog: pytest.LogCaptureFixture, era: str
) -> None:
    caplog.set_level(logging.INFO)
    async with http() as server:
        client = raw_client(server)
        await client.open_session()
        half = valid(era, "tools/list", {})
        half.ends = False
        answer = await client.send(half)

    assert answer is None
    assert "POST /mcp was broken off" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("method", ["tools/list", "tasks/cancel", "subscriptions/listen"])
async def test_a_notification_by_a_requests_name_does_nothing(
    http: Serve, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    params = dict(REQUESTS)[method]
    notification = valid(LEGACY, method, params)
    notification.body = notification.body.replace(b', "id": 1', b"")
    async with http() as server:
        client = raw_client(server, server.new_token("read"))
        await client.open_session()
        answer = await client.send(notification)
        await client.end_session()

    assert answer is not None
    assert answer.status == 202
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("era", "request_"), [(LEGACY, REQUESTS[0]), (MODERN, ("tools/list", {}))])
async def test_a_slash_at_the_end_makes_no_difference_here_and_is_another_path_elsewhere(
    http: Serve, era: str, request_: tuple[str, dict[str, Any]]
) -> None:
    message = valid(era, *request_)
    headers = {name: value.decode() for name, value in message.headers}
    async with http() as server:
        answers = [
            await server.client.post(path, content=message.body, headers=headers)
            for path in ("/mcp", "/mcp/")
        ]
        for path in ("/connections/", "/docs/", "/healthz/", "/openapi.json/", "/mcp//"):
            assert await server.status(path) == 404, path

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].text == answers[1].text


async def test_an_answer_of_an_odd_shape_is_no_yes(http: Serve, sandbox: Sandbox) -> None:
    before = state_of(sandbox, IDLE)
    request = tool_call("update_state", connection_id=IDLE, merge_patch={"a": 1})
    asking = INITIALIZE["params"] | {"capabilities": {"elicitation": {}}}
    async with http() as server:
        opened = await server.client.post(
            "/mcp", json=INITIALIZE | {"params": asking}, headers=BOTH
        )
        headers = BOTH | {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
        await server.client.post("/mcp", json=INITIALIZED, headers=headers)
        for result in ODD_ANSWERS:
            async with server.client.stream("POST", "/mcp", json=request, headers=headers) as call:
                told = (
                    json.loads(line.removeprefix("data: "))
                    async for line in call.aiter_lines()
                    if line.startswith("data: {")
                )
                question = await anext(told)
                answer = {"jsonrpc": "2.0", "id": question["id"], "result": result}
                taken = await server.client.post("/mcp", json=answer, headers=headers)
                refused = (await anext(told))["result"]
            assert question["method"] == "elicitation/create"
            assert taken.status_code == 202
            assert json.loads(refused["content"][0]["text"])["code"] == "not_confirmed", result

    assert state_of(sandbox, IDLE) == before


@pytest.mark.parametrize("era", [LEGACY, MODERN])
@pytest.mark.parametrize(
    "body",
    [b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\xc3"}}', b"{", b"[]", b'"text"'],
)
async def test_a_body_that_is_not_a_message_is_answered(http: Serve, era: str, body: bytes) -> None:
    async with http() as server:
        client = raw_client(server)
        await client.open_session()
        made = valid(era, "ping", {})
        made.body = body
        answer = await client.send(made)

    assert answer is not None
    assert answer.status == 400
    told = json.loads(answer.body)
    assert (told["id"], told["jsonrpc"], told["error"]["code"] < -32000) == (None, "2.0", True)
