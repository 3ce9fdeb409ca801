"""What the sandbox answers, and what it refuses."""

import httpx
import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.sandbox import CONNECTION, JSON, PAUSE, STATE, details, refusal

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
