"""REST: many connections are chosen, planned, changed together and undone."""

import json
import threading
from typing import Any

import anyio.to_thread
import pytest
from sqlalchemy import Engine, event

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import (
    EMPTY,
    EXACT,
    IDLE,
    PAUSED,
    RESCHEDULED,
    STATELESS,
    SYNCING,
    arrival,
    is_pause,
    is_resume,
    state_of,
    sync_runs_on,
    until,
)
from tests.support.http_server import HttpServer, counted_statements
from tests.support.rest import ANY, get, post

PATH = "/states/update"
PATCH = ANY | {"merge_patch": {"cursor": "2020"}}
BOTH = [IDLE, PAUSED]
OLD = {"cursor": "2019"}
BUSY = "busy"


def add_ferries(sandbox: Sandbox, number: int) -> list[str]:
    """Connections of a group of their own, all with the same state."""
    ids = [f"ferry_{at:02}" for at in range(number)]
    for connection_id in ids:
        sandbox.add_connection(connection_id, state=json.dumps(OLD), group_id="harbour")
    return ids


async def planned(server: HttpServer, **body: Any) -> dict[str, Any]:
    return await post(server.client, PATH, body | {"dry_run": True})


def writes(sandbox: Sandbox) -> list[str]:
    return [each.path for each in sandbox.log if each.method != "GET"]


# Choosing


async def test_a_filter_chooses_the_connections_with_a_state_that_fit_all_of_it(
    http: Serve, sandbox: Sandbox
) -> None:
    ferries = add_ferries(sandbox, 3)
    sandbox.add_connection("ferry_of_others", state="{}")
    async with http() as server:
        by_name = await planned(server, filter={"name": "FERRY_*"}, **PATCH)
        by_both = await planned(server, filter={"name": "ferry_*", "group": "harbour"}, **PATCH)
        by_service = await planned(server, filter={"service": "aws_lambda"}, **PATCH)
        none = await post(server.client, PATH, {"filter": {"name": "no*"}} | PATCH, status=422)
        empty = await post(server.client, PATH, {"filter": {"name": ""}} | PATCH, status=422)

    assert {each["connection_id"] for each in by_name["connections"]} == {
        *ferries,
        "ferry_of_others",
        RESCHEDULED,  # It is named ferry_api.
    }
    assert [each["connection_id"] for each in by_both["connections"]] == ferries
    assert IDLE in {each["connection_id"] for each in by_service["connections"]}
    assert "fits the filter" in none["detail"]
    assert "name * chooses everything" in empty["detail"]
    assert writes(sandbox) == []


async def test_the_version_pins_which_connections_a_filter_has_found(
    http: Serve, sandbox: Sandbox
) -> None:
    body = {"filter": {"group": "harbour"}} | PATCH
    ferries = add_ferries(sandbox, 3)
    async with http() as server:
        plan = await planned(server, **body)
        sandbox.add_connection("ferry_more", state="{}", group_id="harbour")
        pinned = body | {"expected_version": plan["version"]}
        conflict = await post(server.client, PATH, pinned, status=409)
        sandbox.delete_connection("ferry_more")
        made = await post(server.client, PATH, pinned)

    assert (conflict["code"], "dry_run" in conflict["hint"]) == ("conflict", True)
    assert (made["status"], made["counts"]) == ("updated", {"updated": 3})
    assert [state_of(sandbox, each) for each in ferries] == [{"cursor": "2020"}] * 3


