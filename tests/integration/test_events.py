"""Each event of an update's life is told once, with who, what and how long, and nothing of a state."""

import logging
from pathlib import Path

import anyio
import pytest

from fivetran_state import audit
from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.audited import AUDIT_FILE, events_in, names_in
from tests.support.calls import IDLE, NO_VERSION, PAUSED, call, refused, until, update, version_of

LIFE = [
    "update.started",
    "update.inspected",
    "update.paused",
    "update.read",
    "update.written",
    "update.verified",
    "update.resumed",
    "update.ended",
]
MARK = "a-value-of-a-state"
VERSION = {"expected_version": NO_VERSION}
PATCH = {"merge_patch": {"cursor": MARK}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def put_a_directory_in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


async def test_an_update_tells_its_life_from_the_start_to_the_end(
    connect: Connect, path: Path
) -> None:
    async with connect(**{AUDIT_FILE: str(path)}) as client:
        done = await update(client, IDLE, **PATCH)

    told = [each for each in events_in(path) if each.get("workflow_id") == done["workflow_id"]]
    assert [each["event"] for each in told] == LIFE
    assert {(each["connection"], each["principal"]) for each in told} == {(IDLE, "stdio")}
    assert all(each["seconds"] >= 0 for each in told[1:])
    assert told[-1]["outcome"] == "updated"
    assert told[-2]["paused_seconds"] > 0


async def test_the_file_is_a_chain_and_holds_no_state_and_no_reason(
    connect: Connect, path: Path
) -> None:
    async with connect(**{AUDIT_FILE: str(path)}) as client:
        await update(client, IDLE, **PATCH, reason=MARK)

    verdict = audit.verify(path)
    assert (verdict.lines, verdict.wrong) == (len(LIFE), [])
    assert MARK not in str(events_in(path))


async def test_the_log_has_the_same_events_as_lines_of_their_own(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fivetran_state.events")
    async with connect() as client:
        await update(client, IDLE, **PATCH)

    assert [each.message for each in caplog.records if each.name.endswith("events")] == LIFE
    assert MARK not in caplog.text


async def test_a_paused_connection_is_neither_paused_nor_resumed(
    connect: Connect, path: Path
) -> None:
    async with connect(**{AUDIT_FILE: str(path)}) as client:
        await update(client, PAUSED, **PATCH)

    assert {"update.paused", "update.resumed"} & set(names_in(path)) == set()


async def test_a_step_that_fails_and_the_end_of_its_update_name_the_error(
    connect: Connect, sandbox: Sandbox, path: Path
) -> None:
    async with connect(**{AUDIT_FILE: str(path)}) as client:
        version = await version_of(client, IDLE)
        sandbox.fault("status", status=400, method="PATCH", path="/state$")
        await refused(
            client,
            "update_state",
            connection_id=IDLE,
            expected_version=version,
            wait_seconds=50,
            **PATCH,
        )

    told = {each["event"]: each for each in events_in(path)}
    failed, ended = told["update.step_failed"], told["update.ended"]
    assert (failed["phase"], failed["error"]) == ("write", "fivetran_error")
    assert (ended["outcome"], ended["error"]) == ("failed", "fivetran_error")
    assert "request.refused" not in told


async def test_a_refused_request_names_the_caller_and_the_code(
    connect: Connect, path: Path
) -> None:
    limits = {AUDIT_FILE: str(path), "FIVETRAN_STATE_ALLOWED_CONNECTIONS": IDLE}
    async with connect(**limits) as client:
        for connection_id in (PAUSED, f"{MARK} {{"):
            await refused(client, "update_state", connection_id=connection_id, **VERSION, **PATCH)

    foreign, odd = events_in(path)
    assert {foreign["event"], odd["event"]} == {"request.refused"}
    assert (foreign["principal"], foreign["connection"]) == ("stdio", PAUSED)
    assert foreign["error"] == "not_allowed"
    assert (odd["connection"], odd["error"]) == ("not an id", "invalid_request")


async def test_a_cancel_that_comes_too_late_is_a_refusal(connect: Connect, path: Path) -> None:
    async with connect(**{AUDIT_FILE: str(path)}) as client:
        done = await update(client, IDLE, **PATCH)
        await refused(client, "cancel_update", workflow_id=done["workflow_id"])

    last = events_in(path)[-1]
    assert (last["event"], last["error"]) == ("request.refused", "too_late_to_cancel")
    assert last["workflow_id"] == done["workflow_id"]


async def test_a_group_tells_its_start_its_members_and_its_end(
    connect: Connect, path: Path
) -> None:
    async with connect(**{AUDIT_FILE: str(path)}) as client:
        ids = [IDLE, PAUSED]
        plan = await call(client, "update_states", connection_ids=ids, dry_run=True, **PATCH)
        done = await call(
            client,
            "update_states",
            connection_ids=ids,
            expected_version=plan["version"],
            wait_seconds=50,
            **PATCH,
        )

    group = done["workflow_id"]
    assert names_in(path, group) == ["group.started", "group.ended"]
    ended = events_in(path)[-1]
    assert (ended["outcome"], ended["count"]) == ("updated", len(ids))
    members = [each for each in events_in(path) if each["event"] == "update.ended"]
    assert {(each["connection"], each["part_of"]) for each in members} == {
        (IDLE, group),
        (PAUSED, group),
    }


async def test_a_look_of_the_watcher_tells_how_many_states_it_has_read(
    connect: Connect, path: Path
) -> None:
    async def looked() -> bool:
        return await anyio.Path(path).exists() and "watch.looked" in names_in(path)

    watching = {AUDIT_FILE: str(path), "FIVETRAN_STATE_WATCH_INTERVAL": "3600"}
    async with connect(**watching) as client:
        await version_of(client, IDLE)
        await until(looked)

    (told,) = events_in(path)
    assert told["outcome"] == "complete"
    assert told["count"] > 0


async def test_no_update_begins_while_the_audit_file_cannot_be_made(
    connect: Connect, tmp_path: Path
) -> None:
    async with connect(**{AUDIT_FILE: str(tmp_path)}) as client:
        error = await refused(client, "get_state", connection_id=IDLE)

    assert error["code"] == "unusable_settings"
    assert AUDIT_FILE in error["message"]


async def test_an_update_that_cannot_be_audited_any_more_is_completed(
    connect: Connect, sandbox: Sandbox, path: Path
) -> None:
    async with connect(**{AUDIT_FILE: str(path)}) as client:
        version = await version_of(client, IDLE)
        put_a_directory_in_place_of(path)
        done = await call(
            client,
            "update_state",
            connection_id=IDLE,
            expected_version=version,
            wait_seconds=50,
            **PATCH,
        )

    assert done["status"] == "updated"
    assert sandbox.connection(IDLE).paused is False
