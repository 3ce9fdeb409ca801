"""Secrets: the API secret is not stored anywhere, no state is on disk in clear, and others can read
no file."""

import json
import os
import sqlite3
import stat
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client

from fivetran_state import state
from fivetran_state.sandbox import Sandbox
from tests.support.calls import API_KEY, IDLE, PAUSED, arrival, state_of, version_of
from tests.support.files import files_under, where
from tests.support.http_server import http_forked, lines_of
from tests.support.processes import Server, running
from tests.support.rest import ANY

SECRET = 's3cret/with+odd=signs&"quotes"'
MARKER = "marker-of-what-a-state-holds"
NEW_MARKER = "marker-of-what-is-written"


@pytest.fixture
def environment(environment: dict[str, str], sandbox: Sandbox) -> dict[str, str]:
    """An environment with a secret that looks different in every encoding."""
    sandbox.api.api_secret = SECRET
    sandbox.set_state(IDLE, json.dumps({"cursor": MARKER}))
    return environment | {"FIVETRAN_API_SECRET": SECRET}


async def ask(server: Server, tool: str, **arguments: object) -> str:
    """Everything in the tool's answer."""
    return (await server.client.call_tool(tool, arguments)).model_dump_json()


async def a_full_run(sandbox: Sandbox, environment: dict[str, str], folder: Path) -> list[str]:
    """Calls every tool, in every way that can go wrong; the answers."""
    answers: list[str] = []
    async with running(environment, folder, FIVETRAN_STATE_LOG_LEVEL="DEBUG") as server:

        async def update(expected_version: str | None, outcome: str) -> None:
            answer = await ask(
                server,
                "update_state",
                connection_id=IDLE,
                merge_patch={"cursor": NEW_MARKER},
                expected_version=expected_version,
                reason=MARKER,
                idempotency_key=f"{MARKER}-{outcome}",
                wait_seconds=50,
            )
            assert outcome in answer
            answers.append(answer)

        answers.append(await ask(server, "list_connections"))
        answers.append(await ask(server, "get_state", connection_id=IDLE))
        version = await version_of(server.client, IDLE)
        await update(None, "planned")
        await update(version, "updated")
        await update(version, "conflict")
        sandbox.fault("wrong_state", method="PATCH", path="/state$", body='{"cursor":"mangled"}')
        sandbox.set_state(IDLE, json.dumps({"cursor": MARKER}))
        sandbox.fault("drop", method="GET", path=IDLE)
        await update(await version_of(server.client, IDLE), "verification_failed")
        malformed = json.dumps({"code": "Success", "data": {MARKER: MARKER}})
        sandbox.fault("status", status=200, body=malformed, path="/connections$")
        answers.append(await ask(server, "list_connections"))
        assert "fivetran_unavailable" in answers[-1]
        answers.append(await ask(server, "workflow_status", workflow_id=f"{IDLE}:1"))
        meddle_with_snapshots(folder / "data" / "state.db")
        undo = {"connection_id": IDLE, "restore_from": f"{IDLE}:1"}
        answers.append(await ask(server, "update_state", **undo))
        assert "unusable_key" in answers[-1]
        answers.append(await ask(server, "get_state", connection_id=f"../{IDLE}"))

        sandbox.api.api_secret = "changed"
        answers.append(await ask(server, "get_state", connection_id=IDLE))
        assert "unauthorized" in answers[-1]
        await update(version, "unauthorized")
        sandbox.api.api_secret = SECRET

        # Keep the write-ahead log as it is now, as after a crash of the machine.
        sandbox.fault("hang", method="PATCH", path="/state$")
        version = await version_of(server.client, PAUSED)
        in_flight = {"connection_id": PAUSED, "merge_patch": {"cursor": NEW_MARKER}}
        answers.append(
            await ask(server, "update_state", **in_flight, expected_version=version, wait_seconds=0)
        )
        await arrival(sandbox, lambda request: request.fault == "hang")
        await server.kill()
    return answers


def meddle_with_snapshots(database: Path) -> None:
    """Damages stored snapshots, as somebody else could: the only known way to crash a tool."""
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE operation_outputs SET output = '?'"
            " WHERE function_name IN ('inspect', 'snapshot')"
        )
    connection.close()


