"""Traces, as a collector gets them: from a caller over the update and its steps to each call."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from socket import create_server
from typing import cast

import pytest
from mcp_types import RequestParamsMeta

from fivetran_state.sandbox import Sandbox
from tests.support.calls import API_SECRET, IDLE, PAUSED, ROOT, call, state_of, update, version_of
from tests.support.collector import (
    CALLER,
    TRACE,
    TRACEPARENT,
    Collector,
    Tree,
    collecting,
)
from tests.support.http_server import (
    http_forked,
    http_running,
    lines_of,
    mcp_client,
    run_cli,
)
from tests.support.people import client_of
from tests.support.processes import running
from tests.support.rest import ANY, get, post

CONNECTION = "/v1/connections/{connection_id}"
STEPS = {
    "inspect": [f"GET {CONNECTION}", f"GET {CONNECTION}/state"],
    "pause": [f"PATCH {CONNECTION}"],
    "snapshot": [f"GET {CONNECTION}/state"],
    "write": [f"PATCH {CONNECTION}/state"],
    "verify": [f"GET {CONNECTION}/state"],
    "resume": [f"PATCH {CONNECTION}"],
}
"""The steps of an update of a running connection, with their calls."""
MARKER = "marker-of-what-a-state-holds"
NEW_MARKER = "marker-of-what-is-written"
MALFORMED = "00-not-a-trace-01"
OTHER_TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector(sandbox: Sandbox) -> Iterator[Collector]:
    sandbox.set_state(IDLE, json.dumps({"cursor": MARKER}))
    with collecting() as collector:
        yield collector


def assert_shows_nothing(collector: Collector) -> None:
    """Nothing of a secret, of a state or of a caller's text has arrived."""
    received = b"".join(collector.bodies)
    for text in (API_SECRET, MARKER, NEW_MARKER, "not-a-trace", "state-of-the-caller"):
        assert text.encode() not in received, text


def meta_with(**fields: object) -> RequestParamsMeta:
    return cast(RequestParamsMeta, fields)


def calls_by_step(update: Tree) -> dict[str, list[str]]:
    return {each.span.name: sorted(each.names) for each in update.below}


@pytest.mark.slow
async def test_a_trace_leads_from_the_tool_over_the_steps_to_each_call(
    collector: Collector, environment: dict[str, str], tmp_path: Path
) -> None:
    meta = meta_with(traceparent=TRACEPARENT, tracestate="vendor=state-of-the-caller")
    async with running(environment | collector.variables, tmp_path) as server:
        version = await version_of(server.client, IDLE)
        change = {"connection_id": IDLE, "merge_patch": {"cursor": NEW_MARKER}}
        more = {"expected_version": version, "wait_seconds": 50, "reason": MARKER}
        await server.client.call_tool("update_state", {**change, **more}, meta=meta)
        refused = {**change, "expected_version": version, "idempotency_key": MARKER}
        await server.client.call_tool(
            "update_state", refused, meta=meta_with(traceparent=MALFORMED, tracestate=7)
        )
        whole = await collector.trace("tools/call update_state", "update", "resume")

    [update] = whole.named("update")
    assert (whole.span.name, whole.span.parent) == ("tools/call update_state", CALLER)
    assert whole.span.trace_id == TRACE
    assert update.span.attributes == {
        "fivetran_state.workflow.id": f"{IDLE}:1",
        "fivetran.connection.id": IDLE,
        "fivetran_state.outcome": "updated",
    }
    assert calls_by_step(update) == STEPS
    [write] = [each for each in update.below if each.span.name == "write"]
    assert write.below[0].span.attributes == {
        "http.request.method": "PATCH",
        "url.template": f"{CONNECTION}/state",
        "server.address": "127.0.0.1",
        "http.response.status_code": "200",
        "fivetran.connection.id": IDLE,
    }
    spans = collector.spans
    assert {span.service for span in spans} == {"fivetran-state"}
    refusals = [each for each in spans if each.name == whole.span.name and each.has_failed]
    assert [each.trace_id != TRACE and each.parent == "" for each in refusals] == [True]
    lines = {
        line.get("event"): (line.get("trace_id"), line.get("span_id"))
        for line in lines_of(tmp_path / "stderr.txt")
        if line.get("workflow_id") == f"{IDLE}:1"
    }
    assert lines["update.written"] == (TRACE, write.span.id)
    assert lines["update.ended"] == (TRACE, update.span.id)
    assert_shows_nothing(collector)


