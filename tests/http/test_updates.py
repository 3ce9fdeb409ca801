"""REST: options of an update besides its change, and documents that are not states."""

from functools import partial
from typing import Any

import anyio
import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import (
    IDLE,
    PAUSED,
    SYNCING,
    api_calls,
    arrival,
    is_pause,
    state_of,
    sync_runs_on,
)
from tests.support.http_server import counted_statements
from tests.support.rest import ANY, get, post

UPDATE = "/state/update"
ONE = {"connection_id": IDLE}
PATCH = ANY | ONE | {"merge_patch": {"cursor": "2020"}}
RESYNCING = ANY | {"connection_id": "patient_archive", "merge_patch": {"cursor": "2020"}}


# Besides the change


async def test_then_sync_starts_a_sync(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        plan = await post(server.client, UPDATE, PATCH | {"then_sync": True, "dry_run": True})
        made = await post(server.client, UPDATE, PATCH | {"then_sync": True})
        paused = await post(
            server.client, UPDATE, PATCH | {"connection_id": PAUSED, "then_sync": True}, status=422
        )

    assert "Then a sync is started." in plan["message"]
    assert "A sync was started." in made["message"]
    assert api_calls(sandbox, IDLE).count("POST") == 1
    assert paused["code"] == "invalid_request"


async def test_a_pending_resync_has_to_be_allowed(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        refused = await post(server.client, UPDATE, RESYNCING, status=409)
        assert "PATCH" not in api_calls(sandbox, "patient_archive")
        made = await post(server.client, UPDATE, RESYNCING | {"allow_resync": True})

    assert refused["code"] == "resync_pending"
    assert made["verified_state"] == {"cursor": "2020"}


async def test_only_a_part_is_undone_or_copied(http: Serve, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, '{"a":1,"b":1}')
    sandbox.set_state(PAUSED, '{"a":9,"b":9}')
    undo = ANY | ONE | {"restore_from": f"{IDLE}:1", "only": "/a"}
    async with http() as server:
        await post(server.client, UPDATE, ANY | ONE | {"new_state": {"a": 2, "b": 2}})
        plan = await post(server.client, UPDATE, undo | {"dry_run": True})
        undone = await post(server.client, UPDATE, undo)
        copied = await post(server.client, UPDATE, ANY | ONE | {"copy_from": PAUSED, "only": "/b"})
        for wrong in (PATCH | {"only": "/a"}, undo | {"only": "a"}):
            refused = await post(server.client, UPDATE, wrong, status=422)
            assert refused["code"] == "invalid_request"

    assert [change["path"] for change in plan["changes"]] == ["/a"]
    assert undone["verified_state"] == {"a": 1, "b": 2}
    assert copied["verified_state"] == {"a": 1, "b": 9}


async def test_an_update_that_wrote_nothing_is_not_undone(http: Serve) -> None:
    body = PATCH | {"expected_version": "0" * 32}
    async with http() as server:
        await post(server.client, UPDATE, body, status=409)
        undo = ANY | ONE | {"restore_from": f"{IDLE}:1"}
        refused = await post(server.client, UPDATE, undo, status=409)

    assert refused["code"] == "nothing_to_undo"


async def test_an_ended_update_tells_what_came_since(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        await post(
            server.client, UPDATE, ANY | ONE | {"new_state": {"cursor": "2020-01-01T00:00:00Z"}}
        )
        before = await get(server.client, f"/workflows/{IDLE}:1")
        sandbox.start_sync(IDLE)
        during = await get(server.client, f"/workflows/{IDLE}:1")
        sandbox.finish_sync(IDLE)
        after = await get(server.client, f"/workflows/{IDLE}:1")
        read = await post(server.client, "/state/get", ONE)

    assert (before["since"]["sync"], before["since"]["state_moved"]) == ("none", False)
    assert during["since"]["sync"] == "running"
    assert after["since"] == {
        "sync": "succeeded",
        "state_moved": True,
        "version": read["version"],
    }


async def test_the_history_of_an_unknown_connection_is_not_found(http: Serve) -> None:
    async with http() as server:
        missing = await get(server.client, "/workflows", connection_id="not_there", status=404)
        empty = await get(server.client, "/workflows", connection_id=IDLE)
        unknown = await get(server.client, "/connections", service="lambda", status=422)

    assert missing["code"] == "connection_not_found"
    assert "updates that were made through this server" in empty["message"]
    assert "aws_lambda" in unknown["detail"]


# Documents that are not states

RAW = [
    '[1,{"a":1.10}]',
    '"{\\"cursor\\":1}"',
    '{"a":1,"a":2}',
    '{"a":' + "[" * 120 + "]" * 120 + "}",
]


@pytest.mark.parametrize("text", RAW, ids=["array", "encoded-twice", "key-twice", "deep"])
async def test_what_is_not_a_state_is_seen_and_replaced(
    http: Serve, sandbox: Sandbox, text: str
) -> None:
    sandbox.set_state(IDLE, text)
    new: dict[str, Any] = ANY | ONE | {"new_state": {"cursor": 1}}
    async with http() as server:
        read = await post(server.client, "/state/get", ONE)
        both = await post(server.client, "/state/get-multiple", {"connection_ids": [IDLE, PAUSED]})
        asked = await post(server.client, UPDATE, ONE)
        plan = await post(server.client, UPDATE, new | {"dry_run": True})
        refused = await post(server.client, UPDATE, PATCH, status=422)
        assert sandbox.connection(IDLE).state == text
        made = await post(server.client, UPDATE, new | {"expected_version": read["version"]})
        undo = ANY | ONE | {"restore_from": made["workflow_id"]}
        kept = await post(server.client, UPDATE, undo, status=422)

    assert both[IDLE] == read
    assert read["state_json"] == asked["current_state_json"] == made["current_state_json"] == text
    assert read["problem"] == asked["problem"]
    assert not {"state", "current_state"} & {*read, *asked, *made}
    assert plan["version_before"] == read["version"] == asked["version"]
    assert refused["code"] == kept["code"] == "invalid_change"
    assert made["verified_state"] == {"cursor": 1} == state_of(sandbox, IDLE)


# Waiting


@pytest.mark.slow
async def test_many_callers_that_wait_ask_the_database_once(http: Serve, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    async with http() as server:
        started = await post(
            server.client,
            UPDATE,
            PATCH | {"connection_id": SYNCING},
            status=202,
            Prefer="respond-async",
        )
        path = f"/workflows/{started['workflow_id']}"
        await arrival(sandbox, is_pause)
        with counted_statements() as statements:
            async with anyio.create_task_group() as callers:
                for _ in range(40):
                    callers.start_soon(partial(get, server.client, path, wait=5))
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, path, wait=50)

    assert ended["status"] == "updated"
    assert len(statements) < 40 * 20


async def test_an_update_that_a_caller_waits_for_is_read_twice_when_it_has_ended(
    http: Serve,
) -> None:
    async with http() as server:
        await post(server.client, UPDATE, PATCH)
        with counted_statements() as statements:
            made = await post(server.client, UPDATE, PATCH | {"merge_patch": {"cursor": "2021"}})

    assert made["status"] == "updated"
    selects = [each for each in statements if each.startswith("SELECT")]
    # Its progress is known in this process.
    assert not [each for each in selects if "workflow_events" in each]
    # For the answer, and for the states in it.
    assert len([each for each in selects if "operation_outputs.completed_at" in each]) == 2
