"""What the sandbox does wrong if a test asks for it, and its log."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from fivetran_state import state
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.sandbox import CONNECTION, HEADERS, JSON, PAUSE, STATE, details

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


def test_the_server_stops_while_requests_hang(sandbox: Sandbox) -> None:
    fault = sandbox.fault("hang", times=2)
    with ThreadPoolExecutor() as threads:
        with SandboxServer(sandbox) as server:
            hang_up_while_hung(sandbox, server)
            answer = threads.submit(httpx.get, f"{server.url}{STATE}", timeout=10)
            sandbox.wait_for(lambda logged: logged.path == STATE)
        fault.release()

        assert isinstance(answer.exception(10), httpx.RemoteProtocolError | httpx.ReadError)
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

    assert time.monotonic() - started >= sandbox.latency


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
