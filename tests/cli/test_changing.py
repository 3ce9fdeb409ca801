"""update, restore, copy, edit, status and cancel, with nobody at a terminal."""

import json
import os
import threading
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest

from fivetran_state.sandbox import Sandbox
from tests.conftest import Serve
from tests.support.calls import (
    EXACT,
    IDLE,
    NO_VERSION,
    PAUSED,
    SYNCING,
    api_calls,
    in_order,
    is_pause,
    state_of,
)
from tests.support.commands import run
from tests.support.rest import ANY, post
from tests.support.shell import Ended, Shell
from tests.support.updates import assert_written_once_while_paused, refuse_resumes

REWIND = '{"cursor":"2020"}'


def update(shell: Shell, connection_id: str, *change: str, stdin: str = "") -> Ended:
    """An update of the state as it is now, recorded as JSON."""
    version = shell.version_of(connection_id)
    pinned = ("--expected-version", version, "--json")
    return shell("update", connection_id, *change, *pinned, stdin=stdin)


@pytest.mark.slow
def test_the_readmes_job_is_done_in_the_shell_alone(shell: Shell, sandbox: Sandbox) -> None:
    found = shell.done("connections", "--name", "orders", "--json").objects[0]["id"]
    seen = shell.done("get", found, "--json").object
    rewind = ("update", found, "--merge-patch", '{"orders":{"cursor":"2026-01-01T00:00:00Z"}}')
    planned = shell.done(*rewind, "--dry-run", "--json").object
    assert planned["version_before"] == seen["version"]

    done = shell.done(*rewind, "--expected-version", planned["version_before"], "--json").object

    assert done["status"] == "updated"
    assert done["version_after"] == planned["version_after"]
    assert state_of(sandbox, found)["orders"]["cursor"] == "2026-01-01T00:00:00Z"
    assert_written_once_while_paused(sandbox, found)
    assert sandbox.connection(found).paused is False
    told = shell.done("status", done["workflow_id"], "--json").object
    assert [step["name"] for step in told["steps"]][-1] == "resume"

    undo = ("restore", found, done["workflow_id"])
    shell.done(*undo, "--expected-version", done["version_after"])

    assert state_of(sandbox, found) == seen["state"]
    assert [
        each["change"]
        for each in shell.done("history", found, "--json").objects
        if "change" in each
    ] == [
        f"restore_from {done['workflow_id']}",
        "merge_patch",
    ]


