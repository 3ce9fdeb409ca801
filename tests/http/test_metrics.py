"""`/metrics`: what it counts, who may see it, and that its series stay few."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.faults import FaultKind
from tests.conftest import Serve
from tests.support import prometheus
from tests.support.calls import IDLE, PAUSED, arrival, state_of
from tests.support.http_server import authorization
from tests.support.matrix import few
from tests.support.people import person
from tests.support.rest import ANY
from tests.support.updates import SLOW, is_poll_of_a_sync, refuse_resumes

PATCH = {"cursor": "2020"}
METRICS_TOKEN = "FIVETRAN_STATE_METRICS_TOKEN"
TOKEN = "a-token-for-prometheus-alone"

NOT_YET = {
    "fivetran_state_step_failures_total",
    "fivetran_state_refusals_total",
    "fivetran_state_recoveries_total",
}
"""Counters with labels have no sample before the first event."""

Samples = dict[str, float]


async def samples(client: httpx.AsyncClient, token: str | None = None) -> Samples:
    """Every sample by its name and labels, as Prometheus writes them."""
    answer = await client.get("/metrics", headers=authorization(token))
    assert answer.status_code == 200, answer.text
    return {
        sample.name
        + "".join(f" {label}={value}" for label, value in sorted(sample.labels.items())): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def change(client: httpx.AsyncClient, connection_id: str = IDLE) -> httpx.Response:
    body = {"connection_id": connection_id, "merge_patch": PATCH}
    return await client.post("/state/update", json=ANY | body)


async def test_an_update_is_counted_with_its_phases_its_calls_and_its_request(http: Serve) -> None:
    async with http() as server:
        await change(server.client)
        found = await samples(server.client)

    assert found["fivetran_state_updates_total error= outcome=updated"] == 1
    for phase in ("inspect", "pause", "snapshot", "write", "verify", "resume"):
        assert found[f"fivetran_state_phase_seconds_count phase={phase}"] == 1, phase
    assert found["fivetran_state_paused_seconds_count"] == 1
    connection = "/v1/connections/{connection_id}"
    assert (
        found[f"fivetran_state_fivetran_calls_total method=PATCH route={connection} status=200"]
        == 2
    )
    assert found["fivetran_state_requests_total method=POST route=/state/update status=200"] == 1
    assert found["fivetran_state_ready"] == 1
    assert found["fivetran_state_updates_running"] == 0


async def test_a_failed_update_is_counted_by_its_error(http: Serve, sandbox: Sandbox) -> None:
    sandbox.fault("status", status=400, method="PATCH", path="/state$")
    async with http() as server:
        await change(server.client)
        found = await samples(server.client)

    assert found["fivetran_state_updates_total error=fivetran_error outcome=failed"] == 1
    assert found["fivetran_state_step_failures_total error=fivetran_error phase=write"] == 1


async def test_a_connection_that_an_update_holds_paused_is_shown_with_its_time(
    http: Serve, sandbox: Sandbox, on_either: dict[str, str], slow: dict[str, Any]
) -> None:
    async with http(**on_either) as server:
        body = {"connection_id": SLOW, "merge_patch": PATCH}
        await server.client.post(
            "/state/update", json=ANY | body, headers={"Prefer": "respond-async"}
        )
        await arrival(sandbox, is_poll_of_a_sync)
        found = await samples(server.client)
        sandbox.finish_sync(SLOW)
        await server.client.get(f"/workflows/{SLOW}:1", params={"wait": "50"})

    assert state_of(sandbox, SLOW) == slow | PATCH
    assert found["fivetran_state_updates_running"] == 1
    assert found["fivetran_state_connections_paused"] == 1
    assert found["fivetran_state_connections_paused_longest_seconds"] > 0
    assert found["fivetran_state_connections_left_paused"] == 0


async def test_a_connection_that_was_left_paused_is_shown_until_somebody_resumes_it(
    http: Serve, sandbox: Sandbox
) -> None:
    refuse_resumes(sandbox, IDLE)
    async with http() as server:
        await change(server.client)
        left = await samples(server.client)
    sandbox.set_paused(IDLE, False)
    async with http() as server:
        resumed = await samples(server.client)

    assert left["fivetran_state_connections_left_paused"] == 1
    assert left["fivetran_state_connections_paused"] == 0
    assert resumed["fivetran_state_connections_left_paused"] == 0


@pytest.mark.parametrize("kind", few(["status"], ["status", "hang"]))
async def test_a_connection_that_was_left_paused_is_shown_while_fivetran_does_not_answer(
    http: Serve, sandbox: Sandbox, kind: FaultKind
) -> None:
    refuse_resumes(sandbox, IDLE)
    async with http() as server:
        await change(server.client)
        sandbox.fault(kind, path=f"/{IDLE}$", times=9, status=429, headers={"Retry-After": "86400"})
        found = await samples(server.client)

    assert found["fivetran_state_ready"] == 1
    assert found["fivetran_state_connections_left_paused"] == 1


async def test_what_waits_for_a_person_and_what_they_decide_is_counted(http: Serve) -> None:
    async with http() as server, person(server, "write") as asker:
        await asker.propose(IDLE, merge_patch=PATCH)
        found = await samples(asker.client)

    assert found["fivetran_state_proposals_waiting"] == 1
    assert found["fivetran_state_proposals_total how=created"] == 1


async def test_fivetrans_limit_and_the_lag_of_the_watcher_are_shown(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http(FIVETRAN_STATE_WATCH_INTERVAL="3600") as server:
        await change(server.client)
        found = await samples(server.client)

    assert found["fivetran_state_fivetran_remaining"] < found["fivetran_state_fivetran_limit"]
    assert 0 <= found["fivetran_state_watcher_lag_seconds"] < 3600


async def test_the_alerts_and_the_dashboard_name_only_figures_that_there_are(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http(FIVETRAN_STATE_WATCH_INTERVAL="3600") as server:
        await change(server.client)
        there = {name.partition(" ")[0] for name in await samples(server.client)}

    for path in (prometheus.ALERTS, prometheus.DASHBOARD):
        named = set(re.findall(r"fivetran_state_\w+", prometheus.text_of(path)))
        assert named, path
        assert named - there - NOT_YET == set(), path


async def test_a_server_that_does_not_watch_has_no_lag(http: Serve) -> None:
    async with http() as server:
        assert "fivetran_state_watcher_lag_seconds" not in await samples(server.client)


async def test_the_sessions_of_older_clients_are_counted(http: Serve) -> None:
    async with http() as server, server.mcp("legacy") as client:
        await client.list_tools()
        found = await samples(server.client)

    assert found["fivetran_state_sessions"] == 1
    assert found["fivetran_state_requests_total method=POST route=/mcp status=200"] > 0


async def test_while_the_server_is_not_ready_it_says_so_and_counts_on(
    http: Serve, tmp_path: Path
) -> None:
    async with http(FIVETRAN_STATE_AUDIT_FILE=str(tmp_path)) as server:
        found = await samples(server.client)

    assert found["fivetran_state_ready"] == 0
    assert "fivetran_state_updates_running" not in found


async def test_no_label_names_a_connection_a_caller_or_what_they_typed(http: Serve) -> None:
    async with http() as server, person(server, "write") as caller:
        await change(caller.client)
        await change(caller.client, PAUSED)
        for path in ("/connections/typed-by-a-caller/state", "/typed-by-a-caller", "/mcp"):
            await caller.client.get(path)
        await caller.client.request("TYPED", "/")
        answer = await caller.client.get("/metrics")

    typed = re.escape(caller.token.id), IDLE, PAUSED, "typed", "TYPED"
    assert [each for each in typed if re.search(each, answer.text)] == []
    assert 'route="/connections/{connection_id}/state"' in answer.text


@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), (TOKEN, 200), (f"{TOKEN}-", 401), ("read", 200)],
)
async def test_a_server_with_tokens_shows_it_to_readers_and_to_prometheus(
    http: Serve, token: str | None, status: int
) -> None:
    async with http(**{METRICS_TOKEN: TOKEN}) as server:
        read = server.new_token("read")
        found = await server.status("/metrics", read if token == "read" else token)

    assert found == status


async def test_the_token_of_prometheus_opens_nothing_else(http: Serve) -> None:
    async with http(**{METRICS_TOKEN: TOKEN}) as server:
        server.new_token("read")
        found = {await server.status(path, TOKEN) for path in ("/", "/connections", "/mcp")}

    assert found == {401}


async def test_the_log_has_no_line_for_a_scrape(
    http: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with http() as server:
        await samples(server.client)

    assert "/metrics" not in [getattr(each, "path", None) for each in caplog.records]
