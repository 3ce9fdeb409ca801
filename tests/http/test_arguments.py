"""REST: valid arguments, and the errors for invalid ones."""

import json
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from fivetran_state import state
from fivetran_state.http_server.problems import ROUTES, kinds
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import EXACT, IDLE, PAUSED, SYNCING, api_calls, state_of, sync_runs_on
from tests.support.rest import ANY, get, post

CHANGE = {"connection_id": IDLE, "new_state": {"cursor": "2020"}}
VERSION = "0" * 32


# Empty text


@pytest.mark.slow
async def test_empty_text_is_as_good_as_none(http: Serve, sandbox: Sandbox) -> None:
    empty = dict.fromkeys(("reason", "restore_from", "copy_from", "only"), "")
    async with http() as server:
        whole = await post(server.client, "/state/get", {"connection_id": IDLE, "path": ""})
        asked = await post(server.client, "/state/update", {"connection_id": IDLE} | empty)
        made = await post(server.client, "/state/update", ANY | CHANGE | empty)
        several = {"connection_ids": [IDLE, PAUSED], "merge_patch": {"a": 1}}
        more = {"reason": "", "copy_from": ""}
        together = await post(server.client, "/state/update-multiple", ANY | several | more)
        listed = await get(server.client, "/connections", name="", service="", cursor="")
        history = await get(server.client, "/workflows", connection_id="", cursor="")
        one = await get(server.client, f"/workflows/{IDLE}:1")

    assert whole["state"] == asked["current_state"] == made["current_state"]
    assert "path" not in whole
    assert asked["message"] == "No change was given; nothing was written."
    assert [each["status"] for each in together.values()] == ["updated", "updated"]
    assert {each["id"] for each in listed["connections"]} == {
        each.id for each in sandbox.world.connections()
    }
    assert len(history["workflows"]) == 3
    assert "reason" not in one


async def test_an_empty_version_key_or_credential_is_refused(http: Serve, sandbox: Sandbox) -> None:
    own = {"api_key": "", "api_secret": ""}
    async with http() as server:
        for more in ({"expected_version": ""}, {"dry_run": ""}, {"then_sync": ""}, own):
            refused = await post(server.client, "/state/update", ANY | CHANGE | more, status=422)
            assert refused["code"] == "invalid_request", more
        await post(server.client, "/state/update", ANY | CHANGE, status=422, Idempotency_Key="")

    assert "PATCH" not in api_calls(sandbox, IDLE)


# A missing change


@pytest.mark.parametrize("change", [{}, {"new_state": None, "copy_from": None}])
async def test_a_request_without_its_change_is_refused(
    http: Serve, sandbox: Sandbox, change: dict[str, Any]
) -> None:
    body = {"connection_id": IDLE} | change
    flags = dict.fromkeys(("dry_run", "then_sync", "allow_resync"), True)
    given = {"expected_version": VERSION, "reason": "why", "only": "/cursor"} | flags
    refused = []
    async with http() as server:
        url = "/state/update"
        for name, value in given.items():
            refused += [await post(server.client, url, body | {name: value}, status=422)]
        refused += [await post(server.client, url, body, status=422, Idempotency_Key="k")]

    for each in refused:
        assert each["code"] == "invalid_request"
        assert each["detail"].startswith("The change is missing: give exactly one of new_state, ")
    assert api_calls(sandbox, IDLE) == []


async def test_several_need_a_change(http: Serve) -> None:
    body = {"connection_ids": [IDLE, PAUSED], "new_state": None}
    async with http() as server:
        refused = await post(server.client, "/state/update-multiple", ANY | body, status=422)

    assert refused["detail"] == (
        "The change is missing: give exactly one of new_state, merge_patch, json_patch, copy_from."
    )


# The words of JSON


