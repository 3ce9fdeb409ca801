"""export, plan and apply: states as files."""

import json
import os
from pathlib import Path

import pytest

from fivetran_state import state
from fivetran_state.sandbox import Sandbox
from tests.support.calls import EMPTY, EXACT, IDLE, PAUSED, STATELESS, is_pause, state_of
from tests.support.policies import policy
from tests.support.shell import Shell
from tests.support.updates import is_write

RESYNCING = "patient_archive"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit(folder: Path, connection_id: str, old: str, new: str) -> None:
    path = folder / f"{connection_id}.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def plan_version(shell: Shell, folder: Path) -> str:
    version: str = shell.done("plan", str(folder), "--json").objects[-1]["expected_version"]
    return version


@pytest.fixture
def exported(shell: Shell, tmp_path: Path) -> Path:
    """Two states as files: IDLE's and PAUSED's."""
    shell.done("export", str(tmp_path / "states"), IDLE, PAUSED)
    return tmp_path / "states"


@pytest.mark.slow
def test_one_line_of_a_hundred_states_is_changed_and_all_come_back_equal(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    before = {}
    for number in range(100):
        before[f"many_{number}"] = f'{{"cursor":{number}.10,"large":9007199254740993}}'
        sandbox.add_connection(f"many_{number}", state=before[f"many_{number}"])
    first, again = tmp_path / "first", tmp_path / "again"
    shell.done("export", str(first), *before)
    edit(first, "many_42", "42.10", "42.20")
    planned = shell.done("plan", str(first), "--json").objects
    assert [each["connection_id"] for each in planned[:-1]] == ["many_42"]
    assert planned[-1] == {
        "expected_version": planned[-1]["expected_version"],
        "planned": 1,
        "unchanged": 99,
        "moved": 0,
        "drifted": 0,
        "failed": 0,
    }

    version = planned[-1]["expected_version"]
    applied = shell.done("apply", str(first), "--expected-version", version, "--json").object
    shell.done("export", str(again), *before)

    assert applied["version_after"] == planned[0]["version_after"]
    assert contents(again) == contents(first)
    after = {name: sandbox.connection(name).state for name in before}
    assert after == before | {"many_42": before["many_42"].replace("42.10", "42.20")}
    assert len([request for request in sandbox.log if is_write(request)]) == 1


def test_every_state_is_exported_for_nobody_else_to_read(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    ended = shell.done("export", str(tmp_path / "states"))

    files = {path.stem: path for path in (tmp_path / "states").iterdir()}
    assert len(files) == 10
    assert STATELESS not in files
    assert f"{EMPTY} has no state yet" in ended.stderr
    assert {path.stat().st_mode & 0o777 for path in files.values()} == {0o600}
    found = state.parse(files[EXACT].read_bytes())
    assert found["version"] == shell.version_of(EXACT)
    assert state.dump(found["state"]) == sandbox.connection(EXACT).state


def test_what_cannot_be_exported_is_named(shell: Shell, tmp_path: Path) -> None:
    ended = shell("export", str(tmp_path / "states"), IDLE, STATELESS, "--json")

    assert ended.code == 1
    ok, refused = ended.objects
    assert ok["connection_id"] == IDLE
    assert (refused["connection_id"], refused["error"]["code"]) == (STATELESS, "state_not_kept")


def test_edits_are_never_overwritten(shell: Shell, exported: Path) -> None:
    edit(exported, IDLE, '"cursor": "', '"cursor": "X')
    edited = contents(exported)

    ended = shell("export", str(exported))

    assert ended.code == 64
    assert IDLE in ended.stderr
    assert contents(exported) == edited


@pytest.mark.slow
def test_apply_does_exactly_what_plan_showed(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    (exported / f"{IDLE}.json").write_text(
        json.dumps({"connection_id": IDLE, "version": shell.version_of(IDLE), "state": {"a": 1}})
    )
    version = plan_version(shell, exported)
    edit(exported, IDLE, '"a": 1', '"a": 2')

    edited_since = shell("apply", str(exported), "--expected-version", version, "--json")
    unseen = shell("apply", str(exported))
    blindly = shell("apply", str(exported), "--yes")

    assert (edited_since.code, edited_since.error["code"]) == (2, "conflict")
    assert unseen.code == 4
    assert "/a: added, 2" in unseen.stdout
    assert blindly.code == 64
    assert not any(map(is_pause, sandbox.log))

    shell.done("apply", str(exported), "--expected-version", plan_version(shell, exported), "--yes")

    assert state_of(sandbox, IDLE) == {"a": 2}
    assert shell.done("plan", str(exported)).stdout == "2 unchanged\n"


def test_drift_exits_with_2_and_nothing_is_applied(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    edit(exported, PAUSED, "last_sync", "first_sync")
    edit(exported, IDLE, "cursor", "renamed")
    version = plan_version(shell, exported)
    sandbox.set_state(IDLE, '{"moved":true}')

    planned = shell("plan", str(exported))
    applied = shell("apply", str(exported), "--expected-version", version, "--json")

    assert planned.code == applied.code == 2
    assert f"{IDLE}: drift." in planned.stdout
    assert {"conflict"} == {each["error"]["code"] for each in applied.objects if "error" in each}
    assert state_of(sandbox, IDLE) == {"moved": True}
    assert "first_sync" not in state_of(sandbox, PAUSED)


def test_a_file_that_nobody_edited_asks_for_nothing(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    sandbox.set_state(IDLE, '{"moved":true}')

    planned = shell.done("plan", str(exported))

    assert planned.stdout == "1 unchanged, 1 moved\n"
    assert f"{IDLE}: the state has moved since the export" in planned.stderr
    assert shell.done("apply", str(exported)).code == 0
    assert state_of(sandbox, IDLE) == {"moved": True}


def test_a_state_that_is_there_already_is_no_drift(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    edit(exported, IDLE, "cursor", "renamed")
    renamed = state.parse((exported / f"{IDLE}.json").read_bytes())["state"]
    sandbox.set_state(IDLE, state.dump(renamed))

    assert shell.done("plan", str(exported)).stdout == "2 unchanged\n"


@pytest.mark.slow
def test_one_that_fails_does_not_keep_the_others_and_exits_with_5(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    edit(exported, PAUSED, "last_sync", "first_sync")
    edit(exported, IDLE, "cursor", "renamed")
    version = plan_version(shell, exported)
    sandbox.fault("status", method="PATCH", path=f"/{IDLE}$", status=403)

    ended = shell("apply", str(exported), "--expected-version", version, "--json")

    assert ended.code == 5
    results = {each["connection_id"]: each for each in ended.objects}
    assert results[IDLE]["error"]["code"] == "forbidden"
    assert results[PAUSED]["status"] == "updated"
    assert "first_sync" in state_of(sandbox, PAUSED)
    assert shell.done("plan", str(exported), "--json").objects[0]["connection_id"] == IDLE


def test_one_that_has_to_be_approved_exits_with_6(
    shell: Shell, sandbox: Sandbox, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = policy(tmp_path, f'name = "x"\nconnections = ["{PAUSED}"]\napproval = "required"')
    monkeypatch.setenv(*rules.popitem())
    edit(exported, IDLE, "2026", "2025")
    edit(exported, PAUSED, "2026", "2025")
    version = plan_version(shell, exported)

    applied = shell("apply", str(exported), "--expected-version", version, "--json")

    assert applied.code == 6
    assert sorted(each["status"] for each in applied.objects) == ["proposed", "updated"]
    assert {each.connection_id for each in sandbox.log if is_write(each)} == {IDLE}


def test_a_sync_is_started_of_each_connection_that_is_changed(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    edit(exported, IDLE, "cursor", "renamed")
    version = plan_version(shell, exported)

    # PAUSED could not sync; but its file asks for nothing.
    shell.done("apply", str(exported), "--expected-version", version, "--then-sync")

    assert sandbox.connection(IDLE).sync_state == "syncing"


def test_a_connection_that_cannot_sync_keeps_all_from_being_changed(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    edit(exported, IDLE, "cursor", "renamed")
    edit(exported, PAUSED, "last_sync", "first_sync")
    version = plan_version(shell, exported)

    ended = shell("apply", str(exported), "--expected-version", version, "--then-sync")

    assert ended.code == 64
    assert f"{PAUSED} is paused" in ended.stderr
    assert not any(map(is_write, sandbox.log))


def test_a_pending_resync_keeps_all_from_being_changed_unless_it_is_allowed(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    shell.done("export", str(exported), RESYNCING)
    edit(exported, IDLE, "cursor", "renamed")
    edit(exported, RESYNCING, "cursor", "renamed")
    apply = ("apply", str(exported), "--expected-version", plan_version(shell, exported))

    refused = shell(*apply, "--json")

    assert refused.code == 4
    assert [each["error"]["code"] for each in refused.objects if "error" in each] == [
        "resync_pending"
    ]
    assert not any(map(is_pause, sandbox.log))
    shell.done(*apply, "--allow-resync")
    assert "renamed" in state_of(sandbox, RESYNCING)
    assert "renamed" in state_of(sandbox, IDLE)


def test_a_deleted_connection_fails_the_plan(
    shell: Shell, sandbox: Sandbox, exported: Path
) -> None:
    sandbox.delete_connection(IDLE)

    planned, applied = shell("plan", str(exported)), shell("apply", str(exported))

    assert planned.code == applied.code == 1
    assert IDLE in planned.stderr


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"connection_id":"%s","version":"%s","state":[]}',
        '{"connection_id":"%s","version":"%s","state":null}',
        '{"connection_id":"%s","version":"%s","state":{"a":1,"a":2}}',
        '{"connection_id":"%s","version":"%s","state":{},"state":{"a":1}}',
        '{"connection_id":"%s","version":"%s","state":{},"note":1}',
        '{"connection_id":"other","version":"%s","state":{}}',
        '{"connection_id":"%s","version":"latest","state":{}}',
        '{"connection_id":"../%s","version":"%s","state":{}}',
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    shell: Shell, sandbox: Sandbox, exported: Path, content: str
) -> None:
    values = (IDLE, "0" * 32)[: content.count("%s")]
    if content.count("%s") == 1 and "other" in content:
        values = ("0" * 32,)
    (exported / f"{IDLE}.json").write_text(content % values)

    for command in ("plan", "apply", "export"):
        ended = shell(command, str(exported))
        assert ended.code == 64, ended
        assert f"{IDLE}.json" in ended.stderr
    assert not any(map(is_pause, sandbox.log))


@pytest.mark.slow
def test_a_file_may_be_larger_than_the_largest_state_by_its_indentation(
    shell: Shell, sandbox: Sandbox, tmp_path: Path
) -> None:
    deep = 90
    rows = ",".join("0" * 60_000)
    nested = '{"a":' * deep + f"[{rows}]" + "}" * deep
    sandbox.add_connection("huge", state=f'{{"cursor":1,"nested":{nested}}}')
    folder = tmp_path / "states"
    shell.done("export", str(folder), "huge")
    assert (folder / "huge.json").stat().st_size > state.MAX_BYTES
    edit(folder, "huge", '"cursor": 1,', '"cursor": 2,')

    shell.done("apply", str(folder), "--expected-version", plan_version(shell, folder))

    assert state_of(sandbox, "huge")["cursor"] == 2


def test_the_name_of_a_folder_is_harmless(shell: Shell, tmp_path: Path) -> None:
    hostile = tmp_path / "\x1b[2J a'b\u202e"
    os.mkdir(hostile)  # noqa: PTH102

    ended = shell("plan", str(hostile))

    assert ended.code == 64
    assert "\x1b" not in ended.stderr
    assert "\u202e" not in ended.stderr
