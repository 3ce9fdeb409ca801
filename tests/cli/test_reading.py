"""connections, get, history and diff."""

import json

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import EMPTY, EXACT, IDLE, LARGE, PAUSED, STATELESS, state_of
from tests.support.shell import Shell

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x7f\u202egnp.exe\u2066\x9b31m\r\n0  ok"
CONTROLS = [chr(code) for code in (*range(10), *range(11, 32), *range(127, 160), 0x202E, 0x2066)]


def test_connections_are_listed_with_what_tells_them_apart(shell: Shell) -> None:
    listed = shell.done("connections").stdout.splitlines()

    assert listed[0].split() == ["ID", "NAME", "SERVICE", "GROUP", "STATUS"]
    assert len(listed) == 13
    (paused,) = (line for line in listed if line.startswith(PAUSED))
    assert paused.endswith("  paused")
    (stateless,) = (line for line in listed if line.startswith(STATELESS))
    assert stateless.endswith("keeps no state")


def test_connections_are_searched(shell: Shell) -> None:
    found = shell.done("connections", "--name", "orders", "--service", "connector_sdk", "--json")

    assert [each["id"] for each in found.objects] == ["speak_inexpensive", "twin_harvest"]


def test_all_pages_of_connections_are_listed(shell: Shell, sandbox: Sandbox) -> None:
    for number in range(1100):
        sandbox.add_connection(f"many_{number}", state="{}")

    found = shell.done("connections", "--json").objects

    assert len({each["id"] for each in found}) == 1112


def test_a_state_comes_with_every_digit(shell: Shell, sandbox: Sandbox) -> None:
    kept = sandbox.connection(EXACT).state
    assert kept is not None

    printed = shell.done("get", EXACT)
    recorded = shell.done("get", EXACT, "--json")

    assert "".join(printed.stdout.split()) == kept
    assert f'"state":{kept}' in recorded.stdout


def test_only_the_state_is_on_stdout(shell: Shell, sandbox: Sandbox) -> None:
    printed = shell.done("get", PAUSED)

    assert json.loads(printed.stdout) == state_of(sandbox, PAUSED)
    assert "paused" in printed.stderr
    assert f"version {shell.version_of(PAUSED)}" in printed.stderr


def test_a_part_of_a_state_is_printed(shell: Shell) -> None:
    printed = shell.done("get", LARGE, "--path", "/tables/library_00042/offset")

    assert printed.stdout == "4200\n"


@pytest.mark.slow
def test_every_value_that_a_search_finds_is_printed(shell: Shell, sandbox: Sandbox) -> None:
    tables = {f"table {n}": {"cursor": n, "rows": [n] * 100} for n in range(2_000)}
    sandbox.add_connection("odd", state=json.dumps({"tables": tables}))

    printed = shell.done("get", "odd", "--search", "TABLE 7")
    recorded = shell.done("get", "odd", "--search", "table 7/", "--path", "/tables", "--json")
    counted = shell.done("get", "odd", "--search", "cursor")

    first, *_ = printed.stdout.splitlines()
    assert first == '"/tables/table 7": (object of 221 bytes, 2 members)'
    assert len(printed.stdout.splitlines()) == 111
    assert "111 found" in printed.stderr
    assert recorded.objects == [
        {"path": "/tables/table 7/cursor", "type": "number", "bytes": 1, "preview": "7"},
        {
            "path": "/tables/table 7/rows", "type": "array", "bytes": 201, "items": 100,
        },
    ]  # fmt: skip
    assert len(counted.stdout.splitlines()) == 2_000
    assert counted.stdout.splitlines()[1] == '"/tables/table 1/cursor": 1'


def test_a_search_that_finds_nothing_says_so(shell: Shell) -> None:
    ended = shell.done("get", EXACT, "--search", "nowhere")

    assert ended.stdout == ""
    assert "No path contains it" in ended.stderr


def test_a_search_looks_into_the_past(shell: Shell, sandbox: Sandbox) -> None:
    before = shell.version_of(IDLE)
    sandbox.set_state(IDLE, "{}")

    past = shell.done("get", IDLE, "--search", "cursor", "--at", before)

    assert past.stdout.startswith("/cursor: ")
    assert shell.done("get", IDLE, "--search", "cursor").stdout == ""


def test_what_is_no_state_is_not_searched(shell: Shell, sandbox: Sandbox) -> None:
    sandbox.set_state(IDLE, "[]")

    assert shell("get", IDLE, "--search", "x", "--json").error["code"] == "invalid_request"


def test_empty_text_searches_for_nothing(shell: Shell) -> None:
    assert shell.done("get", EXACT, "--search", "").stdout == shell.done("get", EXACT).stdout


def test_a_state_of_megabytes_is_printed_whole(shell: Shell, sandbox: Sandbox) -> None:
    assert json.loads(shell.done("get", LARGE).stdout) == state_of(sandbox, LARGE)


