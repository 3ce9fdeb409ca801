"""`kill -9` in the middle of an update: its trace goes on in the process that goes on with it."""

from collections import Counter
from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, RESCHEDULED, call, until
from tests.support.collector import Span, collecting
from tests.support.http_server import http_forked
from tests.support.processes import ended, running
from tests.support.rest import ANY, get, post
from tests.support.updates import BEFORE, WRITE, start_update_that_hangs


@pytest.mark.slow
async def test_a_recovered_update_is_one_trace(
    on_both: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    def has_read(spans: list[Span]) -> bool:
        return {"snapshot", "tools/call update_state"} <= {span.name for span in spans}

    with collecting() as collector:
        variables = on_both | collector.variables
        async with running(variables, tmp_path, OTEL_SERVICE_NAME="killed") as first:
            workflow_id = await start_update_that_hangs(
                first.client, sandbox, BEFORE, at_call=WRITE
            )
            await collector.has(has_read)
            await first.kill()
        async with running(variables, tmp_path, OTEL_SERVICE_NAME="recovered") as second:
            assert (await ended(second.client, workflow_id))["status"] == "updated"
            await call(second.client, "list_connections")
            whole = await collector.trace("tools/call update_state", "update")

    assert (whole.span.service, whole.names) == ("killed", ["update"])
    [update] = whole.below
    assert update.span.service == "recovered"
    assert update.span.attributes["fivetran.connection.id"] == IDLE
    assert update.span.start <= min(each.span.start for each in update.below)
    assert [(each.span.name, each.span.service) for each in update.below] == [
        ("inspect", "killed"),
        ("pause", "killed"),
        ("snapshot", "killed"),
        ("write", "recovered"),
        ("verify", "recovered"),
        ("resume", "recovered"),
    ]


@pytest.mark.slow
async def test_the_members_of_a_recovered_group_are_in_one_trace(
    on_either: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    def have_read(spans: list[Span]) -> bool:
        names = Counter(span.name for span in spans)
        return names["snapshot"] == 2 and names["POST /states/update"] == 1

    async def have_come() -> bool:
        return [request.fault for request in sandbox.log].count(BEFORE) == 2

    members = [IDLE, RESCHEDULED]
    change = ANY | {"connection_ids": members, "merge_patch": {"cursor": "2020"}}
    with collecting() as collector:
        variables = on_either | collector.variables
        sandbox.fault(BEFORE, method="PATCH", path="/state$", times=2)
        killed = variables | {"OTEL_SERVICE_NAME": "killed"}
        async with http_forked(killed, tmp_path) as first:
            asked = await post(
                first.client, "/states/update", change, status=202, Prefer="respond-async"
            )
            await until(have_come)
            await collector.has(have_read)
            await first.kill()
        recovered = variables | {"OTEL_SERVICE_NAME": "recovered"}
        async with http_forked(recovered, tmp_path) as second:
            ended = await get(second.client, f"/workflows/{asked['workflow_id']}", wait=60)
            whole = await collector.trace("POST /states/update", "group", "update")

    assert ended["status"] == "updated"
    [group] = whole.named("group")
    updates = whole.named("update")
    assert (whole.span.service, group.span.service) == ("killed", "recovered")
    assert group.span.parent == whole.span.id
    assert {each.span.parent for each in updates} == {group.span.id}
    assert sorted(each.span.attributes["fivetran.connection.id"] for each in updates) == members
    for update in updates:
        assert [(each.span.name, each.span.service) for each in update.below] == [
            ("inspect", "killed"),
            ("pause", "killed"),
            ("snapshot", "killed"),
            ("write", "recovered"),
            ("verify", "recovered"),
            ("verdict", "recovered"),
            ("resume", "recovered"),
        ]
