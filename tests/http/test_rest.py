"""REST: states, updates and workflows as routes, for programs."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fivetran_state.errors import FivetranStateError
from fivetran_state.http_server.problems import STATUS
from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import (
    API_KEY,
    API_SECRET,
    EMPTY,
    EXACT,
    IDLE,
    LARGE,
    PAUSED,
    ROOT,
    STATELESS,
    SYNCING,
    api_calls,
    arrival,
    state_of,
    sync_runs_on,
    until,
)
from tests.support.http_server import authorization, http_forked
from tests.support.rest import ANY, get, parsed, post

OWN = {"api_key": API_KEY, "api_secret": API_SECRET}
CURSOR = "2025-03-06 20:20:20"
MISSING = "not_there"
OTHER_VERSION = "0" * 32
NEVER_OVER_REST = {"cannot_serve", "not_confirmed", "sync_running", "too_large_to_confirm"}


# As the original tool was called


async def test_the_calls_of_the_original_tool_work(http: Serve, sandbox: Sandbox) -> None:
    before = state_of(sandbox, IDLE)
    whose = OWN | {"connection_id": IDLE}
    cursor = {"cursor": CURSOR}
    both = {"cursor": CURSOR, "last_sync": "2025-01-15T10:30:00Z"}
    async with http() as server:
        read = await post(server.client, "/state/get", whose)
        asked = await post(server.client, "/state/update", whose)
        first = await post(server.client, "/state/update", whose | {"new_state": cursor})
        second = await post(server.client, "/state/update", whose | {"new_state": both})
        front = await get(server.client, "/")

    assert read["state"] == asked["current_state"] == before
    assert (first["current_state"], first["verified_state"]) == (before, cursor)
    assert (second["current_state"], second["verified_state"]) == (cursor, both)
    assert asked["message"]
    assert first["message"] == second["message"]
    assert (first["status"], second["status"]) == ("updated", "updated")
    assert (first["workflow_id"], second["workflow_id"]) == (f"{IDLE}:1", f"{IDLE}:2")
    assert state_of(sandbox, IDLE) == both
    assert sandbox.connection(IDLE).paused is False
    assert (front["mcp"], front["rest"]) == ("/mcp", "/docs")


@pytest.mark.slow
async def test_an_update_that_is_killed_in_the_middle_is_completed_after_a_restart(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    body = OWN | {"connection_id": IDLE, "new_state": {"cursor": CURSOR}}
    sandbox.fault("apply_then_hang", method="PATCH", path="/state$")
    async with http_forked(environment, tmp_path) as server, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(httpx.TransportError):
                await post(server.client, "/state/update", ANY | body)

        tasks.start_soon(ask)
        await arrival(sandbox, lambda request: request.fault is not None)
        await server.kill()
    assert sandbox.connection(IDLE).paused is True

    async with http_forked(environment, tmp_path) as server:
        ended = await get(server.client, f"/workflows/{IDLE}:1", wait=50)

    assert ended["status"] == "updated"
    assert state_of(sandbox, IDLE) == {"cursor": CURSOR}
    assert sandbox.connection(IDLE).paused is False
    assert api_calls(sandbox, IDLE).count("PATCH state") == 1


# Reading


@pytest.mark.slow
async def test_states_are_read_whole_in_part_and_by_id(http: Serve, sandbox: Sandbox) -> None:
    sandbox.set_state(PAUSED, "{}")
    async with http() as server:
        large = await post(server.client, "/state/get", {"connection_id": LARGE})
        part = await post(
            server.client, "/state/get", {"connection_id": LARGE, "path": "/tables/library_00007"}
        )
        empty = await post(server.client, "/state/get", {"connection_id": PAUSED})
        not_yet = await post(server.client, "/state/get", {"connection_id": EMPTY}, status=404)
        many = await post(
            server.client, "/state/get-multiple", {"connection_ids": [IDLE, PAUSED, IDLE]}
        )
        nowhere = await post(
            server.client, "/state/get", {"connection_id": IDLE, "path": "/no"}, status=422
        )
        some = await post(
            server.client, "/state/get-multiple", {"connection_ids": [IDLE, MISSING, EMPTY]}
        )
        none = await post(
            server.client, "/state/get-multiple", {"connection_ids": [MISSING, EMPTY]}, status=404
        )

    assert large["state"] == state_of(sandbox, LARGE)
    assert part["state"]["page_token"]
    assert empty["state"] == {}
    assert list(many) == [IDLE, PAUSED]
    assert many[PAUSED]["state"] == state_of(sandbox, PAUSED)
    assert many[PAUSED]["paused"] is True
    assert nowhere["code"] == "invalid_request"
    assert not_yet["code"] == "no_state_yet"
    assert some[IDLE] == many[IDLE]
    assert some[MISSING]["error"]["code"] == none["code"] == "connection_not_found"
    assert "GET /connections" in some[MISSING]["error"]["hint"]
    assert some[EMPTY]["error"]["code"] == "no_state_yet"


@pytest.mark.slow
async def test_a_search_of_a_state_lists_all_pages_now_and_in_the_past(
    http: Serve, sandbox: Sandbox
) -> None:
    tables = {f"table_{number:05}": {"cursor": number} for number in range(20_000)}
    sandbox.set_state(IDLE, json.dumps({"tables": tables}))
    url = f"/connections/{IDLE}/state"
    async with http() as server:

        async def history() -> list[Any]:
            page = await get(server.client, f"/connections/{IDLE}/history")
            entries: list[Any] = page["entries"]
            return entries

        found = await get(server.client, url, search="TABLE_01234")
        first = await get(server.client, url, search="cursor")
        rest = await get(server.client, url, search="cursor", cursor=first["next_cursor"])
        await until(history)
        sandbox.set_state(IDLE, "{}")
        moved = await get(
            server.client, url, search="cursor", cursor=first["next_cursor"], status=422
        )
        past = await get(
            server.client, url, search="cursor", cursor=first["next_cursor"], at=first["version"]
        )
        nothing = await get(server.client, url, search="cursor")
        whole = await get(server.client, url, search="", cursor="")
        bad = await get(server.client, url, search="x" * 1_001, status=422)

    (entry,) = found["outline"]
    assert (entry["path"], entry["preview"]) == ("/tables/table_01234", '{"cursor":1234}')
    paths = [entry["path"] for page in (first, rest) for entry in page["outline"]]
    assert paths == [f"/tables/{table}/cursor" for table in tables]
    assert "next_cursor" not in rest
    assert first["version"] in moved["detail"]
    assert past["outline"] == rest["outline"]
    assert (nothing["outline"], nothing["matches_total"]) == ([], 0)
    assert whole["state"] == {}
    assert bad["code"] == "invalid_request"


async def test_connections_are_listed_and_found(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        first = await get(server.client, "/connections", limit=3)
        rest = await get(server.client, "/connections", cursor=first["next_cursor"])
        found = await get(server.client, "/connections", name="payments")
        for made_up in ("zzz", "0:zzz", "9999:zzz"):
            bad = await get(server.client, "/connections", cursor=made_up, status=422)
            assert (bad["code"], made_up in bad["detail"]) == ("invalid_request", True)

    ids = [each["id"] for page in (first, rest) for each in page["connections"]]
    assert ids == sorted(connection.id for connection in sandbox.world.connections())
    assert [each["id"] for each in found["connections"]] == [IDLE]


NUMBERS = '{"price":1.10,"large":9007199254740993,"pi":3.141592653589793238462643383279502884197,"zero":-0,"far":1e400}'


async def test_numbers_are_exact_in_both_directions(http: Serve, sandbox: Sandbox) -> None:
    async with http() as server:
        updated = await server.client.post(
            "/state/update",
            content=f'{{"connection_id":"{IDLE}","expected_version":"*","new_state":{NUMBERS}}}',
            headers={"Content-Type": "application/json"},
        )
        read = await server.client.post("/state/get", json={"connection_id": IDLE})
        merged = await server.client.post(
            "/state/update",
            content=f'{{"connection_id":"{EXACT}","expected_version":"*","merge_patch":{{"price":1.20}}}}',
            headers={"Content-Type": "application/json"},
        )

    assert updated.status_code == 200
    assert sandbox.connection(IDLE).state == NUMBERS
    assert f'"verified_state":{NUMBERS}' in updated.text
    assert f'"state":{NUMBERS}' in read.text
    assert merged.status_code == 200
    assert '"price":1.20' in (sandbox.connection(EXACT).state or "")
    assert "3.141592653589793238462643383279502884197" in merged.text


async def test_what_hides_is_an_escape_in_the_answer(http: Serve, sandbox: Sandbox) -> None:
    hidden = {"a\u202eb": "\x1b[2J", "tag": "\U000e0041", "half": "\ud800"}
    sandbox.set_state(IDLE, json.dumps(hidden))
    async with http() as server:
        answer = await server.client.post("/state/get", json={"connection_id": IDLE})
        again = await server.client.post(
            "/state/update",
            content=json.dumps({"connection_id": PAUSED, "new_state": hidden} | ANY),
            headers={"Content-Type": "application/json"},
        )

    assert answer.json()["state"] == hidden
    assert answer.content.isascii()
    assert again.status_code == 200
    assert state_of(sandbox, PAUSED) == hidden


@pytest.mark.slow
async def test_a_large_state_that_is_not_ascii_is_written_changed_and_copied(
    http: Serve, sandbox: Sandbox
) -> None:
    sandbox.set_state(EMPTY, "{}")
    large = {"a": "é" * 1_900_000}
    body = json.dumps(ANY | {"connection_id": IDLE, "new_state": large}, ensure_ascii=False)
    async with http() as server:
        written = await post(server.client, "/state/update", body)
        await post(
            server.client,
            "/state/update",
            {"connection_id": IDLE, "merge_patch": {"z": 1}, "expected_version": "*"},
        )
        await post(
            server.client,
            "/state/update",
            {"connection_id": EMPTY, "copy_from": IDLE, "expected_version": "*"},
        )

    assert written["verified_state"] == large
    assert state_of(sandbox, EMPTY) == large | {"z": 1}


# Updating


@pytest.mark.parametrize(
    ("change", "after"),
    [
        ({"merge_patch": {"new": None, "cursor": 1}}, {"cursor": 1}),
        ({"json_patch": [{"op": "add", "path": "/more", "value": [1]}]}, {"more": [1]}),
        ({"new_state": {}}, None),
        ({"copy_from": PAUSED}, None),
    ],
    ids=["merge_patch", "json_patch", "new_state", "copy_from"],
)
async def test_every_kind_of_change_can_be_planned_made_and_undone(
    http: Serve, sandbox: Sandbox, change: dict[str, Any], after: dict[str, Any] | None
) -> None:
    before = state_of(sandbox, IDLE)
    wanted = (before | after) if after else change.get("new_state", state_of(sandbox, PAUSED))
    body = {"connection_id": IDLE}
    async with http() as server:
        version = (await post(server.client, "/state/get", body))["version"]
        plan = await post(server.client, "/state/update", body | change | {"dry_run": True})
        assert state_of(sandbox, IDLE) == before
        conflict = await post(
            server.client,
            "/state/update",
            body | change | {"expected_version": OTHER_VERSION},
            status=409,
        )
        made = await post(
            server.client,
            "/state/update",
            body | change | {"expected_version": version, "reason": "why"},
        )
        assert state_of(sandbox, IDLE) == wanted
        undone = await post(
            server.client, "/state/update", ANY | body | {"restore_from": made["workflow_id"]}
        )
        history = await get(server.client, "/workflows", connection_id=IDLE)

    assert (plan["status"], plan["version_before"]) == ("planned", version)
    assert (conflict["code"], conflict["current_version"]) == ("conflict", version)
    assert made["verified_state"] == wanted
    assert undone["verified_state"] == before == state_of(sandbox, IDLE)
    statuses = [each["status"] for each in history["workflows"]]
    assert statuses == ["updated", "updated", "failed"]
    assert history["workflows"][1]["reason"] == "why"


async def test_a_change_without_a_version_is_made_again_after_the_state_has_moved(
    http: Serve, sandbox: Sandbox
) -> None:
    body = {"connection_id": IDLE, "new_state": {"cursor": CURSOR}}
    async with http() as server:
        await post(server.client, "/state/update", ANY | body)
        sandbox.set_state(IDLE, '{"cursor":"a sync was here"}')
        again = await post(server.client, "/state/update", ANY | body)
        unchanged = await post(server.client, "/state/update", ANY | body)

    assert (again["status"], again["workflow_id"]) == ("updated", f"{IDLE}:2")
    assert unchanged["status"] == "unchanged"
    assert state_of(sandbox, IDLE) == {"cursor": CURSOR}


async def test_an_idempotency_key_updates_once_in_quotes_or_not(
    http: Serve, sandbox: Sandbox
) -> None:
    body = {"connection_id": IDLE, "new_state": {"cursor": CURSOR}}
    async with http() as server:
        first = await post(server.client, "/state/update", ANY | body, Idempotency_Key='"a key"')
        sandbox.set_state(IDLE, '{"cursor":"a sync was here"}')
        second = await post(server.client, "/state/update", ANY | body, Idempotency_Key="a key")
        other = await post(
            server.client,
            "/state/update",
            ANY | body | {"new_state": {}},
            status=422,
            Idempotency_Key="a key",
        )
        for bad in ("", '""', "x" * 201):
            refused = await post(
                server.client, "/state/update", ANY | body, status=422, Idempotency_Key=bad
            )
            assert refused["code"] == "invalid_request"

    assert second == first
    assert state_of(sandbox, IDLE) == {"cursor": "a sync was here"}
    assert other["code"] == "idempotency_key_reused"


async def test_a_key_finds_its_update_after_the_source_of_the_change_is_gone(
    http: Serve, sandbox: Sandbox
) -> None:
    sandbox.set_state(EMPTY, "{}")
    copied = state_of(sandbox, PAUSED)
    one = {"connection_id": IDLE, "copy_from": PAUSED}
    several = {"connection_ids": [EMPTY, EXACT], "copy_from": PAUSED}
    undo = {"connection_id": IDLE, "restore_from": f"{IDLE}:1"}
    key = {"Idempotency_Key": "k"}
    async with http() as server:

        async def ask(body: dict[str, Any], status: int = 200) -> dict[str, Any]:
            path = "/state/update" if "connection_id" in body else "/state/update-multiple"
            return await post(server.client, path, ANY | body, status=status, **key)

        first = await ask(one), await ask(several)
        undone = await post(server.client, "/state/update", ANY | undo, Idempotency_Key="undo")
        sandbox.delete_connection(PAUSED)
        again = await ask(one), await ask(several)
        for other in (one, several):
            reused = await ask(other | {"copy_from": LARGE}, status=422)
            assert reused["code"] == "idempotency_key_reused"
        await post(server.client, "/state/update", ANY | one, status=404, Idempotency_Key="another")
        with closing(sqlite3.connect(server.settings.home / "state.db")) as database, database:
            database.execute("DELETE FROM workflow_status WHERE workflow_uuid = ?", [f"{IDLE}:1"])
        undone_again = await post(
            server.client, "/state/update", ANY | undo, Idempotency_Key="undo"
        )

    assert first[0]["verified_state"] == copied
    assert (again, undone_again) == (first, undone)


async def test_an_update_is_followed_where_the_answer_says(http: Serve, sandbox: Sandbox) -> None:
    sync_runs_on(sandbox)
    body = {"connection_id": SYNCING, "new_state": {"cursor": CURSOR}}
    json_ = {"Content-Type": "application/json"}
    async with http() as server:
        started = await server.client.post(
            "/state/update", json=ANY | body, headers={"Prefer": "respond-async"}
        )
        accepted = parsed(started, 202)
        waited = await server.client.post(
            "/state/update", json=ANY | body, headers=json_ | {"Prefer": "Respond-Async, wait=0"}
        )
        several = await server.client.post(
            "/state/update",
            json=ANY | body,
            headers=[("Prefer", "handling=lenient"), ("Prefer", "wait=0, x"), ("Prefer", "wait=9")],
        )
        where = started.headers["Location"]
        running = await get(server.client, where)
        sandbox.finish_sync(SYNCING)
        ended = await get(server.client, where, wait=50)

    assert started.headers["Preference-Applied"] == "respond-async"
    assert (waited.status_code, waited.headers["Location"]) == (202, where)
    assert waited.headers["Preference-Applied"] == "respond-async, wait=0"
    assert (several.status_code, several.headers["Preference-Applied"]) == (202, "wait=0")
    assert accepted["workflow_id"] == f"{SYNCING}:1"
    assert where == f"/workflows/{SYNCING}:1"
    assert running["status"] == "running"
    assert (ended["status"], ended["connection_id"]) == ("updated", SYNCING)
    assert [step["name"] for step in ended["steps"]][:2] == ["inspect", "pause"]


async def test_behind_a_proxy_the_location_has_the_public_path(
    http: Serve, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    async with http() as server:
        token = authorization(server.new_token())
    async with http(FIVETRAN_STATE_PUBLIC_URL="https://example.com/state") as server:
        answer = await server.client.post(
            "/state/update",
            json={"connection_id": SYNCING, "new_state": {}, "expected_version": "*"},
            headers=token | {"Prefer": "respond-async"},
        )
        described = await server.client.get("/openapi.json", headers=token)
        where = answer.headers["Location"]
        await server.client.post(f"/workflows/{SYNCING}:1/cancel", json={}, headers=token)

    assert where == f"/state/workflows/{SYNCING}:1"
    assert described.json()["servers"] == [{"url": "/state"}]


async def test_a_waiting_update_is_cancelled_and_an_ended_one_is_not(
    http: Serve, sandbox: Sandbox
) -> None:
    sync_runs_on(sandbox)
    before = state_of(sandbox, SYNCING)
    body = {"connection_id": SYNCING, "new_state": {"cursor": CURSOR}}
    async with http() as server:
        started = await post(
            server.client, "/state/update", ANY | body, status=202, Prefer="respond-async"
        )
        where = f"/workflows/{started['workflow_id']}"
        cancelled = await post(server.client, f"{where}/cancel", "")
        late = await post(server.client, f"/workflows/{SYNCING}:1/cancel", "")
        await post(
            server.client,
            "/state/update",
            {"connection_id": IDLE, "new_state": {}, "expected_version": "*"},
        )
        refused = await post(server.client, f"/workflows/{IDLE}:1/cancel", "", status=409)
        missing = await post(server.client, f"/workflows/{IDLE}:9/cancel", "", status=404)

    assert cancelled["status"] == late["status"] == "cancelled"
    assert state_of(sandbox, SYNCING) == before
    assert sandbox.connection(SYNCING).paused is False
    assert refused["code"] == "too_late_to_cancel"
    assert missing["code"] == "workflow_not_found"


async def test_a_caller_who_goes_away_does_not_stop_the_update(
    http: Serve, sandbox: Sandbox
) -> None:
    hang = sandbox.fault("hang", method="PATCH", path="/state$")
    body = {"connection_id": IDLE, "new_state": {"cursor": CURSOR}}
    async with http() as server:
        async with (
            httpx.AsyncClient(base_url=server.url) as leaving,
            anyio.create_task_group() as t,
        ):
            t.start_soon(post, leaving, "/state/update", ANY | body)
            await arrival(sandbox, lambda request: request.fault == "hang")
            t.cancel_scope.cancel()
        hang.release()
        ended = await get(server.client, f"/workflows/{IDLE}:1", wait=50)

    assert ended["status"] == "updated"
    assert state_of(sandbox, IDLE) == {"cursor": CURSOR}


async def test_an_update_that_fails_says_so_and_can_be_looked_up(
    http: Serve, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"cursor":"mangled"}')
    async with http() as server:
        failed = await post(
            server.client,
            "/state/update",
            {"connection_id": IDLE, "new_state": {}, "expected_version": "*"},
            status=502,
        )
        looked_up = await get(server.client, f"/workflows/{IDLE}:1")

    assert (failed["code"], failed["workflow_id"]) == ("verification_failed", f"{IDLE}:1")
    assert looked_up["error"]["code"] == "verification_failed"
    assert looked_up["status"] == "failed"
    assert state_of(sandbox, IDLE) == before


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0, 0.3])
async def test_the_updates_of_all_connections_are_listed_in_stable_pages(
    http: Serve, sandbox: Sandbox, fraction: float
) -> None:
    sandbox.set_state(EMPTY, "{}")
    async with http() as server:
        for number in range(3):
            for connection_id in (IDLE, PAUSED, EMPTY):
                body = {"connection_id": connection_id, "new_state": {"n": number}}
                await post(server.client, "/state/update", ANY | body)
        # From Python 3.12 on, SQLite has parts of milliseconds.
        with closing(sqlite3.connect(server.settings.home / "state.db")) as database, database:
            database.execute(
                "UPDATE workflow_status SET created_at = created_at + ? * rowid", [fraction]
            )
        seen: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            page = await get(server.client, "/workflows", limit=2, **cursor)
            seen += [each["workflow_id"] for each in page["workflows"]]
            if "next_cursor" not in page:
                break
            cursor = {"cursor": page["next_cursor"]}
            # What is new moves nothing.
            await post(
                server.client,
                "/state/update",
                {"connection_id": IDLE, "new_state": {}, "expected_version": "*"},
            )
        changed = cursor["cursor"][1:]
        for made_up in ("x", "é", f"999999999999999999:{IDLE}:1", "A" * 100, changed):
            bad = await get(server.client, "/workflows", cursor=made_up, status=422)
            assert bad["code"] == "invalid_request"

    assert len(seen) == len(set(seen))
    assert {f"{id_}:{n}" for id_ in (IDLE, PAUSED, EMPTY) for n in (1, 2, 3)} <= set(seen)


@pytest.mark.slow
async def test_updates_of_one_second_are_listed_by_their_numbers(http: Serve) -> None:
    async with http() as server:
        for number in range(11):
            body = {"connection_id": IDLE, "new_state": {"n": number}}
            await post(server.client, "/state/update", ANY | body)
        with closing(sqlite3.connect(server.settings.home / "state.db")) as database, database:
            database.execute("UPDATE workflow_status SET created_at = 1000 * (created_at / 60000)")
        first = await get(server.client, "/workflows", limit=4)
        second = await get(server.client, "/workflows", limit=9, cursor=first["next_cursor"])

    listed = [each["workflow_id"] for each in first["workflows"] + second["workflows"]]
    assert listed == [f"{IDLE}:{number}" for number in range(11, 0, -1)]


# What is refused


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"connection_id":1}',
        '{"connection_id":"a/b"}',
        '{"connection_id":"\\ud800"}',
        '{"connection_id":"x","connection_id":"y"}',
        f'{{"connection_id":"{IDLE}","new_state":{{"a":NaN}}}}',
        f'{{"connection_id":"{IDLE}","new_state":{{"a":1e9999999999999999999}}}}',
        f'{{"connection_id":"{IDLE}","new_state":[]}}',
        f'{{"connection_id":"{IDLE}","new_state":"{{}}"}}',
        f'{{"connection_id":"{IDLE}","new_state":{{}},"merge_patch":{{}},"expected_version":"*"}}',
        f'{{"connection_id":"{IDLE}","new_stat":{{}}}}',
        f'{{"connection_id":"{IDLE}","json_patch":[1]}}',
        f'{{"connection_id":"{IDLE}","restore_from":"{PAUSED}:1","expected_version":"*"}}',
        f'{{"connection_id":"{IDLE}","new_state":{{}},"expected_version":""}}',
        f'{{"connection_id":"{IDLE}","new_state":{{}},"expected_version":"x"}}',
        f'{{"connection_id":"{IDLE}","api_key":"a"}}',
        f'{{"connection_id":"{IDLE}","api_key":"a","api_secret":"\\ud800"}}',
        f'{{"connection_id":"{IDLE}","new_state":{{}},"expected_version":"\\ud800"}}',
        f'{{"connection_id":"{IDLE}","new_state":{"[" * 5000}{"]" * 5000}}}',
        f'{{"connection_id":"{IDLE}","new_state":{{"a":{"[" * 200}{"]" * 200}}}}}',
        '{"connection_id":"' + "x" * 300 + '"}',
    ],
    ids=range(26),
)
async def test_a_request_that_makes_no_sense_is_refused_and_nothing_is_done(
    http: Serve, sandbox: Sandbox, body: str
) -> None:
    async with http() as server:
        refused = await post(server.client, "/state/update", body, status=422)

    assert refused["code"] == "invalid_request"
    assert len(refused["detail"]) < 1000
    assert "PATCH" not in api_calls(sandbox, IDLE)


async def test_what_is_no_json_or_no_route_is_a_problem_too(http: Serve) -> None:
    body = json.dumps({"connection_id": IDLE})
    async with http() as server:
        for kind in (None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
            headers = {} if kind is None else {"Content-Type": kind}
            answer = await server.client.post("/state/get", content=body, headers=headers)
            assert parsed(answer, 415)["code"] == "unsupported_media_type", kind
        charset = {"Content-Type": "application/json; charset=utf-8"}
        parsed(await server.client.post("/state/get", content=body, headers=charset), 200)
        for path in ("/state/get", "/workflows", f"/workflows/{IDLE}:1", "/connections"):
            for method in ("PUT", "DELETE", "OPTIONS"):
                answer = await server.client.request(method, path)
                assert parsed(answer, 405)["code"] == "method_not_allowed"
                assert answer.headers["Allow"]
        for path in (f"/workflows/{IDLE}:1/cancel", f"/workflows/account/{IDLE}:1/cancel"):
            answer = await server.client.get(path)
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        head = await server.client.head("/connections")
        assert (head.status_code, head.content) == (405, b"")
        assert parsed(await server.client.get("/nothing"), 404)["code"] == "not_found"


async def test_what_may_not_be_touched_is_refused(http: Serve, sandbox: Sandbox) -> None:
    change: dict[str, Any] = {"new_state": {}} | ANY
    async with http(FIVETRAN_STATE_ALLOWED_CONNECTIONS=f"{IDLE},{STATELESS}") as server:
        for path, body in (
            ("/state/get", {"connection_id": PAUSED}),
            ("/state/get-multiple", {"connection_ids": [PAUSED]}),
            ("/state/update", {"connection_id": PAUSED} | change),
            ("/state/update", ANY | {"connection_id": IDLE, "copy_from": PAUSED}),
            ("/state/update-multiple", {"connection_ids": [IDLE, PAUSED]} | change),
            ("/states/update", {"connection_ids": [IDLE, PAUSED]} | change),
        ):
            assert (await post(server.client, path, body, status=403))["code"] == "not_allowed"
        hidden = await get(server.client, f"/workflows/{PAUSED}:1", status=403)
        stateless = await post(
            server.client, "/state/get", {"connection_id": STATELESS}, status=422
        )
        listed = await get(server.client, "/connections")
    async with http(
        FIVETRAN_STATE_ALLOWED_CONNECTIONS="*", FIVETRAN_STATE_READ_ONLY="true"
    ) as server:
        for path, body in (
            ("/state/update", {"connection_id": IDLE} | change),
            ("/state/update-multiple", {"connection_ids": [IDLE]} | change),
            (f"/workflows/{IDLE}:1/cancel", {}),
        ):
            assert (await post(server.client, path, body, status=403))["code"] == "not_allowed"
        await post(server.client, "/state/get", {"connection_id": IDLE})

    assert hidden["code"] == "not_allowed"
    assert stateless["code"] == "state_not_kept"
    assert {each["id"] for each in listed["connections"]} == {IDLE, STATELESS}
    assert [r for r in sandbox.log if r.method == "PATCH"] == []


@pytest.mark.slow
async def test_several_are_neither_cancelled_nor_shown_if_one_may_not_be_touched_begun_or_not(
    http: Serve, sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    sync_runs_on(sandbox)
    body = {"connection_ids": [IDLE, SYNCING, PAUSED], "merge_patch": {"cursor": CURSOR}}
    async with (
        http_forked(environment, tmp_path) as everywhere,
        http(FIVETRAN_STATE_ALLOWED_CONNECTIONS=f"{IDLE},{SYNCING}") as server,
    ):
        started = await post(
            everywhere.client,
            "/state/update-multiple",
            ANY | body,
            status=202,
            Prefer="respond-async",
        )
        path = f"/workflows/{started['workflow_id']}"
        await arrival(sandbox, lambda request: request.connection_id == SYNCING)
        cancelled = await post(server.client, f"{path}/cancel", "", status=403)
        hidden = await get(server.client, path, status=403)
        sandbox.finish_sync(SYNCING)
        ended = await get(everywhere.client, path, wait=50)

    assert cancelled["code"] == hidden["code"] == "not_allowed"
    assert ended["status"] == "updated"
    assert state_of(sandbox, PAUSED)["cursor"] == CURSOR


async def test_a_read_token_reads_and_is_told_which_scope_is_missing(http: Serve) -> None:
    body = {"connection_id": IDLE}
    async with http() as server:
        reading = authorization(server.new_token("read"))
        await post(server.client, "/state/get", body, status=401)
        parsed(await server.client.post("/state/get", json=body, headers=reading), 200)
        for path in ("/state/update", "/state/update-multiple", f"/workflows/{IDLE}:1/cancel"):
            answer = await server.client.post(path, json=body, headers=reading)
            assert parsed(answer, 403)["code"] == "insufficient_scope"
            assert 'scope="write"' in answer.headers["WWW-Authenticate"]


async def test_a_read_token_plans_and_changes_nothing(http: Serve, sandbox: Sandbox) -> None:
    change: dict[str, Any] = {"connection_id": IDLE, "new_state": {}}
    async with http() as server:
        reading = authorization(server.new_token("read"))

        async def ask(**more: bool) -> httpx.Response:
            return await server.client.post(
                "/state/update", json=ANY | change | more, headers=reading
            )

        planned, refused = await ask(dry_run=True), await ask(dry_run=False)

    assert parsed(planned, 200)["status"] == "planned"
    assert parsed(refused, 403)["code"] == "insufficient_scope"
    assert 'scope="write"' in refused.headers["WWW-Authenticate"]
    assert "PATCH" not in api_calls(sandbox, IDLE)


async def test_fivetrans_own_limit_says_when_to_come_again(http: Serve, sandbox: Sandbox) -> None:
    limit = {"Retry-After": "3600"}
    async with http() as server:
        await post(server.client, "/state/get", {"connection_id": IDLE})
        sandbox.fault("status", status=429, headers=limit, path=IDLE, times=9)
        answer = await server.client.post("/state/get", json={"connection_id": IDLE})

    assert parsed(answer, 429)["code"] == "rate_limited"
    assert answer.headers["Retry-After"] == "3600"


def test_every_error_has_a_status_that_is_documented() -> None:
    assert STATUS.keys() == FivetranStateError._by_code.keys()

    page = (ROOT / "docs/reference/http.md").read_text(encoding="utf-8")
    documented = {
        code: int(status)
        for status, cell in re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
        for code in re.findall(r"`([a-z_]+)`", cell)
    }
    of_every_request = {"authentication_unavailable"}
    assert {code: status for code, status in STATUS.items() if code in documented} == {
        code: status for code, status in documented.items() if code in STATUS
    }
    assert STATUS.keys() - documented.keys() == NEVER_OVER_REST | of_every_request