async def test_each_connection_gets_a_change_of_its_own(http: Serve, sandbox: Sandbox) -> None:
    sandbox.set_state(EXACT, '{"n":1.10,"big":12345678901234567890}')
    body = {
        "changes": [
            {"connection_id": IDLE, "new_state": {"a": 1}},
            {"connection_id": EXACT, "json_patch": [{"op": "add", "path": "/m", "value": 2}]},
            {"connection_id": PAUSED, "copy_from": EXACT, "only": "/n"},
        ]
    }
    async with http() as server:
        made = await post(server.client, PATH, ANY | body)

    assert made["counts"] == {"updated": 3}
    assert state_of(sandbox, IDLE) == {"a": 1}
    assert sandbox.connection(EXACT).state == '{"n":1.10,"big":12345678901234567890,"m":2}'
    assert '"n":1.10' in (sandbox.connection(PAUSED).state or "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (PATCH, "exactly one way"),
        ({"connection_ids": BOTH, "filter": {"name": "*"}} | PATCH, "Given: connection_ids; filter"),
        ({"connection_ids": BOTH}, "Give exactly one of"),
        ({"connection_ids": [IDLE, PAUSED, IDLE]} | PATCH, f"each connection once: {IDLE}"),
        (
            {"changes": [{"connection_id": IDLE, "new_state": {}}] * 2},
            f"each connection once: {IDLE}",
        ),
        ({"changes": [{"connection_id": IDLE}]}, "changes[0]: Give exactly one of"),
        ({"changes": [{"connection_id": IDLE, "new_state": {}}]} | PATCH, "cannot go with changes"),
        ({"undo": "together:1"} | PATCH, "cannot go with undo"),
        ({"connection_ids": [f"c{at}" for at in range(1001)]} | PATCH, "at most 1000 items"),
        ({"connection_ids": BOTH, "cursor": IDLE} | PATCH, "cursor goes with dry_run"),
        ({"connection_ids": BOTH, "cursor": "x", "dry_run": True} | PATCH, "next_cursor"),
        ({"connection_ids": BOTH, "mode": "some"} | PATCH, "mode must be 'all_or_nothing' or "),
        ({"filter": {"nme": "x"}} | PATCH, "filter.nme is not an argument"),
        ({"changes": [{"new_state": {}}]}, "changes[0].connection_id is missing"),
    ],
)  # fmt: skip
async def test_a_wrong_choice_is_refused_and_sends_nothing(
    http: Serve, sandbox: Sandbox, body: dict[str, Any], said: str
) -> None:
    async with http() as server:
        refused = await post(server.client, PATH, ANY | body, status=422)

    assert said in refused["detail"]
    assert [each.path for each in sandbox.log if "connections" in each.path] == []


async def test_a_filter_that_finds_more_than_a_thousand_is_refused_without_a_further_page(
    http: Serve, sandbox: Sandbox
) -> None:
    for at in range(2500):
        sandbox.add_connection(f"many_{at:04}", state="{}")
    async with http() as server:
        refused = await post(
            server.client, PATH, {"filter": {"name": "many_*"}} | PATCH, status=422
        )

    assert "More than 1,000 connections" in refused["detail"]
    assert "fit name 'many_*'; a group has at most 1,000. Narrow name" in refused["detail"]
    pages = [each for each in sandbox.log if each.path.endswith("/v1/connections")]
    assert len(pages) == 2
    assert writes(sandbox) == []


# Planning


@pytest.mark.slow
async def test_a_plan_shows_the_first_twenty_and_a_cursor_leads_through_the_rest(
    http: Serve, sandbox: Sandbox
) -> None:
    ferries = add_ferries(sandbox, 45)
    sandbox.set_state(ferries[30], '{"cursor":"2020"}')
    sandbox.set_state(ferries[41], None)
    body = {"connection_ids": ferries, "mode": "independent"} | PATCH
    async with http() as server:
        plan = await planned(server, **body)
        second = await planned(server, **body, cursor=plan["next_cursor"])
        third = await planned(server, **body, cursor=second["next_cursor"])

    assert [plan[name] for name in ("changed", "unchanged", "failed", "more")] == [43, 1, 1, 23]
    assert plan["kinds"] == [{"connections": 43, "changes": ["replace /cursor"]}]
    shown = [plan["connections"], second["connections"], third["connections"]]
    assert [each["connection_id"] for page in shown for each in page] == [
        each for each in ferries if each != ferries[41]
    ]
    assert [each["error"]["code"] for each in third["failures"]] == ["no_state_yet"]
    assert "41 to 45 of 45" in third["message"]
    assert ["version" in page for page in (plan, second, third)] == [True, False, False]
    assert "next_cursor" not in third
    assert writes(sandbox) == []


async def test_a_plan_names_what_is_unusual(http: Serve) -> None:
    async with http() as server:
        await post(server.client, "/state/get", {"connection_id": IDLE})
        body = {"connection_ids": BOTH, "merge_patch": {"cursor": "2999-01-01T00:00:00Z"}}
        plan = await planned(server, **body)

    warnings = plan["connections"][0]["warnings"]
    assert any("Unusual: /cursor" in each for each in warnings)


