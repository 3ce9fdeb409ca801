"""The Tasks extension: clients that declare it get an update as a task."""

from datetime import datetime
from typing import Any

import httpx
import pytest
from mcp import Client, MCPError
from mcp.client.extension import advertise
from mcp_types import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    EmptyResult,
    InputRequiredResult,
    SubscriptionFilter,
    SubscriptionsListenRequest,
    SubscriptionsListenRequestParams,
)

from fivetran_state.config import Settings
from fivetran_state.mcp_server import build
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.conftest import Connect
from tests.support.calls import (
    API_SECRET,
    IDLE,
    SYNCING,
    arrival,
    call,
    refused,
    state_of,
    sync_runs_on,
    version_of,
)
from tests.support.human import ACCEPT, Human
from tests.support.tasks import IDENTIFIER, METHODS, FollowsTasks, ask, ended_task, task_of

TASKS = [FollowsTasks()]


async def request_for(client: Client, connection_id: str = IDLE, **more: Any) -> dict[str, Any]:
    return {
        "connection_id": connection_id,
        "merge_patch": {"cursor": "2020"},
        "expected_version": await version_of(client, connection_id),
        **more,
    }


def wire(result: CallToolResult) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"meta"})


async def refusal(client: Client, method: str, task_id: str) -> tuple[int, str]:
    with pytest.raises(MCPError) as caught:
        await ask(client, method, task_id)
    return caught.value.code, caught.value.message


async def refusals(client: Client, task_id: str) -> list[tuple[int, str]]:
    return [await refusal(client, method, task_id) for method in METHODS]


