"""`kill -9` in the middle of an update: its trace goes on in the process that goes on with it."""

from pathlib import Path

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, call
from tests.support.collector import Span, collecting
from tests.support.processes import ended, running
from tests.support.updates import BEFORE, WRITE, start_update_that_hangs


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