@pytest.mark.slow
async def test_a_request_over_http_continues_its_callers_trace(
    collector: Collector, environment: dict[str, str], tmp_path: Path
) -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=state-of-the-caller"}
    change = ANY | {"connection_id": IDLE, "merge_patch": {"cursor": NEW_MARKER}}
    async with http_forked(environment | collector.variables, tmp_path) as server:
        assert (await server.client.get("/healthz")).status_code == 200
        server.client.headers["traceparent"] = MALFORMED
        await post(server.client, "/state/update", change)
        server.client.headers.update(headers)
        await post(server.client, "/state/update", change | {"connection_id": PAUSED})
        url = str(server.client.base_url).rstrip("/")
        async with mcp_client(url, headers={"traceparent": MALFORMED}) as client:
            await update(client, IDLE, merge_patch={"cursor": MARKER})
        of_rest = await collector.trace("POST /state/update", "inspect", "pause", "update")
        of_caller = await collector.trace("POST /state/update", "update", id_=TRACE)
        of_tool = await collector.trace("POST /mcp", "tools/call update_state", "update")

    assert (of_rest.span.parent, of_rest.names) == ("", ["update"])
    assert calls_by_step(of_rest.below[0]) == STEPS
    assert (of_caller.span.parent, of_caller.span.trace_id) == (CALLER, TRACE)
    assert of_caller.below[0].span.attributes["fivetran.connection.id"] == PAUSED
    assert of_tool.below[0].names == ["update"]
    assert "GET /healthz" not in {span.name for span in collector.spans}
    assert_shows_nothing(collector)


@pytest.mark.slow
async def test_an_approved_update_continues_the_trace_of_whoever_has_proposed_it(
    collector: Collector, environment: dict[str, str], tmp_path: Path
) -> None:
    async with (
        http_forked(environment | collector.variables, tmp_path) as server,
        AsyncExitStack() as stack,
    ):
        url = str(server.client.base_url).rstrip("/")
        callers = []
        for scope in ("write", "approve"):
            _, token, _ = await run_cli(environment, "token", "create", "--scope", scope)
            callers.append(await stack.enter_async_context(client_of(url, token.strip())))
        asker, approver = callers
        change = ANY | {"connection_id": IDLE, "merge_patch": {"cursor": NEW_MARKER}}
        asker.headers["traceparent"] = TRACEPARENT
        asked = await post(asker, "/state/update", change | {"propose": True}, status=202)
        proposal = f"/proposals/{asked['workflow_id']}"
        approver.headers["traceparent"] = f"00-{OTHER_TRACE}-{CALLER}-01"
        version = (await get(approver, proposal))["plan"]["version_before"]
        await post(approver, f"{proposal}/approve", {"expected_version": version})
        of_asker = await collector.trace("POST /state/update", "update", id_=TRACE)
        approved = "POST /proposals/{workflow_id}/approve"
        await collector.has(lambda spans: approved in {span.name for span in spans})

    [update] = of_asker.named("update")
    assert update.span.parent == of_asker.span.id
    assert calls_by_step(update) == STEPS
    of_approver = {span.name for span in collector.spans if span.trace_id == OTHER_TRACE}
    assert approved in of_approver
    assert of_approver & {"update", *STEPS} == set()
    assert_shows_nothing(collector)


@pytest.mark.slow
async def test_no_header_of_a_trace_reaches_fivetran(
    collector: Collector, environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    of_trace = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "baggage": "user=alice"}
    change = ANY | {"connection_id": IDLE, "merge_patch": {"cursor": NEW_MARKER}}
    async with http_forked(environment | collector.variables, tmp_path) as server:
        server.client.headers.update(of_trace)
        await post(server.client, "/state/update", change)
        url = str(server.client.base_url).rstrip("/")
        async with mcp_client(url, headers=of_trace) as client:
            arguments = {"connection_id": PAUSED}
            await client.call_tool("get_state", arguments, meta=meta_with(**of_trace))
        ended = {"update", "tools/call get_state"}
        await collector.has(
            lambda spans: ended <= {span.name for span in spans if span.trace_id == TRACE}
        )

    sent = {name for request in sandbox.log for name in request.headers}
    own = {"accept", "authorization", "content-length", "content-type", "user-agent"}
    assert sent == own | {"accept-encoding", "connection", "host"}