async def test_a_state_that_moves_after_the_plan_is_a_conflict_and_nothing_is_touched(
    http: Serve, sandbox: Sandbox
) -> None:
    body = {"connection_ids": BOTH} | PATCH
    async with http() as server:
        plan = await planned(server, **body)
        sandbox.set_state(PAUSED, '{"cursor":"moved"}')
        refused = await post(
            server.client, PATH, body | {"expected_version": plan["version"]}, status=409
        )

    assert refused["code"] == "conflict"
    assert refused["current_version"] != plan["version"]
    assert writes(sandbox) == []


async def test_a_version_of_another_mode_is_a_conflict(http: Serve, sandbox: Sandbox) -> None:
    body = {"connection_ids": BOTH} | PATCH
    async with http() as server:
        plan = await planned(server, **body)
        other = body | {"mode": "independent", "expected_version": plan["version"]}
        refused = await post(server.client, PATH, other, status=409)

    assert refused["code"] == "conflict"
    assert writes(sandbox) == []


# Changing


async def test_independent_changes_those_that_it_can_and_names_the_others_first(
    http: Serve, sandbox: Sandbox
) -> None:
    ferries = add_ferries(sandbox, 3)
    sandbox.set_state(ferries[2], '{"cursor":"2020"}')
    sandbox.fault("status", method="PATCH", path=f"/{ferries[0]}/state$", status=403, times=99)
    body = {"connection_ids": [*ferries, EMPTY, STATELESS], "mode": "independent"} | PATCH
    async with http() as server:
        made = await post(server.client, PATH, ANY | body)
        status = await get(server.client, f"/workflows/{made['workflow_id']}")

    assert made == status
    assert (made["status"], made["total"]) == ("partly_updated", 5)
    assert made["counts"] == {
        "forbidden": 1,
        "no_state_yet": 1,
        "state_not_kept": 1,
        "unchanged": 1,
        "updated": 1,
    }
    assert {each["connection_id"]: each["error"]["code"] for each in made["not_started"]} == {
        EMPTY: "no_state_yet",
        STATELESS: "state_not_kept",
    }
    assert "1 of 5 connections were changed. 1 were as they should be." in made["message"]
    assert state_of(sandbox, ferries[0]) == OLD
    assert state_of(sandbox, ferries[1]) == {"cursor": "2020"}
    assert not any(sandbox.connection(each).paused for each in ferries)


async def test_all_or_nothing_is_refused_for_one_and_names_every_failure(
    http: Serve, sandbox: Sandbox
) -> None:
    body = {"connection_ids": [IDLE, EMPTY, STATELESS]} | PATCH
    async with http() as server:
        plan = await planned(server, **body)
        refused = await post(server.client, PATH, body, status=404)

    assert "all_or_nothing would be refused" in plan["message"]
    assert refused["code"] == "no_state_yet"
    assert [each["connection_id"] for each in refused["failures"]] == [EMPTY, STATELESS]
    assert writes(sandbox) == []