MISTAKEN: list[tuple[Any, str]] = [
    ("[]", "The body must be a JSON object, not an array."),
    ("null", "The body must be a JSON object, not null."),
    ("{}", "connection_id is missing."),
    ({"connection_id": None}, "connection_id must be a JSON string, not null."),
    ({"connection_id": 1.5}, "connection_id must be a JSON string, not a number."),
    ({"new_state": []}, "new_state must be a JSON object, not an array."),
    ({"new_state": "{}"}, "new_state must be a JSON object, not a string."),
    ({"merge_patch": True}, "merge_patch must be a JSON object, not true."),
    ({"json_patch": {}}, "json_patch must be a JSON array, not an object."),
    ({"json_patch": [{}, 1]}, "json_patch[1] must be a JSON object, not a number."),
    ({"expected_version": ""}, "expected_version must not be empty."),
    ({"reason": "x" * 501}, "reason must have at most 500 characters."),
    ({"dry_run": "perhaps"}, "dry_run must be true or false."),
    ({"then_sync": None}, "then_sync must be true or false, not null."),
    ({"new_stat": {}}, "new_stat is not an argument."),
    ({"api_secret": {"a": 1}}, "api_secret must be a JSON string, not an object."),
    (
        {"reason": "\ud800"},
        "reason is not valid Unicode: it holds half of a surrogate pair.",
    ),
    (
        {str(number): 0 for number in range(7)},
        "0 is not an argument; 1 is not an argument; 2 is not an argument; "
        "3 is not an argument; 4 is not an argument; and 2 more.",
    ),
]


async def test_an_error_speaks_json(http: Serve) -> None:
    async with http() as server:
        for body, detail in MISTAKEN:
            content = body
            if isinstance(body, dict):
                content = json.dumps({"connection_id": IDLE} | body)
            refused = await post(server.client, "/state/update", content, status=422)
            assert refused["detail"] == detail


async def test_an_error_names_a_query_or_header_as_the_caller_does(http: Serve) -> None:
    async with http() as server:
        many = await get(server.client, "/connections", limit="1001", status=422)
        text = await get(server.client, "/workflows", limit="few", status=422)
        wait = await get(server.client, f"/workflows/{IDLE}:1", wait="soon", status=422)
        key = await post(
            server.client, "/state/update", ANY | CHANGE, status=422, Fivetran_Api_Key="x" * 501
        )
        none = await post(server.client, "/state/get-multiple", {"connection_ids": []}, status=422)

    assert many["detail"] == "limit must be at most 1000."
    assert text["detail"] == "limit must be a whole number."
    assert wait["detail"] == "wait must be a number."
    assert key["detail"] == "Fivetran-Api-Key must have at most 500 characters."
    assert none["detail"] == "connection_ids must not be empty."


async def test_a_byte_order_mark_is_ignored(http: Serve, sandbox: Sandbox) -> None:
    content = b"\xef\xbb\xbf" + json.dumps(ANY | CHANGE).encode()
    headers = {"Content-Type": "application/json"}
    async with http() as server:
        answer = await server.client.post("/state/update", content=content, headers=headers)

    assert (answer.status_code, answer.json()["status"]) == (200, "updated")
    assert state_of(sandbox, IDLE) == CHANGE["new_state"]


# Routes in place of tools


def descriptions(described: Any) -> Iterator[str]:
    """Every description in an OpenAPI document."""
    if isinstance(described, dict):
        for name, value in described.items():
            if name == "description" and isinstance(value, str):
                yield value
            else:
                yield from descriptions(value)
    elif isinstance(described, list):
        for item in described:
            yield from descriptions(item)


async def test_the_routes_are_those_of_the_tools(http: Serve) -> None:
    async with http() as server:
        described = await get(server.client, "/openapi.json")
        async with server.mcp() as client:
            tools = {tool.name for tool in (await client.list_tools()).tools}

    routes = {
        f"{method.upper()} {path}"
        for path, methods in described["paths"].items()
        for method in methods
    }
    assert ROUTES.keys() == tools
    assert set(ROUTES.values()) <= routes


def test_no_hint_names_a_tool() -> None:
    for kind in kinds():
        assert [tool for tool in ROUTES if tool in (kind.hint or "")] == [], kind.code


async def test_no_description_names_a_tool(http: Serve) -> None:
    async with http() as server:
        described = await get(server.client, "/openapi.json")

    told = " ".join(descriptions(described))
    assert "POST /state/update" in told
    assert [tool for tool in ROUTES if tool in told] == []


