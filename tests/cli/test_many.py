"""update-many: connections that are changed together."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import EXACT, IDLE, NO_VERSION, PAUSED, STATELESS, is_pause, state_of
from tests.support.hand_over import wait_until_nobody_is_left
from tests.support.shell import Ended, Shell
from tests.support.terminal import terminal
from tests.support.updates import SLOW, is_write

FIVETRAN_STATE = [sys.executable, "-m", "fivetran_state"]
REWIND = ("--merge-patch", '{"cursor":"2020"}')
BOTH = (IDLE, PAUSED)
INDEPENDENT = ("--mode", "independent")
QUESTION = "Type yes to agree, or the id of a connection"


def planned(shell: Shell, *arguments: str, stdin: str = "") -> list[dict[str, Any]]:
    """The plan: each connection, and last the counts and the version."""
    return shell.done("update-many", *arguments, "--dry-run", "--json", stdin=stdin).objects


def agreed(shell: Shell, *arguments: str, stdin: str = "") -> Ended:
    """The change that the plan shows."""
    version = planned(shell, *arguments, stdin=stdin)[-1]["version"]
    pinned = ("--expected-version", version, "--json")
    return shell("update-many", *arguments, *pinned, stdin=stdin)


@pytest.mark.slow
def test_a_group_is_planned_changed_looked_at_and_undone(shell: Shell, sandbox: Sandbox) -> None:
    before = [state_of(sandbox, each) for each in BOTH]
    *members, plan = planned(shell, *BOTH, *REWIND)
    assert [each["connection_id"] for each in members] == list(BOTH)
    assert members[0]["changes"][0]["path"] == "/cursor"
    assert (plan["total"], plan["changed"], plan["mode"]) == (2, 2, "all_or_nothing")
    assert not any(map(is_pause, sandbox.log))

    pinned = ("--expected-version", plan["version"])
    done = shell.done("update-many", *BOTH, *REWIND, *pinned, "--reason", "reload")

    assert [state_of(sandbox, each)["cursor"] for each in BOTH] == ["2020", "2020"]
    assert "2 connections: 2 updated" in done.stdout
    group = done.stdout.partition(": updated")[0]
    assert f"fivetran-state update-many --undo {group}" in done.stdout
    assert "updated (all_or_nothing)" in shell.done("status", group).stdout
    assert shell("cancel", group).code == 4
    undone = agreed(shell, "--undo", group).object
    assert undone["counts"] == {"updated": 2}
    assert [state_of(sandbox, each) for each in BOTH] == before


def test_connections_are_chosen_by_name_group_and_service(shell: Shell, sandbox: Sandbox) -> None:
    sandbox.add_group("rare", "Rare group")
    for name, group, service in (
        ("orders_1", "rare", "connector_sdk"),
        ("orders_2", "rare", "aws_lambda"),
        ("stock_1", "rare", "connector_sdk"),
        ("orders_3", "warehouse", "connector_sdk"),
    ):
        sandbox.add_connection(name, state="{}", group_id=group, service=service)

    filters = ("--name", "orders_*", "--group", "Rare group", "--service", "connector_sdk")
    chosen = planned(shell, *filters, *REWIND)[:-1]

    assert [each["connection_id"] for each in chosen] == ["orders_1"]
    assert shell("update-many", "--name", "nobody", *REWIND).code == 64


def test_a_file_has_a_change_for_each_and_every_number_is_exact(
    shell: Shell, sandbox: Sandbox
) -> None:
    lines = "\n".join(
        [
            f'{{"connection_id": "{IDLE}", "merge_patch": {{"n": 12345678901234567890.10}}}}',
            "",
            json.dumps({"connection_id": PAUSED, "copy_from": EXACT}),
        ]
    )

    ended = agreed(shell, "--file", "-", stdin=lines)

    assert ended.object["counts"] == {"updated": 2}
    assert '"n":12345678901234567890.10' in str(sandbox.connection(IDLE).state)
    assert sandbox.connection(PAUSED).state == sandbox.connection(EXACT).state


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("[]", "line 2"),
        ("{", "line 2"),
        ('{"merge_patch": {}}', "connection_id"),
        ('{"connection_id": 7, "merge_patch": {}}', "connection_id"),
        ('{"connection_id": "other"}', "exactly one"),
        ('{"connection_id": "other", "merge_patch": []}', "merge_patch"),
        ('{"connection_id": "other", "merge_patsch": {}}', "merge_patsch"),
        ('{"connection_id": "other", "merge_patch": {}, "only": "/a"}', "only"),
        (f'{{"connection_id": "{IDLE}", "merge_patch": {{"a": 2}}}}', IDLE),
    ],
)
def test_a_line_that_cannot_be_used_is_named(
    shell: Shell, sandbox: Sandbox, line: str, named: str
) -> None:
    first = json.dumps({"connection_id": IDLE, "merge_patch": {"a": 1}})

    ended = shell("update-many", "--file", "-", stdin=f"{first}\n{line}\n")

    assert ended.code == 64, ended
    assert "line 2" in ended.stderr
    assert named in ended.stderr
    assert sandbox.log == []


@pytest.mark.parametrize(
    "arguments",
    [
        REWIND,
        (IDLE, "--name", "*", *REWIND),
        (IDLE, "--file", "-"),
        ("--file", "-", *REWIND),
        ("--undo", f"together:{NO_VERSION}", *REWIND),
        (*BOTH, *REWIND, "--yes"),
        (*BOTH, *REWIND, "--mode", "some"),
        (IDLE, IDLE, *REWIND),
        BOTH,
    ],
)
def test_a_command_that_contradicts_itself_is_refused(
    shell: Shell, sandbox: Sandbox, arguments: tuple[str, ...]
) -> None:
    assert shell("update-many", *arguments).code == 64
    assert not any(map(is_pause, sandbox.log))


def test_nothing_is_changed_that_nobody_has_seen(shell: Shell, sandbox: Sandbox) -> None:
    version = planned(shell, *BOTH, *REWIND)[-1]["version"]
    sandbox.set_state(IDLE, '{"moved":true}')

    unseen = shell("update-many", *BOTH, *REWIND)
    stale = shell("update-many", *BOTH, *REWIND, "--expected-version", version, "--json")
    again = shell("update-many", *BOTH, *REWIND, "--expected-version", version, "--dry-run")

    assert unseen.code == 4
    assert "2 connections: " in unseen.stdout
    assert "--expected-version" in unseen.stderr
    assert (stale.code, stale.error["code"]) == (2, "conflict")
    assert again.code == 2
    assert not any(map(is_pause, sandbox.log))


def test_a_change_of_nothing_is_done(shell: Shell, sandbox: Sandbox) -> None:
    same = json.dumps({"cursor": state_of(sandbox, IDLE)["cursor"]})

    ended = shell.done("update-many", IDLE, "--merge-patch", same)

    assert "as it is" in ended.stdout
    assert not any(map(is_pause, sandbox.log))


def test_a_connection_that_cannot_be_changed_keeps_all_or_nothing_from_beginning(
    shell: Shell, sandbox: Sandbox
) -> None:
    asked = ("update-many", IDLE, STATELESS, *REWIND)

    printed = shell(*asked)
    *members, plan = shell(*asked, "--dry-run", "--json").objects

    assert printed.code == 1
    assert f"{STATELESS}: " in printed.stdout
    assert "--mode independent" in printed.stderr
    assert [each["error"]["code"] for each in members if "error" in each] == ["state_not_kept"]
    assert plan["failed"] == 1
    assert not any(map(is_pause, sandbox.log))


def test_a_plan_of_nothing_but_failures_says_so(shell: Shell) -> None:
    ended = shell("update-many", STATELESS, *REWIND, *INDEPENDENT)

    assert ended.code == 1
    assert "1 of 1 connections cannot be changed" in ended.stdout


def test_independent_leaves_out_what_the_plan_names_and_exits_with_5(
    shell: Shell, sandbox: Sandbox
) -> None:
    asked = (IDLE, STATELESS, *REWIND, *INDEPENDENT)
    looked = shell("update-many", *asked, "--dry-run", "--json")

    pinned = ("--expected-version", looked.objects[-1]["version"])
    done = shell("update-many", *asked, *pinned, "--json")

    assert (looked.code, done.code) == (1, 5)
    assert done.object["counts"] == {"state_not_kept": 1, "updated": 1}
    assert state_of(sandbox, IDLE)["cursor"] == "2020"


def test_a_failure_undoes_all_or_nothing_and_exits_with_1(shell: Shell, sandbox: Sandbox) -> None:
    before = [state_of(sandbox, each) for each in BOTH]
    sandbox.fault("status", method="PATCH", path=f"/{IDLE}/state$", status=403)

    ended = agreed(shell, *BOTH, *REWIND)

    assert ended.code == 1
    assert ended.object["status"] == "failed"
    assert [state_of(sandbox, each) for each in BOTH] == before
    assert not sandbox.connection(IDLE).paused


def test_a_part_that_fails_is_listed_first_and_exits_with_5(shell: Shell, sandbox: Sandbox) -> None:
    sandbox.fault("status", method="PATCH", path=f"/{PAUSED}/state$", status=403)

    ended = agreed(shell, *BOTH, *REWIND, *INDEPENDENT)
    status = shell("status", ended.object["workflow_id"])

    assert ended.code == status.code == 5
    assert ended.object["counts"] == {"forbidden": 1, "updated": 1}
    listed = [line.partition(":")[0] for line in status.stdout.splitlines()]
    assert listed.index(PAUSED) < listed.index(IDLE)
    assert state_of(sandbox, IDLE)["cursor"] == "2020"


@pytest.mark.slow
def test_many_connections_are_shown_on_a_screen(shell: Shell, sandbox: Sandbox) -> None:
    for number in range(30):
        sandbox.add_connection(f"many_{number:02}", state='{"cursor":"2026"}')
    asked = ("--name", "many_*", *REWIND, *INDEPENDENT)

    plan = shell("update-many", *asked)
    group = agreed(shell, *asked).object["workflow_id"]
    status = shell.done("status", group)

    assert "30 connections: replace /cursor" in plan.stdout
    assert "… and 10 more connections" in plan.stdout
    assert "30 connections: 30 updated" in status.stdout
    assert "… and 10 more connections" in status.stdout
    assert len([request for request in sandbox.log if is_write(request)]) == 30


# At a terminal


@pytest.mark.slow
def test_a_group_is_asked_about_and_each_change_is_shown_on_request(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    fields = json.dumps({f"field_{number}": number for number in range(30)})
    command = [*FIVETRAN_STATE, "update-many", *BOTH, "--merge-patch", fields]
    with terminal(command, environment, tmp_path) as screen:
        asked = screen.wait_for(QUESTION)
        assert "Change the states of 2 connections (all_or_nothing)?" in asked
        assert "… and 27 more changes" in asked
        assert "/field_29: added" not in asked
        screen.type(f"{IDLE}\n")
        screen.wait_for("(30 of 30) /field_29: added, 29")
        assert not any(map(is_pause, sandbox.log))
        screen.type("yes\n")

        assert screen.wait() == 0

    assert "2 connections: 2 updated" in screen.screen
    assert state_of(sandbox, PAUSED)["field_29"] == 29


@pytest.mark.slow
def test_a_state_that_moves_during_the_question_is_asked_about_again(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [*FIVETRAN_STATE, "update-many", *BOTH, *REWIND]
    with terminal(command, environment, tmp_path) as screen:
        screen.wait_for(QUESTION)
        sandbox.set_state(IDLE, '{"cursor":"moved"}')
        screen.type(f"{IDLE}\n")
        screen.wait_for('"moved" -> "2020"')
        screen.type("no\n")

        assert screen.wait() == 4

    assert not any(map(is_pause, sandbox.log))


@pytest.mark.slow
def test_ctrl_c_leaves_a_group_running_and_says_so(
    shell: Shell,
    sandbox: Sandbox,
    slow: dict[str, Any],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    command = [*FIVETRAN_STATE, "update-many", IDLE, SLOW, *REWIND, *INDEPENDENT]
    with terminal(command, environment, tmp_path) as screen:
        screen.wait_for(QUESTION)
        screen.type("yes\n")
        screen.wait_for("1 running, 1 updated")
        screen.type("\x03")
        assert screen.wait() == 130
    assert "goes on by itself" in screen.screen
    group = screen.screen.partition("The group ")[2].partition(" ")[0]

    busy = shell("update-many", SLOW, *REWIND, "--json")
    running = shell("status", group)
    cancelled = shell.done("cancel", group)

    assert busy.code == 4
    assert busy.objects[0]["error"]["code"] == "update_in_progress"
    assert running.code == 3
    assert f"{group}: running (independent)" in running.stdout
    assert "1 running, 1 updated" in running.stdout
    assert "1 cancelled, 1 updated" in cancelled.stdout
    assert shell("status", group).code == 5
    assert state_of(sandbox, SLOW) == slow
    wait_until_nobody_is_left(environment)
