"""REST: several connections are changed as a group, or none of them is touched."""

from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import (
    EMPTY,
    EXACT,
    IDLE,
    PAUSED,
    SYNCING,
    arrival,
    is_pause,
    state_of,
    sync_runs_on,
)
from tests.support.people import person
from tests.support.rest import ANY, get, post

PATH = "/state/update-multiple"
PATCH = ANY | {"merge_patch": {"cursor": "2020"}}
TEST = ANY | {"json_patch": [{"op": "test", "path": "/cursor", "value": "2020"}]}


@pytest.mark.parametrize(
    ("last", "change", "status", "code"),
    [
        (EMPTY, PATCH, 404, "no_state_yet"),
        ("not_there", PATCH, 404, "connection_not_found"),
        ("patient_archive", PATCH, 409, "resync_pending"),
        ("postgres_mirror", PATCH, 422, "state_not_kept"),
        (EXACT, TEST, 422, "invalid_change"),
        (PAUSED, PATCH | {"then_sync": True}, 422, "invalid_request"),
    ],
    ids=["no-state", "unknown", "resync", "stateless", "test-fails", "sync-of-paused"],
)
async def test_if_the_last_cannot_be_changed_nobody_is_paused(
    http: Serve, sandbox: Sandbox, last: str, change: dict[str, Any], status: int, code: str
) -> None:
    sandbox.set_state(IDLE, '{"cursor":"2020"}')
    body = {"connection_ids": [IDLE, "late_ferry", last]} | change
    sandbox.set_state("late_ferry", '{"cursor":"2020"}')
    async with http() as server:
        refused = await post(server.client, PATH, body, status=status)
        history = await get(server.client, "/workflows")

    assert refused["code"] == code
    assert history["workflows"] == []
    assert [request.path for request in sandbox.log if request.method == "PATCH"] == []


async def test_allow_resync_changes_all(http: Serve, sandbox: Sandbox) -> None:
    body = {"connection_ids": [IDLE, "patient_archive"]} | PATCH
    async with http() as server:
        made = await post(server.client, PATH, body | {"allow_resync": True})

    assert [each["status"] for each in made.values()] == ["updated", "updated"]
    assert state_of(sandbox, "patient_archive") == {"cursor": "2020"}


async def test_a_change_that_needs_approval_and_changes_nothing_is_answered_by_its_plan(
    http: Serve, sandbox: Sandbox
) -> None:
    for connection_id in (IDLE, PAUSED):
        sandbox.set_state(connection_id, '{"cursor":"2020"}')
    async with http(FIVETRAN_STATE_CONFIRM="always") as server, person(server, "write") as asker:
        plan = await asker.post(PATH, {"connection_ids": [IDLE, PAUSED]} | PATCH)

    assert (plan["status"], plan["unchanged"], plan["changed"]) == ("planned", 2, 0)


async def test_then_sync_starts_a_sync_of_each(http: Serve, sandbox: Sandbox) -> None:
    body = {"connection_ids": [IDLE, EXACT], "then_sync": True} | PATCH
    async with http() as server:
        made = await post(server.client, PATH, body)

    assert ["A sync was started." in each["message"] for each in made.values()] == [True, True]
    syncs = [each.connection_id for each in sandbox.log if each.path.endswith("/sync")]
    assert sorted(map(str, syncs)) == sorted([IDLE, EXACT])


async def test_the_same_request_attaches_while_it_runs(http: Serve, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    body = {"connection_ids": [IDLE, SYNCING]} | PATCH
    async with http() as server:
        first = await post(server.client, PATH, body, status=202, Prefer="respond-async")
        await arrival(sandbox, lambda each: each.connection_id == SYNCING and is_pause(each))
        again = await post(server.client, PATH, body, status=202, Prefer="wait=0")
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, f"/workflows/{first['workflow_id']}", wait=50)
        history = await get(server.client, "/workflows")

    assert again["workflow_id"] == first["workflow_id"]
    assert ended["status"] == "updated"
    assert len(history["workflows"]) == 2
