"""The sandbox shows, over HTTP, every fact about Fivetran's REST API that this project depends on."""

import asyncio
import json
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from fivetran_state import state
from fivetran_state.sandbox import Connection, Sandbox
from fivetran_state.sandbox.connection import iso
from fivetran_state.sandbox.server import SandboxServer

HEADERS = {"Accept": "application/json;version=2"}
JSON = {"Content-Type": "application/json"}
CONNECTION = "/v1/connections/bold_heron"
STATE = f"{CONNECTION}/state"
PAUSE = {"paused": True, "run_setup_tests": False}
RESUME = {"paused": False, "run_setup_tests": False}
EXACT = '{"big":9007199254740993,"price":1.10,"far":1e400,"zero":-0,"pi":3.14159265358979323846264}'


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with closing(Sandbox(seed=False)) as sandbox:
        sandbox.add_connection("bold_heron", state='{"cursor":"2024-01-01T00:00:00Z"}')
        yield sandbox


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[SandboxServer]:
    with SandboxServer(sandbox) as server:
        yield server


@pytest.fixture
def client(server: SandboxServer) -> Iterator[httpx.Client]:
    with a_client(server) as client:
        yield client


def a_client(server: SandboxServer) -> httpx.Client:
    auth = ("sandbox", "sandbox")
    return httpx.Client(base_url=server.url, auth=auth, headers=HEADERS, timeout=10)


def details(client: httpx.Client, connection_id: str = "bold_heron") -> Any:
    return client.get(f"/v1/connections/{connection_id}").json()["data"]


def sync_state(client: httpx.Client) -> str:
    return str(details(client)["status"]["sync_state"])


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.json()["message"]
    return response.status_code, response.json()["code"]


# Shapes


def test_details_have_every_documented_field_and_mask_the_secrets(client: httpx.Client) -> None:
    response = client.get(CONNECTION)

    assert response.status_code == 200
    assert response.json()["code"] == "Success"
    found = response.json()["data"]
    assert found.keys() >= {
        "id", "service", "service_version", "schema", "group_id", "paused", "connected_by",
        "created_at", "succeeded_at", "failed_at", "sync_frequency", "schedule_type",
        "pause_after_trial", "data_delay_sensitivity", "daily_sync_time", "networking_method",
        "hybrid_deployment_agent_id", "proxy_agent_id", "private_link_id", "source_sync_details",
        "config", "setup_tests", "status",
    }  # fmt: skip
    assert found["status"].keys() == {
        "setup_state", "schema_status", "sync_state", "update_state", "is_historical_sync",
        "tasks", "warnings",
    }  # fmt: skip
    assert found["status"]["sync_state"] == "scheduled"
    assert set(found["config"].values()) == {"******"}


def test_details_have_a_field_that_no_document_names(client: httpx.Client) -> None:
    assert "undocumented" in details(client)


def test_account_info_names_the_account_and_the_user(client: httpx.Client) -> None:
    account = client.get("/v1/account/info").json()["data"]

    assert account["account_id"] == "sandbox_account"
    assert account["account_name"]
    assert account["user_id"]


def test_connections_come_in_pages(sandbox: Sandbox, client: httpx.Client) -> None:
    for number in range(4):
        sandbox.add_connection(f"calm_otter_{number}")

    first = client.get("/v1/connections", params={"limit": 3}).json()["data"]
    second = client.get(
        "/v1/connections", params={"limit": 3, "cursor": first["next_cursor"]}
    ).json()["data"]

    ids = [item["id"] for item in first["items"] + second["items"]]
    assert ids == ["bold_heron", *(f"calm_otter_{number}" for number in range(4))]
    assert "next_cursor" not in second