@pytest.mark.slow
async def test_a_command_and_its_group_are_one_trace(
    collector: Collector, environment: dict[str, str]
) -> None:
    command = "update-many", IDLE, PAUSED, "--merge-patch", json.dumps({"cursor": NEW_MARKER})
    _, planned, _ = await run_cli(environment, *command, "--dry-run", "--json")
    version = json.loads(planned.splitlines()[-1])["version"]

    code, _, stderr = await run_cli(
        environment | collector.variables, *command, "--expected-version", version, "--yes"
    )

    assert code == 0, stderr
    whole = await collector.trace("fivetran-state update-many", "group")
    [group] = whole.named("group")
    updates = group.named("update")
    assert {each.span.parent for each in updates} == {group.span.id}
    assert {each.span.attributes["fivetran.connection.id"] for each in updates} == {IDLE, PAUSED}
    assert all("write" in each.names for each in updates)
    assert_shows_nothing(collector)


@pytest.mark.slow
async def test_updates_go_on_while_the_collector_does_not_answer(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    with closing(create_server(("127.0.0.1", 0))) as silent:
        away = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        async with running(environment | away, tmp_path) as server:
            for cursor in ("2020", "2021"):
                await update(server.client, IDLE, merge_patch={"cursor": cursor})
            await call(server.client, "list_connections")

    assert state_of(sandbox, IDLE)["cursor"] == "2021"
    lines = lines_of(tmp_path / "stderr.txt")
    about = [line for line in lines if line["level"] != "info" or "race" in line["message"]]
    assert len(about) <= 1, about


def begun(tmp_path: Path, **variables: str) -> tuple[list[str], str]:
    """What a process with these variables has imported of OpenTelemetry, and what it has logged."""
    code = (
        "import sys; from fivetran_state.startup import settings_for; settings_for(True);"
        "print(*[name for name in sys.modules if name.startswith('opentelemetry.')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"FIVETRAN_STATE_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split(), ended.stderr


EXPORTS_BY_ITSELF = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""
"""As opentelemetry-instrument does it: before the program begins, by a module that Python imports."""


@pytest.mark.slow
async def test_a_trace_is_whole_if_something_else_exports_it_and_one_line_says_so(
    collector: Collector, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(EXPORTS_BY_ITSELF)
    theirs = {"PYTHONPATH": str(tmp_path), "OTEL_SERVICE_NAME": "theirs"}
    variables = environment | collector.variables | theirs
    change = ANY | {"connection_id": IDLE, "merge_patch": {"cursor": NEW_MARKER}}
    async with http_running(variables, tmp_path) as server:
        await post(server.client, "/state/update", change)
        whole = await collector.trace("POST /state/update", "update", "resume")

    [update] = whole.named("update")
    assert calls_by_step(update) == STEPS
    assert {span.service for span in collector.spans} == {"theirs"}
    warnings = [
        line["message"]
        for line in lines_of(tmp_path / "stderr.txt")
        if line["level"] == "warning" and "opentelemetry-instrument" in line["message"]
    ]
    assert len(warnings) == 1


ON = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    "variables",
    [{}, ON | {"OTEL_SDK_DISABLED": "true"}, ON | {"OTEL_TRACES_EXPORTER": "none"}],
    ids=["unset", "disabled", "none"],
)
def test_without_its_variables_nothing_is_imported(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    assert begun(tmp_path, **variables) == ([], "")


def test_a_missing_extra_is_named_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "opentelemetry/sdk/__init__.py"
    missing.parent.mkdir(parents=True)
    missing.write_text("raise ImportError")

    _, stderr = begun(tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}", **ON)

    [line] = stderr.splitlines()
    assert "fivetran-state[otel]" in json.loads(line)["message"]


@pytest.mark.parametrize("name", ["OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_PROTOCOL"], ids=str)
def test_another_exporter_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    _, stderr = begun(tmp_path, **ON, **{name: "grpc"})

    [line] = stderr.splitlines()
    assert name in json.loads(line)["message"]
