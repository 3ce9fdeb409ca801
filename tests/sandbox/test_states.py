"""The state of a connection in the sandbox."""

from typing import Any

import httpx
import pytest

from fivetran_state import state
from fivetran_state.sandbox import Sandbox
from tests.support.sandbox import EXACT, JSON, STATE, refusal


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