def test_a_page_holds_100_by_default_and_1000_at_most(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    for number in range(100):
        sandbox.add_connection(f"calm_otter_{number}")

    assert len(client.get("/v1/connections").json()["data"]["items"]) == 100
    assert len(client.get("/v1/connections?limit=1000").json()["data"]["items"]) == 101


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=many", "cursor=%21"])
def test_a_bad_page_is_refused(client: httpx.Client, query: str) -> None:
    assert refusal(client.get(f"/v1/connections?{query}")) == (400, "InvalidInput")


def test_connections_are_found_by_group_and_by_schema(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection("calm_otter", group_id="lake", schema="sea")
    sandbox.add_connection("wide_river", group_id="lake", schema="land")

    def found(query: str) -> list[str]:
        return [item["id"] for item in client.get(query).json()["data"]["items"]]

    assert found("/v1/connections?group_id=lake") == ["calm_otter", "wide_river"]
    assert found("/v1/connections?group_id=lake&schema=sea") == ["calm_otter"]
    assert found("/v1/connections?schema=sky") == []


def test_groups_come_in_pages(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("calm_otter", group_id="lake")
    sandbox.add_group("attic", "Old things")

    first = client.get("/v1/groups", params={"limit": 1}).json()["data"]
    second = client.get("/v1/groups", params={"cursor": first["next_cursor"]}).json()["data"]

    found = {group["id"]: group["name"] for group in first["items"] + second["items"]}
    assert found == {"attic": "Old things", "lake": "lake", "warehouse": "warehouse"}


def test_a_group_has_a_name(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_group("warehouse", "Production")

    assert client.get("/v1/groups/warehouse").json()["data"]["name"] == "Production"
    assert refusal(client.get("/v1/groups/nowhere")) == (404, "NotFound_Group")


# Refusals


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "expected"),
    [
        ("GET", CONNECTION, {"Authorization": "Basic bm86bm8="}, None, (401, "AuthFailed")),
        ("GET", "/v1/connections/forbidden_city", {}, None, (403, "Forbidden")),
        ("PATCH", "/v1/connections/forbidden_city", JSON, '{"paused":true}', (403, "Forbidden")),
        ("GET", "/v1/connections/no_such", {}, None, (404, "NotFound_Connection")),
        ("GET", "/v1/connectors/no_such", {}, None, (404, "NotFound_Connector")),
        ("PATCH", "/v1/connections/no_such/state", JSON, "{}", (404, "NotFound_Connection")),
        ("GET", "/v1/nothing", {}, None, (404, "NotFound")),
        ("GET", "/v2/groups", {}, None, (404, "NotFound")),
        ("PATCH", "/v1/groups", JSON, "{}", (405, "MethodNotAllowed")),
        ("POST", "/v1/groups/warehouse", JSON, "{}", (405, "MethodNotAllowed")),
        ("GET", f"{CONNECTION}/sync", {}, None, (405, "MethodNotAllowed")),
        ("GET", f"{CONNECTION}/nothing", {}, None, (404, "NotFound")),
        ("PATCH", "/v1/connections/plain_table/state", JSON, "{}", (400, "InvalidInput")),
        ("GET", CONNECTION, {"Accept": "*/*"}, None, (406, "NotAcceptable")),
        ("GET", CONNECTION, {"Accept": "application/json;version=3"}, None, (406, "NotAcceptable")),
        ("PATCH", CONNECTION, {}, '{"paused":true}', (415, "UnsupportedMediaType")),
        ("PATCH", CONNECTION, JSON, "{}", (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"paused":"yes"}', (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"paused":', (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"paused":null}', (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"paused":true} {}', (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"run_setup_tests":false}', (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"paused":true,"run_setup_tests":0}', (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"schedule_type":"never"}', (400, "InvalidInput")),
        ("PATCH", CONNECTION, JSON, '{"sync_frequency":7}', (400, "InvalidInput")),
        ("POST", f"{CONNECTION}/sync", JSON, '{"force":1}', (400, "InvalidInput")),
        ("POST", f"{CONNECTION}/sync", {}, "{}", (415, "UnsupportedMediaType")),
        ("PATCH", STATE, JSON, '{"state":', (400, "InvalidInput")),
        ("PATCH", STATE, JSON, '{"state":[1]}', (400, "InvalidInput")),
        ("PATCH", STATE, JSON, "[]", (400, "InvalidInput")),
        ("PATCH", STATE, JSON, '{"state":{"a":NaN}}', (400, "InvalidInput")),
        ("PATCH", STATE, JSON, f'{{"state":{"[" * 99_999}', (400, "InvalidInput")),
        (
            "PATCH",
            "/v1/connections/new_function/state",
            JSON,
            '{"state":{}}',
            (400, "InvalidInput"),
        ),
        ("GET", "/v1/connections/plain_table/state", {}, None, (400, "InvalidInput")),
        ("GET", "/v1/connections/new_function/state", {}, None, (400, "InvalidInput")),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(
    sandbox: Sandbox,
    client: httpx.Client,
    method: str,
    path: str,
    headers: dict[str, str],
    content: str | None,
    expected: tuple[int, str],
) -> None:
    sandbox.add_connection("forbidden_city", forbidden=True)
    sandbox.add_connection("plain_table", service="postgres")
    sandbox.add_connection("new_function", service="aws_lambda")
    before = sandbox.world.connections()
    auth = None if "Authorization" in headers else httpx.USE_CLIENT_DEFAULT

    response = client.request(method, path, headers=headers, content=content, auth=auth)

    assert refusal(response) == expected
    assert not sandbox.log[-1].applied
    assert sandbox.world.connections() == before


@pytest.mark.parametrize("accept", ["application/json", "application/json; version=2"])
def test_the_other_spellings_of_accept_are_accepted(client: httpx.Client, accept: str) -> None:
    assert client.get(CONNECTION, headers={"Accept": accept}).status_code == 200


def test_a_rotated_key_replaces_the_old_one(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.api.api_secret = "rotated"

    assert refusal(client.get(CONNECTION)) == (401, "AuthFailed")
    assert client.get(CONNECTION, auth=("sandbox", "rotated")).status_code == 200


def test_several_keys_are_valid_at_once(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_key("second", "hidden")

    answers = [client.get(CONNECTION, auth=auth) for auth in (None, ("second", "hidden"))]

    assert [answer.status_code for answer in answers] == [401, 200]
    assert client.get(CONNECTION).status_code == 200


@pytest.mark.parametrize("key", ["sandbox", "second"])
def test_a_revoked_key_is_refused(sandbox: Sandbox, client: httpx.Client, key: str) -> None:
    sandbox.add_key("second", "sandbox")

    sandbox.revoke_key(key)

    answers = {
        each: client.get(CONNECTION, auth=(each, "sandbox")) for each in ("sandbox", "second")
    }
    assert refusal(answers.pop(key)) == (401, "AuthFailed")
    assert [answer.status_code for answer in answers.values()] == [200]


def test_a_revoked_key_can_be_added_again(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.revoke_key("second")
    sandbox.add_key("second", "new")

    assert client.get(CONNECTION, auth=("second", "new")).status_code == 200


def test_a_reading_key_may_not_change_anything(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_key("reader", "hidden", may_write=False)
    client.auth = httpx.BasicAuth("reader", "hidden")

    assert client.get(STATE).status_code == 200
    for change in (
        client.patch(CONNECTION, json=PAUSE),
        client.patch(STATE, json={"state": {}}),
        client.post(f"{CONNECTION}/sync", json={}),
    ):
        assert refusal(change) == (403, "Forbidden")


def test_a_key_may_be_for_some_connections(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("calm_otter")
    sandbox.add_key("narrow", "hidden", connections={"calm_otter"})
    client.auth = httpx.BasicAuth("narrow", "hidden")

    items = client.get("/v1/connections").json()["data"]["items"]

    assert [item["id"] for item in items] == ["calm_otter"]
    assert client.get("/v1/connections/calm_otter").status_code == 200
    assert refusal(client.get(CONNECTION)) == (403, "Forbidden")


def test_a_system_key_is_named_by_account_info(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_key("second", "hidden")

    account = client.get("/v1/account/info", auth=("second", "hidden")).json()["data"]

    assert account["system_key_id"] == "second"
    assert "user_id" not in account


def test_account_info_may_be_forbidden(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.api.account_info_forbidden = True

    assert refusal(client.get("/v1/account/info")) == (403, "Forbidden")


def test_requests_beyond_the_hourly_limit_wait_for_the_oldest_to_leave_the_hour(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.api.requests_per_hour = 2
    first = client.get(CONNECTION)
    sandbox.advance(1800)
    second = client.get("/v1/nothing")

    refused = client.get(CONNECTION)

    remaining = [answer.headers["X-Rate-Limit-Remaining"] for answer in (first, second, refused)]
    assert remaining == ["1", "0", "0"]
    assert {answer.headers["X-Rate-Limit"] for answer in (first, second, refused)} == {"2"}
    assert refusal(refused) == (429, "TooManyRequests")
    assert 1750 < int(refused.headers["Retry-After"]) <= 1800
    sandbox.advance(1801)
    assert client.get(CONNECTION).status_code == 200


# The state


def test_numbers_come_out_as_they_went_in(sandbox: Sandbox, client: httpx.Client) -> None:
    written = client.patch(STATE, content=f'{{"state": {EXACT}}}', headers=JSON)

    assert f'"state":{EXACT}' in written.text
    assert f'"state":{EXACT}' in client.get(STATE).text
    assert sandbox.connection("bold_heron").state == EXACT


def test_a_write_replaces_the_whole_state(client: httpx.Client) -> None:
    answer = client.patch(STATE, json={"state": {"page": 1}})

    assert answer.json()["data"] == {"state": {"page": 1}}
    assert client.get(STATE).json()["data"] == {"state": {"page": 1}}


def test_the_first_sync_creates_the_state(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("new_function", service="google_cloud_function")
    path = "/v1/connections/new_function/state"
    assert refusal(client.patch(path, json={"state": {}})) == (400, "InvalidInput")

    sandbox.finish_sync("new_function")

    assert client.get(path).json()["data"]["state"]["cursor"] > "2026"
    assert client.patch(path, json={"state": {}}).status_code == 200


def test_a_sync_that_finds_an_empty_state_starts_over(sandbox: Sandbox) -> None:
    sandbox.set_state("bold_heron", "{}")

    assert sandbox.finish_sync("bold_heron").state != "{}"


def test_a_service_without_state_never_gets_one(sandbox: Sandbox) -> None:
    sandbox.add_connection("plain_table", service="postgres", is_historical_sync=True)

    assert sandbox.finish_sync("plain_table").state is None


def test_older_documents_refuse_stateless_writes_with_405(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection("plain_table", service="postgres")
    sandbox.api.stateless_status = 405

    response = client.patch("/v1/connections/plain_table/state", json={"state": {}})

    assert refusal(response) == (405, "MethodNotAllowed")


@pytest.mark.parametrize(("size", "status"), [(9_999_999, 200), (10_000_000, 400)])
def test_a_state_is_smaller_than_10_mb(client: httpx.Client, size: int, status: int) -> None:
    document = f'{{"a":"{"b" * (size - 8)}"}}'

    response = client.patch(STATE, content=f'{{"state":{document}}}', headers=JSON)

    assert response.status_code == status


def test_a_deep_state_is_answered_as_written(client: httpx.Client) -> None:
    deep = '{"a":' * 150 + "1" + "}" * 150

    client.patch(STATE, content=f'{{"state": {deep} }}', headers=JSON)

    assert deep in client.get(STATE).text


def test_a_pretty_answer_is_the_same_json(sandbox: Sandbox, client: httpx.Client) -> None:
    odd = (
        f'{{"name":"\u00fc <\U0001f600> \\"x\\": {{","none":[],"empty":{{}},"numbers":[{EXACT},1]}}'
    )
    sandbox.set_state("bold_heron", odd)
    plain = client.get(STATE).text

    sandbox.pretty = True
    pretty = client.get(STATE).text

    assert state.dump(state.parse(pretty)) == state.dump(state.parse(plain))
    assert (
        '\n    "state": {\n      "name": "\\u00fc \\u003c\\ud83d\\ude00\\u003e \\"x\\": {",\n'
        in pretty
    )
    assert '"none": [],\n      "empty": {},\n' in pretty
    assert '"price": 1.10,\n' in pretty


@pytest.mark.parametrize("body", [{"state": None}, {}])
def test_a_write_without_a_state_succeeds_and_changes_nothing(
    sandbox: Sandbox, client: httpx.Client, body: dict[str, Any]
) -> None:
    before = sandbox.connection("bold_heron")

    assert client.patch(STATE, json=body).status_code == 200
    assert sandbox.connection("bold_heron") == before


def test_a_write_during_a_sync_is_refused(sandbox: Sandbox, client: httpx.Client) -> None:
    before = sandbox.start_sync("bold_heron")

    response = client.patch(STATE, json={"state": {}})

    message = "Connection cannot be updated because the sync is in progress"
    assert (response.status_code, response.json()["message"]) == (409, message)
    assert sandbox.connection("bold_heron") == before


def test_a_foreign_state_is_answered_whatever_it_is(sandbox: Sandbox, client: httpx.Client) -> None:
    odd = '{"twice": 1, "twice": 2.50}'
    sandbox.set_state("bold_heron", odd)
    sandbox.finish_sync("bold_heron")

    assert f'"state":{odd}' in client.get(STATE).text


# Pausing and syncing


def test_an_idle_connection_is_paused_at_once(client: httpx.Client) -> None:
    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert answer["paused"] is True
    assert answer["status"]["sync_state"] == "paused"


@pytest.mark.parametrize("wanted", [PAUSE, RESUME])
def test_pausing_and_resuming_twice_is_harmless(
    client: httpx.Client, wanted: dict[str, bool]
) -> None:
    client.patch(CONNECTION, json=wanted)
    once = details(client)

    assert client.patch(CONNECTION, json=wanted).json()["data"] == once


def test_a_pause_stops_the_running_sync(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection(
        "bold_heron", state='{"cursor":"2024-01-01","page":7}', sync_seconds=600, drain_seconds=60
    )
    sandbox.start_sync("bold_heron")

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert (answer["paused"], answer["status"]["sync_state"]) == (True, "syncing")
    assert client.patch(STATE, json={"state": {}}).status_code == 409
    sandbox.advance(61)
    assert sync_state(client) == "paused"
    moved = client.get(STATE).json()["data"]["state"]
    assert moved["cursor"] > "2026"
    assert moved["page"] == 8
    assert details(client)["succeeded_at"] is None


def test_a_stopped_sync_may_leave_no_trace(sandbox: Sandbox) -> None:
    before = '{"cursor":"2024-01-01"}'
    sandbox.add_connection("bold_heron", state=before, stopped_sync_counts=False)
    sandbox.start_sync("bold_heron")

    assert sandbox.set_paused("bold_heron", True).state == before


def test_a_stopped_sync_leaves_its_last_checkpoint(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state='{"cursor":"2024-01-01"}', checkpoint_every=25)
    started_at = sandbox.start_sync("bold_heron").sync_started_at
    assert started_at is not None
    sandbox.advance(30)

    running = sandbox.connection("bold_heron")
    stopped = sandbox.set_paused("bold_heron", True)

    assert running.syncing
    assert running.state == stopped.state == f'{{"cursor":"{iso(started_at + 25)}"}}'
    assert (stopped.sync_state, stopped.succeeded_at) == ("paused", None)


def test_a_sync_checkpoints_until_it_has_stopped(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', checkpoint_every=25, drain_seconds=30)
    sandbox.start_sync("bold_heron")
    sandbox.set_paused("bold_heron", True)

    sandbox.advance(31)

    assert sandbox.connection("bold_heron").state == '{"page":2}'


def test_a_sync_stays_stopped_after_a_resume(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state="{}", sync_seconds=600, drain_seconds=60)
    sandbox.start_sync("bold_heron")
    sandbox.set_paused("bold_heron", True)
    sandbox.set_paused("bold_heron", False)

    sandbox.advance(61)

    found = sandbox.connection("bold_heron")
    assert (found.sync_state, found.succeeded_at) == ("scheduled", None)


def test_a_sync_that_ends_before_the_drain_is_not_held_up(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection("bold_heron", sync_seconds=60, drain_seconds=600)
    sandbox.start_sync("bold_heron")
    client.patch(CONNECTION, json=PAUSE)

    sandbox.advance(61)

    assert sync_state(client) == "paused"


def test_a_sync_that_stops_at_once_shows_in_the_answer_to_the_pause(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.start_sync("bold_heron")

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert answer["status"]["sync_state"] == "paused"


def test_a_sync_moves_cursors_and_leaves_everything_else(sandbox: Sandbox) -> None:
    before = (
        '{"orders":{"cursor":"2024-01-01T00:00:00Z","offset":9007199254740993,"rate":1.10},'
        '"seen":[{"last_sync":"2024-01-01 00:00:00+01:00"}],"updated_at":"never",'
        '"page":2,"cursor":1.50,"since":"2024-01-01"}'
    )
    sandbox.set_state("bold_heron", before)

    after = sandbox.finish_sync("bold_heron")

    assert after.state is not None
    assert after.succeeded_at is not None
    moved = state.parse(after.state)
    cursor = moved["orders"]["cursor"]
    assert cursor == moved["seen"][0]["last_sync"] > "2026"
    assert after.state == (
        f'{{"orders":{{"cursor":"{cursor}","offset":9007199254740994,"rate":1.10}},'
        f'"seen":[{{"last_sync":"{cursor}"}}],"updated_at":"never",'
        '"page":3,"cursor":1.50,"since":"2024-01-01"}'
    )


def test_syncs_start_and_end_by_themselves(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', sync_seconds=100, sync_every=1000)
    seen = []
    for seconds in (500, 550, 100, 950, 110_050):
        sandbox.advance(seconds)
        seen.append((sync_state(client), client.get(STATE).json()["data"]["state"]["page"]))

    assert seen == [
        ("scheduled", 1),
        ("syncing", 1),
        ("scheduled", 2),
        ("syncing", 2),
        ("syncing", 3),
    ]


def test_a_paused_connection_does_not_sync(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", sync_every=1000, paused=True)
    sandbox.advance(1001)

    assert sync_state(client) == "paused"


def test_a_sync_may_start_at_once_after_a_resume_and_move_the_cursor(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', paused=True, sync_on_resume=True)

    answer = client.patch(CONNECTION, json=RESUME).json()["data"]

    assert (answer["paused"], answer["status"]["sync_state"]) == (False, "syncing")
    sandbox.advance(61)
    assert client.get(STATE).json()["data"]["state"] == {"page": 2}


def test_rescheduled_stays_so_while_paused_and_can_be_written(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.add_connection(
        "bold_heron", state="{}", rescheduled=True, sync_every=60, sync_on_resume=True
    )
    sandbox.advance(7200)
    assert sync_state(client) == "rescheduled"

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert (answer["paused"], answer["status"]["sync_state"]) == (True, "rescheduled")
    assert client.patch(STATE, json={"state": {}}).status_code == 200
    assert client.patch(CONNECTION, json=RESUME).json()["data"]["status"] == {
        **answer["status"],
        "sync_state": "rescheduled",
    }


def test_a_rescheduled_connection_is_scheduled_again_after_its_sync(sandbox: Sandbox) -> None:
    sandbox.add_connection("late_ferry", rescheduled=True)

    assert sandbox.start_sync("late_ferry").sync_state == "syncing"
    assert sandbox.finish_sync("late_ferry").sync_state == "scheduled"


def test_rescheduled_tells_until_when_and_goes_on_then(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    until = sandbox.world.now() + 600
    sandbox.add_connection("bold_heron", rescheduled=True, rescheduled_for=until)
    assert details(client)["status"]["rescheduled_for"] == iso(until)

    sandbox.advance(601)

    assert sync_state(client) == "syncing"
    assert "rescheduled_for" not in details(client)["status"]


def test_a_rescheduled_sync_starts_on_a_late_resume(sandbox: Sandbox) -> None:
    until = sandbox.world.now() + 600
    sandbox.add_connection("late_ferry", paused=True, rescheduled=True, rescheduled_for=until)
    sandbox.advance(7200)
    assert sandbox.connection("late_ferry").sync_state == "rescheduled"

    assert sandbox.set_paused("late_ferry", False).sync_state == "syncing"


def test_manual_never_starts_by_itself(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection(
        "bold_heron",
        schedule_type="manual",
        paused=True,
        rescheduled=True,
        rescheduled_for=sandbox.world.now() + 600,
        sync_every=60,
        sync_on_resume=True,
        is_historical_sync=True,
    )
    client.patch(CONNECTION, json=RESUME)
    sandbox.advance(7200)
    assert details(client)["schedule_type"] == "manual"
    assert sync_state(client) == "rescheduled"

    assert client.post(f"{CONNECTION}/sync", json={"force": False}).status_code == 200

    assert sync_state(client) == "syncing"
    sandbox.advance(7200)
    assert sync_state(client) == "scheduled"


def test_a_schedule_begins_when_it_is_set(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", schedule_type="manual", sync_every=1000)
    sandbox.advance(5000)

    answer = client.patch(
        CONNECTION, json={"schedule_type": "auto", "sync_frequency": 15, "run_setup_tests": False}
    ).json()["data"]

    assert (answer["schedule_type"], answer["sync_frequency"]) == ("auto", 15)
    assert sync_state(client) == "scheduled"
    sandbox.advance(1001)
    assert sync_state(client) == "syncing"


def test_a_broken_connection_may_show_scheduled(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection(
        "bold_heron",
        state="{}",
        paused=True,
        setup_state="broken",
        shows_scheduled_when_paused=True,
        sync_on_resume=True,
    )

    assert (details(client)["paused"], sync_state(client)) == (True, "scheduled")
    assert client.patch(STATE, json={"state": {"page": 1}}).status_code == 200
    client.patch(CONNECTION, json=RESUME)
    assert (details(client)["paused"], sync_state(client)) == (False, "scheduled")


# Setup tests


@pytest.mark.parametrize("body", [{"paused": True}, {"paused": True, "run_setup_tests": True}])
def test_setup_tests_run_unless_refused(
    sandbox: Sandbox, client: httpx.Client, body: dict[str, bool]
) -> None:
    answer = client.patch(CONNECTION, json=body).json()["data"]

    assert [test["status"] for test in answer["setup_tests"]] == ["PASSED"]
    assert sandbox.connection("bold_heron").setup_tests_run == 1


def test_no_setup_tests_run_if_refused(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", setup_tests_fail=True, setup_test_seconds=60)

    answer = client.patch(CONNECTION, json=PAUSE).json()["data"]

    assert (answer["setup_tests"], answer["status"]["setup_state"]) == ([], "connected")
    assert sandbox.connection("bold_heron").setup_tests_run == 0
    assert sandbox.log[-1].body == {"paused": True, "run_setup_tests": False}


def test_failing_setup_tests_break_the_connection(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", paused=True, setup_tests_fail=True, sync_on_resume=True)

    answer = client.patch(CONNECTION, json={"paused": False}).json()["data"]

    assert [test["status"] for test in answer["setup_tests"]] == ["FAILED"]
    assert answer["status"]["setup_state"] == "broken"
    assert answer["status"]["sync_state"] == "scheduled"


def test_the_answer_waits_for_the_setup_tests(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", setup_test_seconds=3600)

    with pytest.raises(httpx.ReadTimeout):
        client.patch(CONNECTION, json={"paused": True}, timeout=0.1)

    assert sandbox.connection("bold_heron").paused
    assert sandbox.log[-1].status is None


# Syncs by request


def test_a_sync_is_started_if_none_runs(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", rescheduled=True)

    assert client.post(f"{CONNECTION}/sync", json={"force": False}).status_code == 200

    running = sandbox.connection("bold_heron")
    assert running.sync_state == "syncing"
    assert client.post(f"{CONNECTION}/sync", headers=JSON).status_code == 200
    assert sandbox.connection("bold_heron") == running


def test_a_forced_sync_stops_the_running_one(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', drain_seconds=10)
    first = sandbox.start_sync("bold_heron")

    client.post(f"{CONNECTION}/sync", json={"force": True})
    sandbox.advance(11)

    second = sandbox.connection("bold_heron")
    assert (second.sync_state, second.state, second.succeeded_at) == ("syncing", '{"page":2}', None)
    assert second.sync_started_at != first.sync_started_at


def test_a_paused_connection_is_not_synced(sandbox: Sandbox, client: httpx.Client) -> None:
    before = sandbox.set_paused("bold_heron", True)

    response = client.post(f"{CONNECTION}/sync", json={"force": True})

    assert refusal(response) == (400, "InvalidInput")
    assert sandbox.connection("bold_heron") == before


def test_a_resync_of_a_paused_one_is_pending(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.set_paused("bold_heron", True)

    assert client.post(f"{CONNECTION}/resync", json={}).status_code == 200

    status = details(client)["status"]
    assert (status["sync_state"], status["is_historical_sync"]) == ("paused", True)
    assert client.patch(STATE, json={"state": {"cursor": "2020-01-01"}}).status_code == 200
    client.patch(CONNECTION, json=RESUME)
    assert sync_state(client) == "syncing"
    assert client.get(STATE).json()["data"]["state"] == {}
    sandbox.advance(61)
    assert client.get(STATE).json()["data"]["state"]["cursor"] > "2026"
    assert details(client)["status"]["is_historical_sync"] is False


def test_a_resync_stops_the_running_sync(sandbox: Sandbox) -> None:
    sandbox.add_connection("bold_heron", state='{"page":1}', drain_seconds=10)
    sandbox.start_sync("bold_heron")

    sandbox.resync("bold_heron")
    stopping = sandbox.connection("bold_heron")
    sandbox.advance(11)
    running = sandbox.connection("bold_heron")

    assert (stopping.sync_state, stopping.state) == ("syncing", '{"page":1}')
    assert (running.sync_state, running.state) == ("syncing", "{}")
    assert running.is_historical_sync


def test_a_paused_resync_is_pending_again(sandbox: Sandbox) -> None:
    sandbox.resync("bold_heron")

    stopped = sandbox.set_paused("bold_heron", True)

    assert (stopped.sync_state, stopped.is_historical_sync) == ("paused", True)
    assert sandbox.set_paused("bold_heron", False).state == "{}"


@pytest.mark.parametrize(("path", "body"), [("resync", {}), ("sync", {"force": True})])
def test_a_sync_that_cannot_be_stopped_goes_on(
    sandbox: Sandbox, client: httpx.Client, path: str, body: dict[str, bool]
) -> None:
    sandbox.add_connection("bold_heron", state="{}", unstoppable_sync=True)
    running = sandbox.start_sync("bold_heron")

    assert refusal(client.post(f"{CONNECTION}/{path}", json=body)) == (409, "Conflict")
    assert sandbox.connection("bold_heron") == running


# Other people


def test_somebody_else_may_pause_resume_or_delete(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.set_paused("bold_heron", True)
    assert details(client)["paused"] is True
    sandbox.set_paused("bold_heron", False)
    assert details(client)["paused"] is False
    sandbox.delete_connection("bold_heron")
    assert refusal(client.get(CONNECTION)) == (404, "NotFound_Connection")


def test_older_paths_say_connectors(client: httpx.Client) -> None:
    assert client.get("/v1/connectors/bold_heron").json() == client.get(CONNECTION).json()
    assert client.get("/v1/connectors/bold_heron/state").json() == client.get(STATE).json()


# Faults


def test_a_pause_may_answer_500_although_it_took_effect(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    sandbox.fault("apply_then_fail", method="PATCH", path=r"/connections/[^/]+$")

    assert client.patch(CONNECTION, json=PAUSE).status_code == 500
    assert details(client)["paused"] is True
    assert sandbox.log[0].applied


def test_a_status_is_answered_without_effect(sandbox: Sandbox, client: httpx.Client) -> None:
    body = '{"code":"X","message":"Failed to stop in-progress sync after trying for 60 seconds"}'
    sandbox.fault("status", status=429, body=body, headers={"Retry-After": "7"})

    response = client.patch(CONNECTION, json=PAUSE)

    assert (response.status_code, response.text) == (429, body)
    assert response.headers["Retry-After"] == "7"
    assert details(client)["paused"] is False


@pytest.mark.parametrize(("kind", "applied"), [("drop", False), ("apply_then_drop", True)])
def test_a_dropped_connection_has_no_answer(
    sandbox: Sandbox, client: httpx.Client, kind: Any, applied: bool
) -> None:
    sandbox.fault(kind, method="PATCH")

    with pytest.raises(httpx.RemoteProtocolError):
        client.patch(CONNECTION, json=PAUSE)

    assert (sandbox.log[0].status, sandbox.log[0].applied) == (None, applied)
    assert details(client)["paused"] is applied


@pytest.mark.parametrize(("kind", "applied"), [("garbage", False), ("apply_then_garbage", True)])
def test_garbage_is_a_success_that_is_not_json(
    sandbox: Sandbox, client: httpx.Client, kind: Any, applied: bool
) -> None:
    sandbox.fault(kind, method="PATCH")

    response = client.patch(CONNECTION, json=PAUSE)

    assert response.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        response.json()
    assert details(client)["paused"] is applied


@pytest.mark.parametrize(("kind", "answered"), [("wrong_state", "1.0"), ("lost_write", "1")])
def test_another_state_may_be_stored(
    sandbox: Sandbox, client: httpx.Client, kind: Any, answered: str
) -> None:
    sandbox.fault(kind, body='{"page":1.0}')

    answer = client.patch(STATE, json={"state": {"page": 1}})

    assert answer.status_code == 200
    assert answer.text.endswith(f'"data":{{"state":{{"page":{answered}}}}}}}')
    assert answer.headers["X-Rate-Limit-Remaining"]
    assert client.get(STATE).text.endswith('"data":{"state":{"page":1.0}}}')


@pytest.mark.parametrize("kind", ["wrong_state", "lost_write"])
def test_no_other_state_follows_a_refusal(
    sandbox: Sandbox, client: httpx.Client, kind: Any
) -> None:
    before = sandbox.start_sync("bold_heron")
    sandbox.fault(kind, body="{}")

    assert client.patch(STATE, json={"state": {"page": 1}}).status_code == 409
    assert sandbox.connection("bold_heron") == before


@pytest.mark.parametrize(("kind", "applied"), [("hang", False), ("apply_then_hang", True)])
def test_a_hung_request_is_seen_at_once_and_answered_when_released(
    sandbox: Sandbox, client: httpx.Client, kind: Any, applied: bool
) -> None:
    fault = sandbox.fault(kind, method="PATCH", path="/bold_heron$")
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(client.patch, CONNECTION, json=PAUSE)
        hung = sandbox.wait_for(lambda request: request.fault == kind)
        assert (hung.status, hung.paused, hung.syncing) == (None, False, False)
        assert sandbox.connection("bold_heron").paused is applied

        fault.release()

        assert answer.result(10).json()["data"]["paused"] is True
    assert (hung.status, hung.applied) == (200, True)


def test_a_client_that_goes_away_ends_the_hung_request(
    sandbox: Sandbox, server: SandboxServer, client: httpx.Client
) -> None:
    fault = sandbox.fault("hang", method="PATCH")
    hang_up_while_hung(sandbox, server)
    assert client.get(CONNECTION).status_code == 200

    fault.release()

    assert client.get(CONNECTION).status_code == 200
    assert (sandbox.log[0].status, sandbox.log[0].applied) == (None, False)


def hang_up_while_hung(sandbox: Sandbox, server: SandboxServer) -> None:
    request = httpx.Request("PATCH", f"{server.url}{CONNECTION}", json=PAUSE, headers=HEADERS)
    lines = [f"PATCH {CONNECTION} HTTP/1.1", *(f"{k}: {v}" for k, v in request.headers.items())]
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.content)
        sandbox.wait_for(lambda logged: logged.fault == "hang")


def test_the_server_stops_at_once_with_requests_that_hang(sandbox: Sandbox) -> None:
    fault = sandbox.fault("hang", times=2)
    with ThreadPoolExecutor() as threads:
        with SandboxServer(sandbox) as server:
            hang_up_while_hung(sandbox, server)
            answer = threads.submit(httpx.get, f"{server.url}{STATE}", timeout=10)
            sandbox.wait_for(lambda logged: logged.path == STATE)
            started = time.monotonic()
        stopped_after = time.monotonic() - started
        fault.release()

        assert isinstance(answer.exception(10), httpx.RemoteProtocolError | httpx.ReadError)
    assert stopped_after < 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_faults_count_and_choose_their_requests(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("status", status=503, method="GET", path="/state$", times=2, skip=1)

    statuses = [client.get(path).status_code for path in (CONNECTION, STATE, STATE, STATE, STATE)]

    assert statuses == [200, 200, 503, 503, 200]
    assert client.patch(STATE, json={"state": {}}).status_code == 200


def test_cleared_faults_do_not_happen(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.fault("drop")
    sandbox.clear_faults()

    assert client.get(CONNECTION).status_code == 200


@pytest.mark.parametrize("kind", ["explode", "wrong_state", "lost_write"])
def test_a_fault_that_makes_no_sense_is_refused(sandbox: Sandbox, kind: Any) -> None:
    with pytest.raises(ValueError, match=r"no such fault|needs the state"):
        sandbox.fault(kind)


def test_latency_delays_every_answer(sandbox: Sandbox, client: httpx.Client) -> None:
    sandbox.latency = 0.05
    started = time.monotonic()

    client.get(CONNECTION)

    assert time.monotonic() - started >= 0.05


# The log


def test_the_log_tells_what_arrived_and_what_came_of_it(
    sandbox: Sandbox, client: httpx.Client
) -> None:
    client.patch(CONNECTION, json=PAUSE)
    sandbox.start_sync("bold_heron")
    client.patch(STATE, content='{"state":{"price":1.10}}', headers=JSON)
    client.get("/v1/groups?limit=5")

    pause, write, groups = sandbox.log
    assert [request.index for request in sandbox.log] == [0, 1, 2]
    assert pause.time <= write.time <= groups.time <= time.time()
    assert (pause.method, pause.path, pause.connection_id) == ("PATCH", CONNECTION, "bold_heron")
    assert (pause.paused, pause.syncing) == (False, False)
    assert (pause.status, pause.applied, pause.body) == (200, True, PAUSE)
    assert (write.paused, write.syncing) == (True, True)
    assert (write.status, write.applied) == (409, False)
    assert state.dump(write.body) == '{"state":{"price":1.10}}'
    assert (groups.connection_id, groups.paused, groups.body) == (None, None, None)
    assert (groups.query, pause.query) == ({"limit": "5"}, {})


def test_waiting_for_a_request_that_does_not_come_ends(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        sandbox.wait_for(lambda request: True, timeout=0.01)


# The file


def test_a_reopened_file_shows_the_same_world(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with closing(Sandbox(path, seed=False)) as sandbox:
        sandbox.add_connection("bold_heron", state=EXACT, sync_seconds=600, drain_seconds=300)
        sandbox.start_sync("bold_heron")
        sandbox.set_paused("bold_heron", True)
        sandbox.advance(200)
        before = sandbox.connection("bold_heron")

    with closing(Sandbox(path, seed=False)) as sandbox:
        assert sandbox.connection("bold_heron") == before
        assert before.sync_state == "syncing"
        sandbox.advance(101)
        assert sandbox.connection("bold_heron").sync_state == "paused"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_sandboxes_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with (
        closing(Sandbox(path)) as one,
        closing(Sandbox(path)) as other,
        SandboxServer(one) as server,
        a_client(server) as client,
    ):
        client.patch("/v1/connections/bullion_shutdown", json=PAUSE)
        other.set_state("bullion_shutdown", EXACT)
        other.advance(3600)

        assert other.connection("bullion_shutdown").sync_state == "paused"
        assert EXACT in client.get("/v1/connections/bullion_shutdown/state").text
        assert one.world.now() > time.time() + 3500


def test_two_sandboxes_share_the_groups(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with closing(Sandbox(path, seed=False)) as one, closing(Sandbox(path, seed=False)) as other:
        one.add_group("lake", "Puddle")
        one.add_group("lake", "Sea")

        assert [group.name for group in other.world.groups()] == ["Sea"]


def test_the_file_of_an_older_sandbox_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    columns = (
        "id, service, schema, group_id, paused, state, setup_state, sync_frequency, created_at, "
        "succeeded_at, failed_at, sync_seconds, sync_every, drain_seconds, stopped_sync_counts, "
        "sync_on_resume, rescheduled, forbidden, sync_started_at, sync_ends_at, next_sync_at"
    )
    with closing(sqlite3.connect(path)) as old:
        old.execute(f"CREATE TABLE connections ({columns}, PRIMARY KEY (id))")
        old.execute(
            f"INSERT INTO connections ({columns}) VALUES ('bold_heron', 'aws_lambda', 'api', 'lake',"
            " 1, '{}', 'connected', 360, 0, NULL, NULL, 60, NULL, 0, 1, 0, 0, 0, NULL, NULL, NULL)"
        )
        old.commit()

    for _ in range(2):
        with closing(Sandbox(path)) as sandbox:
            found = sandbox.connection("bold_heron")
            sandbox.world.put(found)
            assert found == Connection(
                "bold_heron", service="aws_lambda", group_id="lake", paused=True, state="{}"
            )


def test_writers_in_two_sandboxes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with closing(Sandbox(path, seed=False)) as one, closing(Sandbox(path, seed=False)) as other:
        one.add_connection("bold_heron", state='{"page":0}')
        with ThreadPoolExecutor(4) as threads:
            for sandbox in [one, other] * 50:
                threads.submit(sandbox.finish_sync, "bold_heron")

        assert one.connection("bold_heron").state == '{"page":100}'


def test_a_killed_process_finds_its_world_again(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    program = """
import asyncio, os, pathlib, signal, sys
import httpx
from fivetran_state.sandbox import Connection, Sandbox
from fivetran_state.sandbox.connection import iso

async def main():
    sandbox = Sandbox(pathlib.Path(sys.argv[1]))
    transport = httpx.ASGITransport(app=sandbox.app)
    headers = {"Accept": "application/json"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://sandbox", auth=("sandbox", "sandbox"), headers=headers
    ) as client:
        url = "/v1/connections/bullion_shutdown"
        assert (await client.patch(url, json={"paused": True})).status_code == 200
        assert (await client.patch(f"{url}/state", json={"state": {"page": 7}})).status_code == 200
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    with closing(Sandbox(path)) as sandbox:
        found = sandbox.connection("bullion_shutdown")
        assert (found.paused, found.state) == (True, '{"page":7}')


# The seed


def test_a_new_sandbox_has_one_connection_of_each_kind() -> None:
    with closing(Sandbox()) as sandbox:
        found = {connection.id: connection for connection in sandbox.world.connections()}

    assert {name: (each.service, each.sync_state) for name, each in found.items()} == {
        "speak_inexpensive": ("connector_sdk", "syncing"),
        "bullion_shutdown": ("aws_lambda", "scheduled"),
        "gentle_harbour": ("azure_function", "paused"),
        "quiet_meadow": ("google_cloud_function", "scheduled"),
        "vast_library": ("connector_sdk", "scheduled"),
        "exact_ledger": ("connector_sdk", "scheduled"),
        "late_ferry": ("connector_sdk", "rescheduled"),
        "postgres_mirror": ("postgres", "scheduled"),
        "idle_turbine": ("connector_sdk", "rescheduled"),
        "patient_archive": ("connector_sdk", "paused"),
        "severed_cable": ("aws_lambda", "scheduled"),
        "twin_harvest": ("connector_sdk", "scheduled"),
    }
    assert {name for name, each in found.items() if each.state is None} == {
        "quiet_meadow",
        "postgres_mirror",
    }
    orders = json.loads(found["speak_inexpensive"].state or "")
    assert orders.keys() == {"orders", "customers", "schema_version"}
    assert 1_800_000 < len(found["vast_library"].state or "") < 2_200_000


def test_two_seeded_connections_are_named_alike() -> None:
    with closing(Sandbox()) as sandbox:
        names = {group.id: group.name for group in sandbox.world.groups()}
        alike = [each for each in sandbox.world.connections() if each.schema == "orders_api"]

    assert {each.id: names[each.group_id] for each in alike} == {
        "speak_inexpensive": "Production warehouse",
        "twin_harvest": "Staging warehouse",
    }


def test_the_seed_has_what_an_update_must_tell() -> None:
    with closing(Sandbox()) as sandbox:
        broken = sandbox.connection("severed_cable")
        historical = sandbox.connection("patient_archive")
        manual = sandbox.connection("idle_turbine")

    assert (broken.setup_state, broken.paused) == ("broken", True)
    assert (historical.is_historical_sync, historical.paused) == (True, True)
    assert (manual.schedule_type, manual.paused) == ("manual", False)


def test_the_seeded_states_are_exact_and_compact() -> None:
    with closing(Sandbox()) as sandbox:
        texts = [each.state for each in sandbox.world.connections() if each.state is not None]
        ledger = sandbox.connection("exact_ledger").state or ""

    assert [state.dump(state.parse(text)) for text in texts] == texts
    for spelling in ("9007199254740993", ":1.10,", ":1e400,", ":-0}"):
        assert spelling in ledger


def test_a_world_with_connections_is_not_seeded_again(tmp_path: Path) -> None:
    with closing(Sandbox(tmp_path / "sandbox.db")) as sandbox:
        sandbox.delete_connection("late_ferry")
        sandbox.set_state("exact_ledger", "{}")
    with closing(Sandbox(tmp_path / "sandbox.db")) as sandbox:
        assert sandbox.connection("exact_ledger").state == "{}"
        with pytest.raises(KeyError):
            sandbox.connection("late_ferry")


def test_the_sandbox_answers_in_process(sandbox: Sandbox) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=sandbox.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://sandbox", auth=("sandbox", "sandbox")
        ) as client:
            sandbox.fault("status", status=503, times=1)
            assert (await client.get(CONNECTION, headers=HEADERS)).status_code == 503
            return await client.get(CONNECTION, headers=HEADERS)

    assert asyncio.run(ask()).json()["data"]["id"] == "bold_heron"