async def test_an_update_is_a_task_that_ends_with_the_very_result_of_the_tool(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(extensions=TASKS) as client:
        request = await request_for(client)
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        created = await task_of(client, **request)
        await arrival(sandbox, lambda each: each.fault == "hang")
        working = await ask(client, "tasks/get", created["taskId"])
        hold.release()
        completed = await ended_task(client, created["taskId"])
        result = await client.call_tool("update_state", request)

    assert created["taskId"] == f"{IDLE}:1"
    assert created["resultType"] == "task"
    assert (working["resultType"], completed["resultType"]) == ("complete", "complete")
    assert [each["status"] for each in (created, working)] == ["working", "working"]
    assert working["statusMessage"] == "Writing the new state."
    assert "result" not in working
    assert completed["status"] == "completed"
    assert completed["result"] == wire(result)
    assert completed["result"]["structuredContent"]["status"] == "updated"
    assert state_of(sandbox, IDLE)["cursor"] == "2020"


async def test_a_task_tells_its_times_and_how_long_it_is_kept(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(extensions=TASKS, FIVETRAN_STATE_RETENTION_DAYS="2") as client:
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        created = await task_of(client, **await request_for(client))
        hold.release()
        completed = await ended_task(client, created["taskId"])

    assert created["createdAt"] == completed["createdAt"]
    times = [
        datetime.fromisoformat(each.replace("Z", "+00:00"))
        for each in (created["createdAt"], created["lastUpdatedAt"], completed["lastUpdatedAt"])
    ]
    assert times == sorted(times)
    assert created["ttlMs"] is None, "what runs is never forgotten"
    two_days = 2 * 24 * 3600 * 1000
    assert two_days <= completed["ttlMs"] < two_days + 60_000
    assert created["pollIntervalMs"] > 0


async def test_a_client_that_follows_tasks_gets_what_any_other_client_gets(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(extensions=TASKS) as client:
        plan = await call(client, "update_state", connection_id=IDLE, merge_patch={"cursor": "1"})
        request = await request_for(client)
        done = await call(client, "update_state", **request)
        again = await call(client, "update_state", **request)
        seen = done["version_after"]
        same = await call(client, "update_state", **request | {"expected_version": seen})
        error = await refused(client, "update_state", connection_id=IDLE)

    assert plan["status"] == "planned"
    assert done["status"] == "updated"
    assert again == done
    assert same["status"] == "unchanged"
    assert error["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("era", "extensions", "code"),
    [
        ("2026-07-28", [], MISSING_REQUIRED_CLIENT_CAPABILITY),
        ("legacy", [], METHOD_NOT_FOUND),
        ("legacy", [advertise(IDENTIFIER)], METHOD_NOT_FOUND),
    ],
    ids=["undeclared", "legacy", "declared in a protocol version without tasks"],
)
async def test_a_client_that_does_not_declare_tasks_never_meets_one(
    connect: Connect, sandbox: Sandbox, era: str, extensions: list[Any], code: int
) -> None:
    async with connect(era, extensions=extensions) as client:
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        started = await call(client, "update_state", **await request_for(client), wait_seconds=0)
        refused_ = await refusals(client, started["workflow_id"])
        hold.release()
        ended = await call(
            client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50
        )

    assert started["status"] == "running"
    assert [found for found, _ in refused_] == [code] * len(METHODS)
    assert ended["status"] == "updated"


async def test_a_client_that_does_not_declare_tasks_cannot_listen_to_them(
    connect: Connect,
) -> None:
    wanted = SubscriptionFilter.model_validate({"taskIds": [f"{IDLE}:1"]})
    listen = SubscriptionsListenRequest(
        params=SubscriptionsListenRequestParams(notifications=wanted)
    )
    async with connect() as client:
        async with client.listen(tools_list_changed=True) as subscription:
            assert subscription.honored.tools_list_changed
        with pytest.raises(MCPError) as caught:
            await client.session.send_request(listen, EmptyResult, 15)

    assert caught.value.code == MISSING_REQUIRED_CLIENT_CAPABILITY
    assert caught.value.data == {"requiredCapabilities": {"extensions": {IDENTIFIER: {}}}}


async def test_an_update_that_fails_is_a_completed_task_with_the_tool_s_error(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(extensions=TASKS) as client:
        request = await request_for(client, idempotency_key="once")
        hold = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$")
        created = await task_of(client, **request)
        await arrival(sandbox, lambda each: each.fault == "hang")
        sandbox.set_state(IDLE, '{"cursor":"foreign"}')
        hold.release()
        ended = await ended_task(client, created["taskId"])
        result = await client.call_tool("update_state", request)

    assert ended["status"] == "completed"
    assert ended["result"]["isError"] is True
    assert ended["result"] == wire(result)
    assert '"code": "conflict"' in ended["result"]["content"][0]["text"]
    assert ended["statusMessage"] in ended["result"]["content"][0]["text"]


async def test_the_same_request_again_is_the_same_task(connect: Connect, sandbox: Sandbox) -> None:
    async with connect(extensions=TASKS) as client:
        request = await request_for(client)
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        created = await task_of(client, **request)
        again = await task_of(client, **request, wait_seconds=50)
        hold.release()
        await ended_task(client, created["taskId"])

    assert again["taskId"] == created["taskId"] == f"{IDLE}:1"
    assert again["createdAt"] == created["createdAt"]


async def test_a_task_that_waits_for_a_sync_is_cancelled_and_the_connection_resumed(
    connect: Connect, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, SYNCING)
    sync_runs_on(sandbox)
    async with connect(extensions=TASKS) as client:
        created = await task_of(client, **await request_for(client, SYNCING))
        acknowledged = await ask(client, "tasks/cancel", created["taskId"])
        ended = await ended_task(client, created["taskId"])
        again = await ask(client, "tasks/cancel", created["taskId"])

    assert acknowledged == again == {"resultType": "complete"}
    assert ended["status"] == "cancelled"
    assert "result" not in ended
    assert state_of(sandbox, SYNCING) == before
    assert not sandbox.connection(SYNCING).paused


async def test_a_cancel_that_comes_too_late_is_acknowledged_and_the_task_completes(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(extensions=TASKS) as client:
        request = await request_for(client)
        # The call that reads the state back comes after inspect and snapshot.
        hold = sandbox.fault("hang", method="GET", path="/state$", skip=2)
        created = await task_of(client, **request)
        await arrival(sandbox, lambda each: each.fault == "hang")
        acknowledged = await ask(client, "tasks/cancel", created["taskId"])
        hold.release()
        ended = await ended_task(client, created["taskId"])
        again = await ask(client, "tasks/cancel", created["taskId"])
        after = await ask(client, "tasks/get", created["taskId"])

    assert acknowledged == again == {"resultType": "complete"}
    assert ended["result"]["structuredContent"]["status"] == "updated"
    assert after == ended
    assert state_of(sandbox, IDLE)["cursor"] == "2020"
    assert not sandbox.connection(IDLE).paused


async def test_answers_that_nobody_asked_for_are_ignored(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect(extensions=TASKS) as client:
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        created = await task_of(client, **await request_for(client))
        acknowledged = await ask(client, "tasks/update", created["taskId"])
        hold.release()
        ended = await ended_task(client, created["taskId"])

    assert acknowledged == {"resultType": "complete"}
    assert ended["result"]["structuredContent"]["status"] == "updated"


async def test_a_task_that_this_server_may_not_touch_is_like_one_that_never_was(
    connect: Connect,
) -> None:
    async with connect() as client:
        started = await call(client, "update_state", **await request_for(client), wait_seconds=50)
    other = Sandbox(api_key="key-of-the-other", api_secret=API_SECRET)
    other.api.account_id = "other_account"

    found = []
    async with connect(extensions=TASKS, FIVETRAN_STATE_ALLOWED_CONNECTIONS=SYNCING) as client:
        found += await refusals(client, started["workflow_id"])
        found += await refusals(client, f"{SYNCING}:1")
        found += await refusals(client, f"{IDLE}:first")
        found += await refusals(client, "../etc/passwd")
        found += await refusals(client, "")
    with SandboxServer(other) as door:
        theirs = {"FIVETRAN_API_KEY": "key-of-the-other", "FIVETRAN_API_URL": door.url}
        async with connect(
            extensions=TASKS, FIVETRAN_STATE_ALLOWED_CONNECTIONS="*", **theirs
        ) as client:
            found += await refusals(client, started["workflow_id"])
    other.close()

    assert set(found) == {(INVALID_PARAMS, "There is no such task.")}
    assert len(found) == 6 * len(METHODS)


@pytest.mark.slow
async def test_a_read_only_server_shows_a_task_and_refuses_to_cancel_it(
    spawn: Connect, sandbox: Sandbox
) -> None:
    async with (
        spawn(extensions=TASKS) as client,
        spawn(extensions=TASKS, FIVETRAN_STATE_READ_ONLY="true") as reader,
    ):
        hold = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$")
        created = await task_of(client, **await request_for(client))
        await arrival(sandbox, lambda each: each.fault == "hang")
        seen = await ask(reader, "tasks/get", created["taskId"])
        code, message = await refusal(reader, "tasks/cancel", created["taskId"])
        hold.release()
        ended = await ended_task(reader, created["taskId"])

    assert (seen["taskId"], seen["status"]) == (created["taskId"], "working")
    assert code == INVALID_REQUEST
    assert "read-only" in message
    assert ended["result"]["structuredContent"]["status"] == "updated"


@pytest.mark.parametrize(
    ("name", "code"),
    [(f"{IDLE}:1", INVALID_PARAMS), (f"{IDLE}:2", HEADER_MISMATCH), (None, HEADER_MISMATCH)],
    ids=["the same", "another", "none"],
)
async def test_over_http_the_header_has_to_name_the_task(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str | None, code: int
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    server = build(Settings())
    app = server.streamable_http_app()
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tasks/get",
        **({"Mcp-Name": name} if name else {}),
    }
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {IDENTIFIER: {}}},
    }
    params = {"taskId": f"{IDLE}:1", "_meta": meta}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": params}
    async with (
        server.session_manager.run(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        answer = await http.post("http://localhost:8000/mcp", json=message, headers=headers)

    assert answer.json()["error"]["code"] == code


async def test_once_the_human_has_agreed_the_update_is_a_task(
    connect: Connect, sandbox: Sandbox
) -> None:
    request: dict[str, Any] = {"connection_id": IDLE, "merge_patch": {"cursor": "2020"}}
    async with connect(ask=Human(), extensions=TASKS) as client:
        question = await client.session.call_tool(
            "update_state", request, allow_input_required=True, allow_claimed=True
        )
        assert isinstance(question, InputRequiredResult)
        hold = sandbox.fault("hang", method="PATCH", path="/state$")
        created = await task_of(
            client,
            **request,
            answers=dict.fromkeys(question.input_requests or {}, ACCEPT),
            request_state=question.request_state,
        )
        hold.release()
        ended = await ended_task(client, created["taskId"])

    assert ended["result"]["structuredContent"]["status"] == "updated"
    assert state_of(sandbox, IDLE)["cursor"] == "2020"
