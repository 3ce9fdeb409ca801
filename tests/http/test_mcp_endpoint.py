"""The MCP endpoint answers whole, or nobody is there any more."""

import asyncio
import logging

import pytest

from tests.conftest import Serve
from tests.http.frames import LEGACY, MODERN, REQUESTS, Frame, RawClient, headers_of, valid
from tests.http_server import HttpServer


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