@pytest.mark.slow
async def test_the_api_secret_is_in_no_file_no_log_line_and_no_answer(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    answers = await a_full_run(sandbox, environment, tmp_path)
    (tmp_path / "answers.txt").write_text("\n".join(answers))

    names = {path.name for path in files_under(tmp_path)}
    assert {"state.db", "state.db-wal", "stderr.txt", "answers.txt"} <= names
    assert '"level": "debug"' in (tmp_path / "stderr.txt").read_text()
    assert where([SECRET, f"{API_KEY}:{SECRET}"], files_under(tmp_path)) == []


@pytest.mark.slow
async def test_no_state_reason_or_key_is_in_clear_in_any_file_of_the_data_directory(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    answers = await a_full_run(sandbox, environment, tmp_path)

    assert any(MARKER in answer for answer in answers)
    assert any(NEW_MARKER in answer for answer in answers)
    data = tmp_path / "data"
    assert (data / "state.db-wal").stat().st_size > 0
    assert where([MARKER, NEW_MARKER], files_under(data)) == []


KEY_MARK, VALUE_MARK, NUMBER_MARK = "mark-in-a-key", "mark-in-a-value", "7707707707707707"
MARKS = [KEY_MARK, VALUE_MARK, NUMBER_MARK, MARKER, NEW_MARKER]
MARKED = {KEY_MARK: VALUE_MARK, "deep": {KEY_MARK: [int(NUMBER_MARK), VALUE_MARK]}}
REFUSED: list[dict[str, Any]] = [
    {"json_patch": [{"op": "test", "path": f"/{KEY_MARK}", "value": MARKER}]},
    {"json_patch": [{"op": "replace", "path": f"/{KEY_MARK}/{VALUE_MARK}/-1", "value": 1}]},
    {"json_patch": [{"op": MARKER, "path": f"/{NUMBER_MARK}"}]},
    {"merge_patch": [MARKED]},
    {"new_state": VALUE_MARK},
    {"restore_from": f"{IDLE}:1", "only": f"/{KEY_MARK}/{VALUE_MARK}"},
]
"""Changes that cannot be made; their errors quote the changes."""


Change = Callable[..., Awaitable[str]]


async def change_in_every_way(sandbox: Sandbox, change: Change) -> list[str]:
    """Changes that succeed or fail because of the request, the state or Fivetran."""
    sandbox.set_state(IDLE, json.dumps(MARKED))
    answers = [await change(new_state={"cursor": NEW_MARKER}), await change(new_state=MARKED)]
    answers += [await change(**refused) for refused in REFUSED]
    answers.append(await change(new_state={}, expected_version="0" * 32))
    marked = json.dumps({"code": MARKER, "message": VALUE_MARK, "data": MARKED})
    for fault in (
        {"kind": "status", "status": 500, "body": marked, "path": "/state$"},
        {"kind": "status", "status": 400, "body": marked, "method": "PATCH", "path": "/state$"},
        {"kind": "status", "status": 200, "body": marked, "path": f"/{IDLE}$"},
        {"kind": "status", "status": 200, "body": marked[:-5], "path": "/state$"},
        {"kind": "wrong_state", "method": "PATCH", "path": "/state$", "body": marked},
        {"kind": "wrong_state", "method": "PATCH", "path": "/state$", "body": json.dumps(MARKED)},
    ):
        sandbox.set_state(IDLE, json.dumps(MARKED))
        sandbox.fault(fault.pop("kind"), **fault)  # type: ignore[arg-type]
        answers.append(await change(merge_patch={"cursor": NEW_MARKER, KEY_MARK: NUMBER_MARK}))
    return answers


async def change_by_mcp(client: Client, sandbox: Sandbox, **asked: object) -> str:
    seen = {"expected_version": state.version(state_of(sandbox, IDLE)), "wait_seconds": 50}
    arguments = {"connection_id": IDLE} | seen | asked
    return (await client.call_tool("update_state", arguments)).model_dump_json()


async def change_by_rest(client: httpx.AsyncClient, path: str, **asked: object) -> str:
    whose = {"connection_ids": [PAUSED, IDLE]} if "multiple" in path else {"connection_id": IDLE}
    return (await client.post(path, json=ANY | whose | asked)).text


def assert_nothing_leaks(answers: list[str], log: Path) -> None:
    """The answers quote states. The log, at its most verbose level, does not."""
    assert any(VALUE_MARK in answer for answer in answers)
    for code in ("updated", "conflict", "invalid_change", "verification_failed", "fivetran_error"):
        assert any(code in answer for answer in answers), code
    levels = {line["level"] for line in lines_of(log)}
    assert {"debug", "warning"} <= levels
    assert where(MARKS, iter([log])) == []


@pytest.mark.slow
async def test_no_state_is_logged_over_stdio_at_any_level(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    async with running(environment, tmp_path, FIVETRAN_STATE_LOG_LEVEL="debug") as server:
        answers = await change_in_every_way(sandbox, partial(change_by_mcp, server.client, sandbox))
    await a_full_run(sandbox, environment, tmp_path)

    assert_nothing_leaks(answers, tmp_path / "stderr.txt")


@pytest.mark.slow
async def test_no_state_is_logged_over_http_at_any_level(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["FIVETRAN_STATE_LOG_LEVEL"] = "DEBUG"
    async with http_forked(environment, tmp_path) as server:
        answers: list[str] = []
        for path in ("/state/update", "/state/update-multiple"):
            answers += await change_in_every_way(
                sandbox, partial(change_by_rest, server.client, path)
            )
        for odd in (json.dumps(MARKED), json.dumps([MARKED]), json.dumps(MARKED)[:-3], VALUE_MARK):
            for path in ("/mcp", "/state/update", "/state/get"):
                headers = {"Content-Type": "application/json"}
                answers.append((await server.client.post(path, content=odd, headers=headers)).text)

    assert_nothing_leaks(answers, tmp_path / "stderr.txt")


@pytest.fixture
def _careless_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(data: Path) -> dict[str, str]:
    """The modes of the directory and everything in it."""
    return {
        str(path.relative_to(data)): stat.filemode(path.stat().st_mode)
        for path in (data, *data.rglob("*"))
    }


@pytest.mark.usefixtures("_careless_umask")
@pytest.mark.parametrize("arguments", [(), ("--sandbox",)], ids=["account", "sandbox"])
async def test_nobody_else_may_read_the_data_directory_or_anything_in_it(
    environment: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    async with running(environment, tmp_path, *arguments) as server:
        await version_of(server.client, IDLE)
        found = modes(tmp_path / "data")

    assert any(name.endswith("state.db-wal") for name in found)
    assert set(found.values()) == {"drwx------", "-rw-------"}, found


async def test_a_data_directory_that_others_could_read_is_closed_to_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    async with running(environment, tmp_path) as server:
        await version_of(server.client, IDLE)
        assert modes(data)["."] == "drwx------"