def test_an_update_makes_the_calls_of_an_update_and_no_more(shell: Shell, sandbox: Sandbox) -> None:
    version = shell.version_of(IDLE)
    since = len(sandbox.log)

    shell.done("update", IDLE, "--merge-patch", REWIND, "--expected-version", version)

    assert in_order(api_calls(sandbox, IDLE, since)) == [
        "GET", "GET state", "PATCH", "GET state", "PATCH state", "GET state", "PATCH",
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
@pytest.mark.parametrize(
    ("option", "change", "after"),
    [
        ("--merge-patch", '{"price":1.20}', '"price":1.20'),
        ("--json-patch", '[{"op":"replace","path":"/price","value":1e400}]', '"price":1e400'),
        ("--new-state", '{"only":9007199254740993.10}', '{"only":9007199254740993.10}'),
    ],
)
def test_changes_come_from_arguments_files_and_stdin_with_every_digit(
    shell: Shell,
    sandbox: Sandbox,
    tmp_path: Path,
    source: str,
    option: str,
    change: str,
    after: str,
) -> None:
    (tmp_path / "change.json").write_text(f"\ufeff{change}\n", encoding="utf-8")
    given = {"argument": change, "file": f"@{tmp_path}/change.json", "stdin": "-"}[source]

    done = update(shell, EXACT, option, given, stdin=change)

    assert done.object["status"] == "updated", done
    kept = sandbox.connection(EXACT).state
    assert kept is not None
    assert after in kept


def test_without_a_version_only_the_plan_is_shown(shell: Shell, sandbox: Sandbox) -> None:
    before = state_of(sandbox, IDLE)

    printed = shell("update", IDLE, "--merge-patch", REWIND)
    recorded = shell("update", IDLE, "--merge-patch", REWIND, "--json")

    assert printed.code == recorded.code == 4
    assert f'/cursor: from "{before["cursor"]}" to "2020"' in printed.stdout
    assert f"--expected-version {recorded.object['version_before']}" in printed.stderr
    assert recorded.object["status"] == "planned"
    assert state_of(sandbox, IDLE) == before
    assert not any(map(is_pause, sandbox.log))


def test_yes_alone_is_not_enough(shell: Shell) -> None:
    ended = shell("update", IDLE, "--merge-patch", REWIND, "--yes")

    assert ended.code == 64
    assert "--expected-version" in ended.stderr


def test_yes_with_the_version_is(shell: Shell, sandbox: Sandbox) -> None:
    change = ("--merge-patch", REWIND, "--yes", "--expected-version", shell.version_of(IDLE))

    shell.done("update", IDLE, *change)

    assert state_of(sandbox, IDLE)["cursor"] == "2020"


def test_another_version_than_expected_exits_with_2(shell: Shell, sandbox: Sandbox) -> None:
    change = ("update", IDLE, "--merge-patch", REWIND, "--expected-version", NO_VERSION)

    for more in ([], ["--dry-run"]):
        ended = shell(*change, *more, "--json")
        assert ended.code == 2
        assert ended.error["code"] == "conflict"
        assert ended.error["current_version"] == shell.version_of(IDLE)

    assert not any(map(is_pause, sandbox.log))


def test_a_change_of_nothing_is_done_at_once(shell: Shell, sandbox: Sandbox) -> None:
    same = json.dumps(state_of(sandbox, IDLE))

    assert shell.done("update", IDLE, "--new-state", same).code == 0
    assert update(shell, IDLE, "--new-state", same).object["status"] == "unchanged"


def test_the_same_command_again_tells_of_the_same_update(shell: Shell) -> None:
    change = ("update", IDLE, "--merge-patch", REWIND, "--expected-version", shell.version_of(IDLE))

    first = shell.done(*change, "--json").object
    second = shell.done(*change, "--json").object

    assert first["workflow_id"] == second["workflow_id"] == f"{IDLE}:1"


@pytest.mark.parametrize(
    "arguments",
    [
        ("update", IDLE),
        ("update", IDLE, "--merge-patch", "{}", "--new-state", "{}"),
        ("update", IDLE, "--merge-patch", "{"),
        ("update", IDLE, "--merge-patch", "@no/such/file"),
        ("update", IDLE, "--merge-patch", REWIND, "--expected-version", "latest"),
        ("update", "no such id", "--merge-patch", REWIND),
        ("update", IDLE, "--merge-patch", REWIND, "--reason", "x" * 501),
        ("restore", IDLE, "first"),
        ("restore", IDLE, f"{PAUSED}:1"),
        ("copy", IDLE, IDLE, "--only", "no/pointer"),
        ("status", "first"),
        ("cancel", "first"),
        ("get", IDLE, "--path", "/nowhere"),
        ("export",),
        ("plan", "no/such/folder"),
        ("no-such-command",),
    ],
)
def test_wrong_arguments_exit_with_64_and_change_nothing(
    shell: Shell, sandbox: Sandbox, arguments: tuple[str, ...]
) -> None:
    printed, recorded = shell(*arguments), shell(*arguments, "--json")

    assert printed.code == recorded.code == 64
    assert printed.stdout == ""
    assert "Error: " in printed.stderr
    assert recorded.error["code"] == "invalid_request"
    assert not any(map(is_pause, sandbox.log))


def test_a_wrong_environment_exits_with_64(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_SYNC_WAIT", "soon")

    ended = shell("get", IDLE, "--json")

    assert ended.code == 64
    assert "FIVETRAN_STATE_SYNC_WAIT" in ended.error["message"]


def test_a_change_that_does_not_apply_exits_with_1(shell: Shell, sandbox: Sandbox) -> None:
    ended = update(shell, IDLE, "--json-patch", '[{"op":"remove","path":"/nothing"}]')

    assert ended.code == 1
    assert ended.error["code"] == "invalid_change"
    assert not any(map(is_pause, sandbox.log))


def test_a_read_only_shell_refuses(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVETRAN_STATE_READ_ONLY", "true")

    assert update(shell, IDLE, "--merge-patch", REWIND).code == 4
    assert shell("update", IDLE, "--merge-patch", REWIND, "--dry-run").code == 0


def test_a_pending_resync_is_refused_unless_it_is_allowed(shell: Shell) -> None:
    change = ("patient_archive", "--merge-patch", REWIND)

    refused, allowed = update(shell, *change), update(shell, *change, "--allow-resync")

    assert refused.code == 4
    assert "--allow-resync" in refused.error["hint"]
    assert allowed.object["status"] == "updated"


def test_a_sync_is_started_afterwards(shell: Shell, sandbox: Sandbox) -> None:
    update(shell, IDLE, "--merge-patch", REWIND, "--then-sync")

    assert sandbox.connection(IDLE).sync_state == "syncing"


def test_a_connection_that_stays_paused_exits_with_3(shell: Shell, sandbox: Sandbox) -> None:
    refuse_resumes(sandbox, IDLE)

    ended = update(shell, IDLE, "--merge-patch", REWIND)

    assert ended.code == 3
    assert ended.error["code"] == "left_paused"
    assert sandbox.connection(IDLE).paused is True
    assert shell("status", f"{IDLE}:1").code == 3


# Restore and copy


@pytest.mark.slow
def test_only_a_part_is_restored(shell: Shell, sandbox: Sandbox) -> None:
    before = state_of(sandbox, SYNCING)
    update(shell, SYNCING, "--merge-patch", '{"orders":{"cursor":"2020"},"schema_version":4}')
    restore = ("restore", SYNCING, f"{SYNCING}:1", "--only", "/orders")
    planned = shell.done(*restore, "--dry-run", "--json").object

    shell.done(*restore, "--expected-version", planned["version_before"])

    assert state_of(sandbox, SYNCING) == before | {"schema_version": 4}


def test_an_update_that_wrote_nothing_cannot_be_restored(shell: Shell, sandbox: Sandbox) -> None:
    update(shell, IDLE, "--new-state", json.dumps(state_of(sandbox, IDLE)))

    ended = shell("restore", IDLE, f"{IDLE}:1", "--json")

    assert ended.code == 4
    assert ended.error["code"] == "nothing_to_undo"


def test_a_state_is_copied_exactly(shell: Shell, sandbox: Sandbox) -> None:
    shell.done("copy", EXACT, IDLE, "--expected-version", shell.version_of(IDLE))

    assert sandbox.connection(IDLE).state == sandbox.connection(EXACT).state


# Edit


def test_a_state_is_edited(shell: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/1.10/1.25/")
    before = sandbox.connection(EXACT).state
    assert before is not None

    shell.done("edit", EXACT, "--yes")

    assert sandbox.connection(EXACT).state == before.replace("1.10", "1.25")


def test_an_edit_of_nothing_writes_nothing(
    shell: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "true")

    assert "nothing" in shell.done("edit", EXACT, "--yes").stderr
    assert not any(map(is_pause, sandbox.log))


@pytest.mark.parametrize(
    "editor", ["sed -i s/{/[/", "false", "no-such-editor", "sh -c 'echo []>$0'"]
)
def test_what_cannot_be_used_is_kept_in_its_file(
    shell: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, editor: str
) -> None:
    monkeypatch.setenv("EDITOR", editor)

    ended = shell("edit", EXACT, "--yes")

    assert ended.code == 64
    assert Path(ended.stderr.split()[-1]).is_file()
    assert not any(map(is_pause, sandbox.log))


def test_a_state_that_moves_while_it_is_edited_is_left_alone(
    shell: Shell, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened, go = tmp_path / "opened", tmp_path / "go"
    os.mkfifo(opened)
    os.mkfifo(go)
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\n: >{opened}; : <{go}; echo '{{\"mine\":1}}' >$1\n")
    editor.chmod(0o700)
    monkeypatch.setenv("EDITOR", str(editor))

    def move() -> None:
        opened.read_text()
        sandbox.set_state(IDLE, '{"moved":true}')
        go.write_text("")

    mover = threading.Thread(target=move)
    mover.start()
    ended = shell("edit", IDLE, "--yes")

    mover.join()
    assert ended.code == 2
    assert json.loads(Path(ended.stderr.split()[-1]).read_text()) == {"mine": 1}
    assert state_of(sandbox, IDLE) == {"moved": True}


def test_without_a_terminal_no_editor_is_opened(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDITOR", f"touch {tmp_path}/opened")

    assert shell("edit", IDLE).code == 4
    assert not (tmp_path / "opened").exists()


# Status and cancel


def test_an_update_that_has_ended_cannot_be_cancelled(shell: Shell) -> None:
    update(shell, IDLE, "--merge-patch", REWIND)

    ended = shell("cancel", f"{IDLE}:1", "--json")

    assert ended.code == 4
    assert ended.error["code"] == "too_late_to_cancel"


def test_the_status_of_a_failed_update_exits_with_1(shell: Shell, sandbox: Sandbox) -> None:
    version = shell.version_of(IDLE)
    sandbox.fault("status", method="PATCH", path=f"/{IDLE}$", status=403)
    failed = shell("update", IDLE, "--merge-patch", REWIND, "--expected-version", version)
    assert failed.code == 1, failed

    printed = shell("status", f"{IDLE}:1")
    recorded = shell("status", f"{IDLE}:1", "--watch", "--json")

    assert printed.code == recorded.code == 1
    assert f"{IDLE}:1: failed" in printed.stdout
    assert recorded.object["error"]["code"] == "forbidden"


@pytest.mark.slow
async def test_connections_that_are_changed_together_are_followed_together(
    http: Serve, environment: dict[str, str], tmp_path: Path
) -> None:
    async with http() as server:
        body = ANY | {"connection_ids": [IDLE, PAUSED], "merge_patch": {"cursor": "2020"}}
        group = await post(
            server.client, "/state/update-multiple", body, status=202, Prefer="respond-async"
        )
        watch = ("--watch", "--json")
        following = partial(run, environment, tmp_path, "status", group["workflow_id"], *watch)
        ended = await anyio.to_thread.run_sync(following)
        cancelling = partial(run, environment, tmp_path, "cancel", group["workflow_id"])
        too_late = await anyio.to_thread.run_sync(cancelling)

    assert ended.returncode == 0, ended
    last = json.loads(ended.stdout.splitlines()[-1])  # The lines before it tell of the progress.
    assert [each["status"] for each in last["updates"]] == ["updated"] * 2
    assert too_late.returncode == 4


def test_there_is_no_status_of_an_unknown_update(shell: Shell) -> None:
    ended = shell("status", f"{IDLE}:7", "--json")

    assert ended.code == 1
    assert ended.error["code"] == "workflow_not_found"
