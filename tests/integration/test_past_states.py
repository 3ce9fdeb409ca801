"""The states of the past: remembered as they pass through, shown, compared and put back."""

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect, Serve
from tests.support.calls import EXACT, IDLE, PAUSED, SYNCING, call, refused, state_of, until, update
from tests.support.processes import running
from tests.support.rest import ANY, get, post


async def remembered(client: Client, connection_id: str, count: int, **more: Any) -> list[Any]:
    """The connection's versions, newest first, as soon as there are so many."""

    async def found() -> list[Any] | None:
        page = await call(client, "state_history", connection_id=connection_id, **more)
        return page["entries"] if len(page["entries"]) >= count else None

    return await until(found)


async def read(client: Client, connection_id: str, **more: Any) -> dict[str, Any]:
    return await call(client, "get_state", connection_id=connection_id, **more)


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


async def test_what_a_sync_moved_is_shown_and_both_states_come_back(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        before = await read(client, IDLE)
        await remembered(client, IDLE, 1)
        sandbox.finish_sync(IDLE)
        after = await read(client, IDLE)
        newest, oldest = await remembered(client, IDLE, 2)
        old, new = [await read(client, IDLE, at=each["version"]) for each in (oldest, newest)]

    assert (oldest["kind"], newest["kind"]) == ("first look", "sync")
    assert [change["path"] for change in newest["changes"]] == ["/cursor"]
    assert "changes" not in oldest
    assert (old["state"], new["state"]) == (before["state"], after["state"])
    assert "paused" not in old


async def test_an_update_is_in_the_history_with_its_reason(
    connect: Connect, sandbox: Sandbox, on_either: dict[str, str]
) -> None:
    async with connect(**on_either) as client:
        done = await update(client, IDLE, merge_patch={"cursor": "2020"}, reason="bad load")
        newest, _ = await remembered(client, IDLE, 2)
        only = await remembered(client, IDLE, 1, kind="update")

    assert newest["kind"] == "update"
    assert newest["workflow_id"] == done["workflow_id"]
    assert newest["version"] == done["version_after"]
    assert newest["reason"] == "bad load"
    assert only == [newest]


async def test_what_somebody_else_changed_is_told_apart_from_a_sync(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        await read(client, IDLE)
        await remembered(client, IDLE, 1)
        sandbox.set_state(IDLE, '{"cursor": "1999"}')
        await read(client, IDLE)
        newest, _ = await remembered(client, IDLE, 2)

    assert newest["kind"] == "others"


async def test_a_state_at_a_time_says_how_sure_that_is(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        await read(client, IDLE)
        (first,) = await remembered(client, IDLE, 1)
        between = now()
        sandbox.finish_sync(IDLE)
        await read(client, IDLE)
        second, _ = await remembered(client, IDLE, 2)
        uncertain = await read(client, IDLE, at=between)
        certain = await read(client, IDLE, at=first["at"])

    assert uncertain["version"] == certain["version"] == first["version"]
    assert uncertain["seen"]["is_certain"] is False
    assert uncertain["seen"]["next_seen"] == second["at"]
    assert certain["seen"]["is_certain"] is True


async def test_a_path_finds_when_its_value_last_moved(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        for change in ({"a": 1}, {"b": 1}, {"b": 2}):
            await update(client, IDLE, merge_patch=change)
        await remembered(client, IDLE, 4)
        moved = await remembered(client, IDLE, 1, path="/a")

    assert [[each["path"] for each in entry["changes"]] for entry in moved] == [["/a"]]


async def test_pages_of_the_history_follow_each_other(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        for number in range(4):
            await update(client, IDLE, merge_patch={"n": number})
        whole = await remembered(client, IDLE, 5)
        first = await call(client, "state_history", connection_id=IDLE, limit=3)
        rest = await call(client, "state_history", connection_id=IDLE, cursor=first["next_cursor"])

    assert first["entries"] + rest["entries"] == whole
    assert "next_cursor" not in rest


@pytest.mark.parametrize("form", ["version", "at"])
async def test_a_past_state_is_put_back(connect: Connect, sandbox: Sandbox, form: str) -> None:
    before = state_of(sandbox, IDLE)
    async with connect() as client:
        await update(client, IDLE, merge_patch={"cursor": "2020"})
        *_, oldest = await remembered(client, IDLE, 2)
        done = await update(client, IDLE, restore_from=oldest[form])

    assert done["status"] == "updated"
    assert state_of(sandbox, IDLE) == before


async def test_the_last_state_of_a_deleted_connection_goes_into_its_successor(
    connect: Connect, sandbox: Sandbox
) -> None:
    last = state_of(sandbox, PAUSED)
    async with connect() as client:
        await read(client, PAUSED)
        (seen,) = await remembered(client, PAUSED, 1)
        sandbox.delete_connection(PAUSED)
        past = await read(client, PAUSED, at=now())
        await update(client, IDLE, copy_from=f"{PAUSED}@{seen['version']}")

    assert past["state"] == last
    assert state_of(sandbox, IDLE) == last


async def test_exact_numbers_come_back_from_the_past(connect: Connect, sandbox: Sandbox) -> None:
    text = sandbox.connection(EXACT).state
    assert text is not None
    async with connect() as client:
        await update(client, EXACT, merge_patch={"moved": True})
        *_, oldest = await remembered(client, EXACT, 2)
        await update(client, EXACT, restore_from=oldest["version"])

    assert json.loads(sandbox.connection(EXACT).state or "", parse_float=str) == json.loads(
        text, parse_float=str
    )


@pytest.mark.parametrize(
    ("at", "code", "shown"),
    [
        ("2026-11-24T08:00", "invalid_request", "not a time with a zone"),
        ("yesterday", "invalid_request", "not a time with a zone"),
        ("0001-01-01T00:00+14:00", "invalid_request", "not a time with a zone"),
        ("9999-12-31T23:59-14:00", "invalid_request", "not a time with a zone"),
        ("2001-01-01T00:00Z", "not_remembered", "Nobody had looked"),
        ("0" * 32, "not_remembered", "had no version"),
        (f"{PAUSED}:1", "invalid_request", "not an update of"),
        (f"{IDLE}:7", "workflow_not_found", "no update"),
    ],
)
async def test_what_names_no_past_state_is_refused(
    connect: Connect, at: str, code: str, shown: str
) -> None:
    async with connect() as client:
        await read(client, IDLE)
        await remembered(client, IDLE, 1)
        error = await refused(client, "get_state", connection_id=IDLE, at=at)

    assert error["code"] == code
    assert shown in error["message"]


async def test_an_unknown_kind_is_refused_and_an_empty_one_left_out(connect: Connect) -> None:
    async with connect() as client:
        await read(client, IDLE)
        assert await remembered(client, IDLE, 1, kind="")
        error = await refused(client, "state_history", connection_id=IDLE, kind="magic")

    assert "sync, update, others" in error["message"]


async def test_no_past_state_of_a_connection_that_is_not_allowed(connect: Connect) -> None:
    async with connect() as client:
        await read(client, IDLE)
        (seen,) = await remembered(client, IDLE, 1)
    async with connect(FIVETRAN_STATE_ALLOWED_CONNECTIONS=PAUSED) as client:
        for tool in ("state_history", "get_state"):
            error = await refused(client, tool, connection_id=IDLE, at=seen["version"])
            assert error["code"] == "not_allowed"
        error = await refused(
            client, "update_state", connection_id=PAUSED, copy_from=f"{IDLE}@{seen['version']}"
        )
        assert error["code"] == "not_allowed"


async def test_rest_shows_a_past_state_the_history_and_a_difference(
    http: Serve, sandbox: Sandbox
) -> None:
    before = state_of(sandbox, IDLE)
    async with http() as server:
        change = {"connection_id": IDLE, "merge_patch": {"cursor": "2020"}}
        done = await post(server.client, "/state/update", ANY | change)
        path = f"/connections/{IDLE}"
        past = await get(server.client, f"{path}/state", at=done["workflow_id"])
        present = await get(server.client, f"{path}/state")
        history = await get(server.client, f"{path}/history")
        difference = await get(server.client, f"{path}/diff", **{"from": done["version_before"]})

    assert past["state"] == before
    assert present["state"] == before | {"cursor": "2020"}
    assert [each["kind"] for each in history["entries"]] == ["update", "first look"]
    assert difference["version_after"] == done["version_after"]
    assert [each["path"] for each in difference["changes"]] == ["/cursor"]


async def test_an_update_that_was_killed_after_its_write_is_in_the_history(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str], tmp_path: Any
) -> None:
    resumes = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$", skip=1)
    async with running(environment, tmp_path) as server:
        version = (await call(server.client, "get_state", connection_id=IDLE))["version"]
        started = await call(
            server.client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2020"},
            expected_version=version,
            wait_seconds=0,
        )

        async def hangs() -> bool:
            return any(request.fault == "hang" for request in sandbox.log)

        await until(hangs)
        await server.kill()
    resumes.release()
    async with connect() as client:
        await call(client, "workflow_status", workflow_id=started["workflow_id"], wait_seconds=50)
        newest, _ = await remembered(client, IDLE, 2)

    assert newest["workflow_id"] == started["workflow_id"]


@pytest.mark.parametrize(
    ("cursor", "odd"),
    [
        ("2062-01-01T00:00:00Z", "a time in the future"),
        ("2019-01-01T00:00:00Z", "further back than anything remembered"),
        ("2026-03-01T00:00:00", "a lost time zone"),
        (7, "another type than ever before"),
    ],
)
async def test_a_plan_names_what_is_unusual(
    connect: Connect, sandbox: Sandbox, cursor: object, odd: str
) -> None:
    async with connect() as client:
        for day in range(1, 5):
            sandbox.set_state(IDLE, json.dumps({"cursor": f"2026-03-0{day}T00:00:00Z"}))
            await read(client, IDLE)
            await remembered(client, IDLE, day)
        plan = await call(
            client, "update_state", connection_id=IDLE, merge_patch={"cursor": cursor}
        )

    assert f", {odd}; usual: " in plan["message"]


async def test_a_rewind_to_a_remembered_time_is_not_unusual(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        for day in range(1, 5):
            sandbox.set_state(IDLE, json.dumps({"cursor": f"2026-03-0{day}T00:00:00Z"}))
            await read(client, IDLE)
            await remembered(client, IDLE, day)
        plan = await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2026-03-02T00:00:00Z"},
        )

    assert "Unusual" not in plan["message"]


async def test_the_first_rewind_of_all_is_not_unusual(connect: Connect) -> None:
    async with connect() as client:
        plan = await call(
            client,
            "update_state",
            connection_id=SYNCING,
            merge_patch={"orders": {"cursor": "2019-01-01T00:00:00Z"}},
        )

    assert "Unusual" not in plan["message"]
