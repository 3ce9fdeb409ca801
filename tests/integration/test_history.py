"""Undo, copies, and the list of what was done."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    EXACT,
    IDLE,
    LARGE,
    PAUSED,
    arrival,
    call,
    end_of,
    refused,
    state_of,
    until,
    update,
    updates_in,
    version_of,
    written_down,
)
from tests.support.updates import refuse_resumes


@pytest.mark.slow
async def test_an_update_is_undone_and_the_undo_undone(connect: Connect, sandbox: Sandbox) -> None:
    before = state_of(sandbox, IDLE)
    async with connect() as client:
        first = await update(client, IDLE, merge_patch={"cursor": "2020"})
        undo = await update(client, IDLE, restore_from=first["workflow_id"])
        assert undo["version_after"] == first["version_before"]
        assert state_of(sandbox, IDLE) == before

        await update(client, IDLE, restore_from=undo["workflow_id"])

    assert state_of(sandbox, IDLE) == before | {"cursor": "2020"}


async def test_the_plan_of_an_undo_shows_what_others_have_changed_since(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        first = await update(client, IDLE, merge_patch={"cursor": "2020"})
        sandbox.set_state(IDLE, '{"cursor":"2021","found_by_a_sync":1}')
        plan = await call(
            client, "update_state", connection_id=IDLE, restore_from=first["workflow_id"]
        )

    assert {(change["op"], change["path"]) for change in plan["changes"]} == {
        ("replace", "/cursor"),
        ("remove", "/found_by_a_sync"),
    }
    assert "1 value moved since then" in plan["message"]
    assert "/found_by_a_sync. To put back only a part, name its path in `only`" in plan["message"]
    assert state_of(sandbox, IDLE) == {"cursor": "2021", "found_by_a_sync": 1}


async def test_an_undo_applies_only_to_the_version_that_was_seen(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        first = await update(client, IDLE, merge_patch={"cursor": "2020"})
        sandbox.set_state(IDLE, '{"cursor":"2021"}')
        error = await refused(
            client,
            "update_state",
            connection_id=IDLE,
            restore_from=first["workflow_id"],
            expected_version=first["version_after"],
        )

    assert error["code"] == "conflict"
    assert state_of(sandbox, IDLE) == {"cursor": "2021"}


async def test_exact_numbers_are_restored_and_copied_exactly(
    connect: Connect, sandbox: Sandbox
) -> None:
    original = sandbox.connection(EXACT).state
    async with connect() as client:
        first = await update(client, EXACT, new_state={"gone": True})
        await update(client, EXACT, restore_from=first["workflow_id"])
        assert sandbox.connection(EXACT).state == original
        await update(client, IDLE, copy_from=EXACT)

    assert sandbox.connection(IDLE).state == original


@pytest.mark.slow
async def test_a_large_state_is_restored_and_copied_without_passing_through_the_client(
    connect: Connect, sandbox: Sandbox
) -> None:
    original = state_of(sandbox, LARGE)
    async with connect() as client:
        answers = [await update(client, LARGE, new_state={"gone": True})]
        answers.append(await update(client, LARGE, restore_from=answers[0]["workflow_id"]))
        assert state_of(sandbox, LARGE) == original
        answers.append(await update(client, PAUSED, copy_from=LARGE))

    assert state_of(sandbox, PAUSED) == original
    assert all(len(json.dumps(answer)) < 20_000 for answer in answers)


@pytest.mark.slow
async def test_a_copy_between_services_comes_with_a_warning(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        plan = await call(client, "update_state", connection_id=IDLE, copy_from=EXACT)
        same = await call(client, "update_state", connection_id=LARGE, copy_from=EXACT)

    assert "aws_lambda" in plan["message"]
    assert "connector_sdk" in plan["message"]
    assert "Careful" not in same["message"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"restore_from": f"{EXACT}:1"}, "invalid_request"),
        ({"restore_from": IDLE}, "invalid_request"),
        ({"restore_from": f"{IDLE}:7"}, "workflow_not_found"),
        ({"copy_from": "no_such"}, "connection_not_found"),
        ({"copy_from": "../x"}, "invalid_request"),
        ({"copy_from": "postgres_mirror"}, "state_not_kept"),
        ({"copy_from": EXACT, "merge_patch": {}}, "invalid_request"),
    ],
    ids=str,
)
async def test_a_source_that_cannot_be_is_refused(
    connect: Connect, sandbox: Sandbox, change: dict[str, Any], code: str
) -> None:
    before = sandbox.connection(IDLE).state
    async with connect() as client:
        error = await refused(client, "update_state", connection_id=IDLE, **change)

    assert error["code"] == code
    assert sandbox.connection(IDLE).state == before


async def test_a_connection_that_is_not_allowed_cannot_be_copied_from(connect: Connect) -> None:
    async with connect(FIVETRAN_STATE_ALLOWED_CONNECTIONS=IDLE) as client:
        error = await refused(client, "update_state", connection_id=IDLE, copy_from=EXACT)

    assert error["code"] == "not_allowed"


@pytest.mark.slow
async def test_the_updates_of_a_connection_are_listed_newest_first_in_stable_pages(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        for number in range(5):
            await update(client, IDLE, merge_patch={"n": number}, reason=f"reason {number}")
        await update(client, EXACT, merge_patch={"n": 1})
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await call(client, "state_history", connection_id=IDLE, limit=2, **cursor)
            seen += [workflow["workflow_id"] for workflow in updates_in(page)]
            if len(seen) == 2:  # A new one does not shift the pages that follow.
                await update(client, IDLE, restore_from=f"{IDLE}:1")
            if "next_cursor" not in page:
                break
            cursor = {"cursor": page["next_cursor"]}
        newest = await call(client, "state_history", connection_id=IDLE, limit=2)

    assert seen == [f"{IDLE}:{number}" for number in (5, 4, 3, 2, 1)]
    undo, fifth = updates_in(newest)
    assert undo["change"] == f"restore_from {IDLE}:1"
    assert (fifth["status"], fifth["reason"], fifth["changes_total"]) == ("updated", "reason 4", 1)


async def with_versions(client: Client, count: int) -> dict[str, Any]:
    """The history once it has so many versions, which are written down beside what makes them."""

    async def look() -> dict[str, Any] | None:
        page = await call(client, "state_history", connection_id=IDLE)
        seen = {each["version"] for each in page["entries"] if "seen_until" in each}
        return page if len(seen) == count else None

    return await until(look)


async def test_an_update_that_has_written_and_still_runs_is_listed_once(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        hold = sandbox.fault("hang", method="PATCH", path=f"/{IDLE}$", skip=1)
        await call(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"n": 1},
            expected_version=await version_of(client, IDLE),
            wait_seconds=0,
        )
        await arrival(sandbox, lambda each: each.fault == "hang")

        page = await with_versions(client, 2)
        hold.release()
        await end_of(client, f"{IDLE}:1")

    [listed, first_look] = page["entries"]
    assert (listed["workflow_id"], listed["status"]) == (f"{IDLE}:1", "running")
    assert listed["changes_total"] == 1
    assert first_look["kind"] == "first look"


@pytest.mark.slow
async def test_an_update_that_has_written_and_failed_is_listed_once(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        refuse_resumes(sandbox, IDLE)
        await refused(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"n": 1},
            expected_version=await version_of(client, IDLE),
            wait_seconds=50,
        )
        page = await with_versions(client, 2)

    [listed, first_look] = page["entries"]
    assert (listed["workflow_id"], listed["error"]) == (f"{IDLE}:1", "left_paused")
    assert first_look["kind"] == "first look"


async def test_an_update_that_changes_nothing_comes_after_the_look_before_it(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        same = state_of(sandbox, IDLE)
        await update(client, IDLE, merge_patch=same)
        page = await with_versions(client, 1)

    assert [each["kind"] for each in page["entries"]] == ["update", "first look"]


async def test_an_empty_history_says_what_it_covers(connect: Connect) -> None:
    async with connect() as client:
        for_ever = await call(client, "state_history", connection_id=IDLE)
    async with connect(FIVETRAN_STATE_RETENTION_DAYS="7") as client:
        of_a_week = await call(client, "state_history", connection_id=IDLE)

    assert updates_in(for_ever) == updates_in(of_a_week) == []
    assert "through this server" in for_ever["message"]
    assert "last 7 days" in of_a_week["message"]


async def test_an_unknown_connection_has_no_history(connect: Connect) -> None:
    async with connect() as client:
        error = await refused(client, "state_history", connection_id="no_such")

    assert error["code"] == "connection_not_found"


async def test_the_history_of_a_deleted_connection_is_kept(
    connect: Connect, sandbox: Sandbox
) -> None:
    async with connect() as client:
        done = await update(client, IDLE, merge_patch={"cursor": "2020"})
        sandbox.delete_connection(IDLE)
        listed = await call(client, "state_history", connection_id=IDLE)

    assert [each["workflow_id"] for each in updates_in(listed)] == [done["workflow_id"]]
    assert "message" not in listed


# A part of what was


TABLES = '{"orders":{"cursor":1},"customers":{"cursor":1},"items":{"cursor":1}}'
SYNCED = '{"orders":{"cursor":0},"customers":{"cursor":9},"items":{"cursor":8}}'


async def test_an_undo_names_what_has_synced_on(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, TABLES)
    async with connect() as client:
        first = await update(client, IDLE, merge_patch={"orders": {"cursor": 0}})
        undo = {"connection_id": IDLE, "restore_from": first["workflow_id"]}
        before = await call(client, "update_state", **undo)
        sandbox.set_state(IDLE, SYNCED)
        after = await call(client, "update_state", **undo)

    assert "Careful" not in before["message"]
    assert "2 values moved since then" in after["message"]
    assert "/customers/cursor, /items/cursor" in after["message"]
    assert "/orders/cursor" not in after["message"]


async def test_an_undo_is_limited_to_a_part(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, TABLES)
    async with connect() as client:
        first = await update(client, IDLE, merge_patch={"orders": {"cursor": 0}})
        sandbox.set_state(IDLE, SYNCED)
        undo = {"restore_from": first["workflow_id"], "only": "/orders/cursor"}
        plan = await call(client, "update_state", connection_id=IDLE, **undo)
        done = await update(client, IDLE, **undo)
        listed = await call(client, "state_history", connection_id=IDLE, limit=1)

    assert "Careful" not in plan["message"]
    assert plan["changes"] == done["changes"]
    assert [change["path"] for change in done["changes"]] == ["/orders/cursor"]
    assert state_of(sandbox, IDLE) == json.loads(SYNCED) | {"orders": {"cursor": 1}}
    assert updates_in(listed)[0]["change"] == f"restore_from {IDLE}:1 only /orders/cursor"


async def test_a_part_that_was_not_there_is_removed(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        first = await update(client, IDLE, merge_patch={"added": 1})
        undo = {"restore_from": first["workflow_id"], "only": "/added"}
        await update(client, IDLE, **undo)

    assert "added" not in state_of(sandbox, IDLE)


async def test_a_part_is_copied(connect: Connect, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, TABLES)
    sandbox.set_state(PAUSED, SYNCED)
    async with connect() as client:
        await update(client, IDLE, copy_from=PAUSED, only="/customers")
        nowhere = await refused(
            client, "update_state", connection_id=IDLE, copy_from=PAUSED, only="customers"
        )

    assert state_of(sandbox, IDLE) == json.loads(TABLES) | {"customers": {"cursor": 9}}
    assert nowhere["code"] == "invalid_request"
    assert nowhere["message"].startswith("only: ")


async def test_there_is_nothing_to_undo(connect: Connect, sandbox: Sandbox) -> None:
    async with connect() as client:
        same = await update(client, IDLE, merge_patch=state_of(sandbox, IDLE))
        version = await version_of(client, IDLE)
        sandbox.set_state(IDLE, '{"cursor":"2021"}')
        conflict = await refused(
            client,
            "update_state",
            connection_id=IDLE,
            merge_patch={"cursor": "2020"},
            expected_version=version,
            wait_seconds=50,
        )
        errors = [
            await refused(
                client, "update_state", connection_id=IDLE, restore_from=each["workflow_id"]
            )
            for each in (same, conflict)
        ]

    assert same["status"] == "unchanged"
    assert {error["code"] for error in errors} == {"nothing_to_undo"}
    assert [error["message"].split()[0] for error in errors] == [f"{IDLE}:1", f"{IDLE}:2"]


@pytest.mark.parametrize("change", [{"copy_from": PAUSED}, {"new_state": {}}], ids=str)
async def test_an_emptied_state_makes_the_connector_start_over(
    connect: Connect, sandbox: Sandbox, change: dict[str, Any]
) -> None:
    sandbox.set_state(PAUSED, "{}")
    async with connect() as client:
        plan = await call(client, "update_state", connection_id=IDLE, **change)

    assert "starts over from the beginning" in plan["message"]


async def test_a_listing_reads_none_of_the_changes_that_it_lists(
    connect: Connect, sandbox: Sandbox, environment: dict[str, str]
) -> None:
    async with connect() as client:
        for number in range(3):
            await update(client, IDLE, merge_patch={"cursor": number}, reason=f"reason {number}")
        before = await call(client, "state_history", connection_id=IDLE)
        path = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "state.db"
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE workflow_input SET inputs = 'nothing that can be read'")
            database.execute(
                "UPDATE workflow_status SET inputs = 'nothing that can be read' "
                "WHERE inputs IS NOT NULL"
            )
        after = await call(client, "state_history", connection_id=IDLE)

    assert after == before
    assert [each["reason"] for each in updates_in(after)] == ["reason 2", "reason 1", "reason 0"]
    assert {each["change"] for each in updates_in(after)} == {"merge_patch"}


async def test_a_state_is_read_although_it_cannot_be_remembered_and_is_remembered_at_the_next_look(
    connect: Connect, environment: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "state.db"

    def renamed(before: str, after: str) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(f"ALTER TABLE {before} RENAME TO {after}")

    async def is_logged() -> bool:
        return "was not remembered" in caplog.text

    async with connect() as client:
        await call(client, "state_history", connection_id=IDLE)  # The tables are there.
        renamed("fivetran_state_versions", "away")
        read = await call(client, "get_state", connection_id=IDLE)
        await until(is_logged)
        renamed("away", "fivetran_state_versions")
        await call(client, "get_state", connection_id=IDLE)
        await written_down(client, IDLE, read["version"])