async def test_a_conflict_asks_for_a_plan_not_for_a_blind_write(http: Serve) -> None:
    async with http() as server:
        refused = await post(
            server.client, "/state/update", CHANGE | {"expected_version": VERSION}, status=409
        )
        ended = await get(server.client, f"/workflows/{IDLE}:1")
        plan = await post(server.client, "/state/update", CHANGE | {"dry_run": True})

    assert "again with dry_run and without expected_version" in refused["hint"]
    assert ended["error"]["hint"] == refused["hint"]
    assert "without dry_run and with expected_version" in plan["message"]


async def test_messages_name_routes(http: Serve, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    body = {"connection_id": SYNCING, "merge_patch": {"a": 1}}
    async with http() as server:
        odd = await post(server.client, "/state/get", {"connection_id": "a/b"}, status=422)
        running = await post(
            server.client, "/state/update", ANY | body, status=202, Prefer="wait=0"
        )
        await post(server.client, f"/workflows/{SYNCING}:1/cancel", "")

    assert "GET /connections" in odd["detail"]
    assert "Follow it with GET /workflows/{workflow_id}." in running["message"]


async def test_what_is_quoted_stays_as_it_is(http: Serve, sandbox: Sandbox) -> None:
    kept = {"workflow_status": 12345678901234567890}
    sandbox.set_state(EXACT, json.dumps(kept))
    patch = [{"op": "remove", "path": "/get_state"}]
    async with http() as server:
        refused = await post(
            server.client,
            "/state/update",
            {"connection_id": EXACT, "json_patch": patch, "expected_version": "*"},
            status=422,
        )
        read = await post(server.client, "/state/get", {"connection_id": EXACT})

    assert "/get_state" in refused["detail"]
    assert read["state"] == kept


# Much of it


@pytest.mark.parametrize(
    ("path", "body", "shown"),
    [
        ("/state/get", {f"f{n}": 0 for n in range(300_000)}, "and 299,995 more"),
        ("/state/update", {"connection_id": IDLE, "json_patch": [0] * 300_000}, "at most 10000"),
        ("/state/get-multiple", {"connection_ids": [0] * 300_000}, "at most 100"),
    ],
    ids=["unknown fields", "operations", "connections"],
)
async def test_however_much_is_wrong_the_problem_is_short(
    http: Serve, path: str, body: dict[str, Any], shown: str
) -> None:
    async with http() as server:
        problem = await post(server.client, path, state.dump(body), status=422)

    assert problem["code"] == "invalid_request"
    assert shown.replace(",", "") in problem["detail"].replace(",", "")
    assert len(problem["detail"]) < 1000


@pytest.mark.parametrize("path", ["/mcp", "/state/update"])
async def test_a_body_of_more_values_than_a_state_may_have_is_refused_unread(
    http: Serve, path: str
) -> None:
    body = f'{{"connection_id":"{IDLE}","new_state":{{"a":[{"0," * 600_000}0]}}}}'
    async with http() as server:
        problem = await post(server.client, path, body, status=413)

    assert problem["code"] == "body_too_large"
    assert "500,000 values" in problem["detail"]


async def test_a_change_that_is_too_large_for_so_many_connections_is_refused(
    http: Serve, sandbox: Sandbox
) -> None:
    names = [f"one_of_many_{n}" for n in range(100)]
    change = {"connection_ids": names, "new_state": {"a": "x" * 600_000}}
    async with http() as server:
        problem = await post(server.client, "/state/update-multiple", ANY | change, status=422)

    assert "These changes have more than 49,999,995 bytes in total" in problem["detail"]
    assert api_calls(sandbox, names[0]) == []


@pytest.mark.slow
async def test_small_calls_are_answered_while_large_ones_wait_their_turn(
    http: Serve, sandbox: Sandbox
) -> None:
    deep = "[" * 90 + "]" * 90
    large = f'{{"a":[{",".join([deep] * 700)}]}}'
    body = f'{{"connection_id":"{IDLE}","dry_run":true,"new_state":{large}}}'
    answers: list[dict[str, Any]] = []
    until_small = sandbox.fault("hang", path=IDLE, times=100)
    async with http() as server:

        async def plan() -> None:
            answers.append(await post(server.client, "/state/update", body))

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(plan)
            await server.has_open(6)
            change = {"connection_id": PAUSED, "new_state": {}}
            small = await post(server.client, "/state/update", ANY | change)
            assert answers == []
            until_small.release()

    assert small["status"] == "updated"
    assert [answer["status"] for answer in answers] == ["planned"] * 6