def test_what_cannot_be_read_is_an_error_in_either_form(shell: Shell) -> None:
    printed, recorded = shell("get", EMPTY), shell("get", EMPTY, "--json")

    assert printed.code == recorded.code == 1
    assert printed.stdout == ""
    assert printed.stderr.startswith("Error: ")
    assert recorded.error["code"] == "no_state_yet"
    assert recorded.error["hint"]
    assert recorded.stderr == ""


def test_hints_name_commands(shell: Shell) -> None:
    assert "fivetran-state connections" in shell("get", "nobody").stderr


@pytest.mark.slow
def test_states_and_names_are_harmless_on_a_terminal(shell: Shell, sandbox: Sandbox) -> None:
    sandbox.add_group("hostile", HOSTILE)
    sandbox.add_connection("odd", state="{}", schema=HOSTILE, group_id="hostile")
    sandbox.add_connection("old", state=json.dumps({HOSTILE: HOSTILE, "é": "שלום"}))

    outputs = [
        shell.done("connections"),
        shell.done("get", "odd"),
        shell.done("get", "old"),
        shell("diff", "odd", "old"),
        shell("update", "odd", "--merge-patch", json.dumps({HOSTILE: 1})),
        shell("get", HOSTILE),
        shell("status", HOSTILE),
        shell(HOSTILE),
        shell("get", "--" + HOSTILE),
    ]

    recorded = shell.done("get", "old", "--json")
    assert recorded.object["state"][HOSTILE] == HOSTILE
    outputs.append(recorded)
    for ended in outputs:
        text = ended.stdout + ended.stderr
        assert [each for each in CONTROLS if each in text] == [], text
        assert "\n0  ok" not in text


@pytest.mark.slow
def test_history_shows_what_moved_the_state_newest_first(shell: Shell) -> None:
    for cursor in ("2020", "2021", "2022"):
        change = ["--merge-patch", json.dumps({"cursor": cursor}), "--reason", f"to {cursor}"]
        shell.done("update", IDLE, *change, "--expected-version", shell.version_of(IDLE))

    listed = shell.done("history", IDLE, "--json").objects
    newest = shell.done("history", IDLE, "--limit", "1")

    *updates, first = listed
    assert [each["workflow_id"] for each in updates] == [f"{IDLE}:{n}" for n in (3, 2, 1)]
    assert first["kind"] == "first look"
    (asker,) = {each["asked_by"] for each in updates}
    assert asker.startswith("shell:")
    assert asker in newest.stdout
    assert "to 2022" in newest.stdout
    assert "to 2021" not in newest.stdout
    assert "--limit" in newest.stderr


def test_an_empty_history_says_what_it_covers(shell: Shell) -> None:
    assert "is known" in shell.done("history", IDLE).stderr


def test_a_past_state_is_printed_and_compared(shell: Shell) -> None:
    before = shell.done("get", IDLE, "--json").object
    change = ("update", IDLE, "--merge-patch", '{"cursor": "2020"}')
    shell.done(*change, "--expected-version", before["version"])

    past = shell.done("get", IDLE, "--at", before["version"], "--json").object
    compared = shell("diff", f"{IDLE}@{before['version']}")

    assert past["state"] == before["state"]
    assert compared.code == 2
    assert "/cursor" in compared.stdout


def test_a_state_is_compared_with_its_past(shell: Shell) -> None:
    before = shell.done("get", IDLE, "--json").object
    shell.done(
        "update", IDLE, "--merge-patch", '{"cursor":1.10,"new":[]}',
        "--expected-version", before["version"],
    )  # fmt: skip

    printed = shell("diff", f"{IDLE}:1")
    recorded = shell("diff", f"{IDLE}:1", IDLE, "--json")

    assert printed.code == recorded.code == 2
    old = json.dumps(before["state"]["cursor"])
    assert printed.stdout.splitlines() == [f"~ /cursor: {old} -> 1.10", "+ /new: []"]
    assert recorded.stdout.splitlines() == [
        f'{{"op":"replace","path":"/cursor","before":{old},"after":1.10}}',
        '{"op":"add","path":"/new","after":[]}',
    ]


def test_two_connections_are_compared(shell: Shell, sandbox: Sandbox) -> None:
    sandbox.add_connection("one", state='{"a":1,"b":2}')
    sandbox.add_connection("other", state='{"b":2,"a":1}')
    sandbox.add_connection("third", state='{"a":1.0}')

    same, differs = shell("diff", "one", "other"), shell("diff", "one", "third")

    assert (same.code, same.stdout) == (0, "")
    assert differs.code == 2
    assert differs.stdout.splitlines() == ["~ /a: 1 -> 1.0", "- /b: 2"]


def test_one_connection_alone_is_nothing_to_compare(shell: Shell) -> None:
    assert shell("diff", IDLE).code == 64