async def test_a_connection_that_is_not_allowed_is_refused_and_not_chosen(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http(FIVETRAN_STATE_ALLOWED_CONNECTIONS=f"{IDLE},{EXACT}") as server:
        refused = await post(server.client, PATH, {"connection_ids": BOTH} | PATCH, status=403)
        plan = await planned(server, filter={"name": "*"}, **PATCH)

    assert refused["code"] == "not_allowed"
    assert plan["total"] == 2
    assert writes(sandbox) == []


@pytest.mark.slow
async def test_a_busy_connection_is_refused_or_waited_for(http: Serve, sandbox: Sandbox) -> None:
    sandbox.add_connection(BUSY, state="{}", sync_seconds=3600, drain_seconds=3600)
    sandbox.start_sync(BUSY)
    body = {"connection_ids": [BUSY, IDLE]} | PATCH
    async with http() as server:
        first = {"connection_id": BUSY, "merge_patch": {"a": 1}}
        running = await post(
            server.client, "/state/update", ANY | first, status=202, Prefer="respond-async"
        )
        await arrival(sandbox, lambda each: each.connection_id == BUSY and is_pause(each))
        refused = await post(server.client, PATH, body, status=409)
        waiting = await post(
            server.client, PATH, body | {"if_busy": "wait"}, status=202, Prefer="wait=1"
        )
        sandbox.finish_sync(BUSY)
        ended = await get(server.client, f"/workflows/{waiting['workflow_id']}", wait=50)
        await get(server.client, f"/workflows/{running['workflow_id']}", wait=50)

    assert refused["code"] == "update_in_progress"
    free = next(each.index for each in sandbox.log if is_resume(each))
    assert [each.connection_id for each in sandbox.log[:free] if is_pause(each)] == [BUSY]
    assert waiting["status"] == "running"
    assert (ended["status"], ended["counts"]) == ("updated", {"updated": 2})
    assert state_of(sandbox, BUSY)["a"] == 1
    assert state_of(sandbox, BUSY)["cursor"] == "2020"


async def test_a_group_that_waits_for_a_connection_puts_back_the_others_once_one_has_failed(
    http: Serve, sandbox: Sandbox
) -> None:
    """The connection is taken by another update when the group has found all of them free."""
    ferries = add_ferries(sandbox, 3)
    sandbox.fault("status", method="PATCH", path=f"/{ferries[1]}/state$", status=403, times=99)
    held = sandbox.fault("hang", method="PATCH", path=f"/{ferries[2]}/state$")
    has_begun, is_taken = threading.Event(), threading.Event()

    def take(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        is_news = "notifications" in statement and "together:" in str(parameters)
        if is_news and not has_begun.is_set():
            has_begun.set()
            is_taken.wait(60)

    event.listen(Engine, "before_cursor_execute", take)
    try:
        async with http() as server:
            body = PATCH | {"connection_ids": ferries, "if_busy": "wait"}
            group = await post(server.client, PATH, body, status=202, Prefer="respond-async")
            await anyio.to_thread.run_sync(has_begun.wait, 60)
            other = {"connection_id": ferries[2], "merge_patch": {"a": 1}}
            await post(
                server.client, "/state/update", ANY | other, status=202, Prefer="respond-async"
            )
            is_taken.set()
            await arrival(sandbox, lambda each: each.fault == "hang")
            first = f"/workflows/{ferries[0]}:1"

            async def has_started() -> bool:
                return (await server.client.get(first)).status_code == 200

            await until(has_started)
            undone = await get(server.client, first, wait=30)
            held.release()
            ended = await get(server.client, f"/workflows/{group['workflow_id']}", wait=30)
            await get(server.client, f"/workflows/{ferries[2]}:1", wait=30)
    finally:
        event.remove(Engine, "before_cursor_execute", take)

    assert undone["error"]["code"] == "undone"
    assert (ended["status"], ended["error"]["code"]) == ("failed", "forbidden")
    assert [each["connection_id"] for each in ended["not_started"]] == [ferries[2]]
    assert state_of(sandbox, ferries[0]) == OLD
    assert state_of(sandbox, ferries[2]) == OLD | {"a": 1}


# Following


@pytest.mark.slow
async def test_a_look_at_a_running_group_reads_no_update_again_that_has_ended(
    http: Serve, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    ferries = add_ferries(sandbox, 40)
    sandbox.fault("status", method="PATCH", path=f"/{ferries[3]}/state$", status=403, times=99)
    body = {"connection_ids": [SYNCING, *ferries], "mode": "independent"} | PATCH
    async with http() as server:
        begun = await post(server.client, PATH, body, status=202, Prefer="wait=0")
        path = f"/workflows/{begun['workflow_id']}"

        async def all_but_one_have_ended() -> dict[str, Any] | None:
            view = await get(server.client, path)
            return view if view["counts"].get("updated") == 39 else None

        first = await until(all_but_one_have_ended)
        with counted_statements() as statements:
            second = await get(server.client, path)
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, path, wait=50)

    assert second["counts"] == {"forbidden": 1, "running": 1, "updated": 39}
    assert second["updates"][1:] == first["updates"][1:]
    assert len(statements) < 40
    assert ended["counts"] == {"forbidden": 1, "updated": 40}
    assert ended["updates"][1:] == second["updates"][1:]


@pytest.mark.slow
async def test_a_group_that_is_followed_counts_each_connection_as_it_ends(
    http: Serve, sandbox: Sandbox
) -> None:
    for connection_id in (SYNCING, other := add_ferries(sandbox, 1)[0]):
        sync_runs_on(sandbox, connection_id)
    body = {"connection_ids": [SYNCING, other, IDLE], "mode": "independent"} | PATCH
    async with http() as server:
        begun = await post(server.client, PATH, body, status=202, Prefer="wait=0")
        path = f"/workflows/{begun['workflow_id']}"
        seen = []

        async def is_updated(count: int) -> bool:
            view = await get(server.client, path)
            seen.append([each["status"] for each in view["updates"]])
            return bool(view["counts"].get("updated") == count)

        await until(lambda: is_updated(1))
        sandbox.finish_sync(other)
        await until(lambda: is_updated(2))
        middle = seen[-1]
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, path, wait=50)

    assert middle == ["running", "updated", "updated"]
    assert ended["counts"] == {"updated": 3}


# Undoing


@pytest.mark.slow
async def test_a_group_is_undone_and_the_undo_too(http: Serve, sandbox: Sandbox) -> None:
    before = [state_of(sandbox, each) for each in BOTH]
    async with http() as server:
        made = await post(server.client, PATH, {"connection_ids": BOTH} | PATCH)
        plan = await planned(server, undo=made["workflow_id"])
        undone = await post(
            server.client, PATH, {"undo": made["workflow_id"], "expected_version": plan["version"]}
        )
        restored = [state_of(sandbox, each) for each in BOTH]
        await post(server.client, PATH, ANY | {"undo": undone["workflow_id"]})
        nothing = await post(
            server.client, PATH, ANY | {"undo": f"together:{'0' * 32}"}, status=404
        )

    assert plan["changed"] == 2
    assert restored == before
    assert [state_of(sandbox, each)["cursor"] for each in BOTH] == ["2020", "2020"]
    assert nothing["code"] == "workflow_not_found"


async def test_a_history_names_the_group_of_an_update(http: Serve) -> None:
    async with http() as server:
        made = await post(server.client, PATH, {"connection_ids": BOTH} | PATCH)
        alone = await post(
            server.client,
            "/state/update",
            {"connection_id": IDLE, "new_state": {}, "expected_version": "*"},
        )
        history = await get(server.client, f"/connections/{IDLE}/history")
        listed = await get(server.client, "/workflows", connection_id=PAUSED)
        status = await get(server.client, f"/workflows/{PAUSED}:1")

    groups = {each["workflow_id"]: each.get("part_of") for each in history["entries"][:2]}
    assert groups == {alone["workflow_id"]: None, f"{IDLE}:1": made["workflow_id"]}
    assert listed["workflows"][0]["part_of"] == status["part_of"] == made["workflow_id"]


# Repeating


@pytest.mark.parametrize("mode", ["all_or_nothing", "independent"])
async def test_the_same_key_is_the_same_group(http: Serve, sandbox: Sandbox, mode: str) -> None:
    sandbox.set_state(EXACT, '{"cursor":"2020"}')
    ids = [IDLE, EXACT] if mode == "all_or_nothing" else [IDLE, EXACT, EMPTY]
    body = {"connection_ids": ids, "mode": mode} | PATCH
    async with http() as server:
        first = await post(server.client, PATH, body, Idempotency_Key="k")
        again = await post(server.client, PATH, body, Idempotency_Key="k")
        other = body | {"merge_patch": {"cursor": "1"}}
        reused = await post(server.client, PATH, other, status=422, Idempotency_Key="k")

    assert again == first
    assert reused["code"] == "idempotency_key_reused"


@pytest.mark.slow
async def test_a_repeated_version_is_the_same_group_until_the_states_are_back(
    http: Serve, sandbox: Sandbox
) -> None:
    async with http() as server:
        body = {"connection_ids": BOTH, "mode": "independent"} | PATCH
        plan = await planned(server, **body)
        pinned = body | {"expected_version": plan["version"]}
        first = await post(server.client, PATH, pinned)
        again = await post(server.client, PATH, pinned)
        await post(server.client, PATH, ANY | {"undo": first["workflow_id"]})
        anew = await post(server.client, PATH, pinned)

    assert again == first
    assert anew["workflow_id"] != first["workflow_id"]
    assert anew["status"] == "updated"


async def test_a_key_that_only_reads_may_plan_and_not_change(http: Serve, sandbox: Sandbox) -> None:
    body = {"connection_ids": BOTH} | PATCH
    async with http() as server:
        server.client.headers["Authorization"] = f"Bearer {server.new_token('read')}"
        plan = await planned(server, **body)
        refused = await post(server.client, PATH, body, status=403)

    assert plan["changed"] == 2
    assert refused["code"] == "insufficient_scope"
    assert writes(sandbox) == []
