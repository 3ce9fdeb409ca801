"""Every command at a real terminal, where text from outside hides and moves nothing; and in pipes."""

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, PAUSED, state_of
from tests.support.commands import run
from tests.support.terminal import terminal
from tests.support.warm import warm_terminal

FIVETRAN_STATE = [sys.executable, "-m", "fivetran_state"]
CTRL_C, CTRL_D = "\x03", "\x04"
QUESTION = "Type yes to agree:"
FORGED = "(1 of 1) /cursor: nothing"
HOSTILE = (
    "\x1b[2J\x1b[35m\x1b]8;;https:evil.example\x1b\\link\x1b]8;;\x1b\\\x1b]0;owned\x07\x9b31m\x7f"
    f"\u202egnp\u2066\u200b\u2060\u3164\U000e0041\rover\r\n{FORGED}\n"
)
OUR_COLOURS = re.compile(r"\x1b\[(0|31|32|33|90)m")


def assert_harmless(screen: str) -> None:
    text = OUR_COLOURS.sub("", screen).replace("\r\n", "\n")
    hidden = {
        each
        for each in text
        if unicodedata.category(each) in ("Cc", "Cf", "Co", "Zl", "Zp") or each == "\u3164"
    }
    assert hidden <= {"\n"}, text
    assert FORGED not in text.splitlines(), text


AtTerminal = Callable[..., str]


@pytest.fixture
def at_terminal(environment: dict[str, str], tmp_path: Path) -> AtTerminal:
    """Runs a command at a terminal; what it showed, which was harmless.

    `types` is typed once `after` is shown; the command has to end with `code`.
    """

    def ended(
        *arguments: str,
        code: int = 0,
        after: str = QUESTION,
        types: str | None = None,
        **variables: str,
    ) -> str:
        with warm_terminal(arguments, environment | variables, tmp_path) as screen:
            if types is not None:
                screen.wait_for(after)
                screen.type(types)
            ended_with = screen.wait()
        assert ended_with == code, screen.screen
        assert_harmless(screen.screen)
        return screen.screen

    return ended


@pytest.fixture
def odd(sandbox: Sandbox) -> None:
    """Two connections, of which "odd" has hostile names and a hostile state."""
    sandbox.add_group("hostile", HOSTILE)
    state = json.dumps({HOSTILE: HOSTILE, "page": 1234})
    sandbox.add_connection("odd", state=state, schema=HOSTILE, group_id="hostile")
    sandbox.add_connection("even", state="{}")


def refuse(sandbox: Sandbox, path: str, status: int, **more: str) -> None:
    """Let Fivetran refuse a request, once, with a hostile message."""
    body = json.dumps({"code": HOSTILE, "message": HOSTILE})
    sandbox.fault("status", path=path, status=status, body=body, **more)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.usefixtures("odd")
def test_at_a_terminal_one_state_is_read_changed_and_put_back(
    at_terminal: AtTerminal, sandbox: Sandbox
) -> None:
    change = ("update", "odd", "--merge-patch", json.dumps({HOSTILE: [HOSTILE], "page": 1}))
    before = state_of(sandbox, "odd")

    assert "u202e" in at_terminal("connections", "--name", "odd")
    assert "u202e" in at_terminal("get", "odd")
    assert "updated" not in at_terminal(*change, types="no\n", code=4)
    at_terminal(*change, "--reason", HOSTILE, types="yes\n")
    assert "odd:1" in at_terminal("history", "odd")
    assert "/page" in at_terminal("diff", "odd:1", code=2)
    assert "odd:1: updated" in at_terminal("status", "odd:1")
    at_terminal("cancel", "odd:1", code=4)
    at_terminal("restore", "odd", "odd:1", types="yes\n")
    assert state_of(sandbox, "odd") == before
    at_terminal("copy", "odd", "even", types="yes\n")
    assert state_of(sandbox, "even") == before
    at_terminal("edit", "even", types="yes\n", EDITOR="sed -i s/1234/1235/")
    assert state_of(sandbox, "even") == before | {"page": 1235}


@pytest.mark.slow
@pytest.mark.usefixtures("odd")
def test_at_a_terminal_several_states_are_changed_together(
    at_terminal: AtTerminal, sandbox: Sandbox
) -> None:
    sandbox.add_connection("other", state="{}", group_id="hostile", schema=HOSTILE)
    before = state_of(sandbox, "odd")
    change = ("--merge-patch", json.dumps({HOSTILE: [HOSTILE], "page": 1}))
    together = ("update-many", "--mode", "independent")
    asked = "Type yes to agree, or"

    shown = at_terminal(*together, "odd", "even", *change, after=asked, types="odd\nno\n", code=4)
    assert "/page" in shown
    refuse(sandbox, "/other/state$", 403, method="PATCH")
    chosen = (*together, "--group", "hostile", *change, "--reason", HOSTILE)
    ended = at_terminal(*chosen, after=asked, types="yes\n", code=5)
    assert "2 connections: 1 forbidden, 1 updated" in ended
    group = re.findall(r"--undo (together:\w+)", ended)[0]
    assert "other:1: failed." in at_terminal("status", group, code=5)
    at_terminal("cancel", group, code=0)
    at_terminal("update-many", "--undo", group, after=asked, types="yes\n")
    assert state_of(sandbox, "odd") == before


@pytest.mark.slow
@pytest.mark.usefixtures("odd")
def test_at_a_terminal_errors_are_harmless_too(at_terminal: AtTerminal, sandbox: Sandbox) -> None:
    refuse(sandbox, "/odd$", 403, method="PATCH")
    at_terminal("update", "odd", "--merge-patch", '{"page":1}', types="yes\n", code=1)
    assert "u202e" in at_terminal("status", "odd:1", code=1)

    refuse(sandbox, "/connections/odd$", 403)
    assert "u202e" in at_terminal("get", "odd", code=1)
    at_terminal("status", HOSTILE, code=64)
    at_terminal(HOSTILE, code=64)


@pytest.mark.slow
@pytest.mark.usefixtures("odd")
def test_at_a_terminal_a_folder_is_exported_planned_and_applied(
    at_terminal: AtTerminal, sandbox: Sandbox, tmp_path: Path
) -> None:
    folder = tmp_path / HOSTILE.replace("/", " ")
    at_terminal("export", str(folder), "odd", "even")
    file = folder / "odd.json"
    file.write_text(file.read_text().replace("1234", "1235"))

    assert "/page: from 1234 to 1235" in at_terminal("plan", str(folder))
    at_terminal("apply", str(folder), types="yes\n")

    assert state_of(sandbox, "odd")["page"] == 1235


@pytest.mark.slow
@pytest.mark.usefixtures("odd")
def test_at_a_terminal_operators_see_how_things_are(
    at_terminal: AtTerminal, sandbox: Sandbox
) -> None:
    refuse(sandbox, "/connections/odd/state$", 403)
    looked = at_terminal("watch", "--once")
    assert "odd: forbidden" in looked
    assert "more calls at most" in looked.partition("connections keep a state.")[0]
    refuse(sandbox, "/v1/connections$", 401)
    assert "ended early" in at_terminal("watch", "--once", code=1)
    refuse(sandbox, "/v1/connections$", 403)
    assert "u202e" in at_terminal("doctor", code=1)
    sandbox.set_paused("odd", True)
    assert "u202e" in at_terminal("resume", "odd", types="no\n", code=4)
    at_terminal("resume", "odd", "--reason", HOSTILE, types="yes\n")
    at_terminal("finish")

    created = at_terminal("token", "create", "--scope", "read", "--name", HOSTILE)
    token_id = re.findall(r"fst_(\w{8})_", created)[0]
    assert token_id in at_terminal("token", "list")
    at_terminal("token", "revoke", HOSTILE, code=1)
    at_terminal("token", "revoke", token_id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "after", "types", "code"),
    [
        (("serve",), "", CTRL_D, 0),
        (("serve", "--http", "--port", "0"), "It costs", CTRL_C, 130),
        (("watch",), "It costs", CTRL_C, 130),
    ],
)
def test_at_a_terminal_what_runs_on_is_ended_by_a_key(
    at_terminal: AtTerminal, command: tuple[str, ...], after: str, types: str, code: int
) -> None:
    # The tests' environment does not watch.
    variables = {"FIVETRAN_STATE_WATCH_INTERVAL": "900"}
    at_terminal(*command, after=after, types=types, code=code, **variables)


@pytest.mark.slow
def test_the_demo_works_at_a_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    with terminal([*FIVETRAN_STATE, "demo"], environment, tmp_path) as screen:
        assert screen.wait() == 0

    assert "The update was recovered and verified." in screen.screen


# In pipes. Other tests pipe what is not here: test_terminal.py connections, get and update;
# test_changing.py status and cancel; tests/documentation update-many, export, plan and apply; test_operating.py
# doctor, resume and finish; tests/integration/test_watcher.py watch --once, and tests/http/test_tokens.py token.


@pytest.mark.slow
def test_in_pipes_a_state_is_edited_copied_compared_and_put_back(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    def piped(*arguments: str, code: int = 0) -> list[dict[str, object]]:
        ended = run(variables, tmp_path, *arguments, "--json")
        assert (ended.returncode, ended.stderr) == (code, ""), ended
        return [json.loads(line) for line in ended.stdout.splitlines()]

    variables = environment | {"EDITOR": "sed -i s/2026/2025/"}
    before = state_of(sandbox, IDLE)

    [edited] = piped("edit", IDLE, "--yes")
    pinned = ("--expected-version", str(edited["version_after"]))
    [restored] = piped("restore", IDLE, f"{IDLE}:1", *pinned)
    assert restored["status"] == "updated"
    assert state_of(sandbox, IDLE) == before
    [difference] = piped("diff", f"{IDLE}:2", code=2)
    assert difference["path"] == "/cursor"
    kinds = [each["kind"] for each in piped("history", IDLE)]
    assert kinds == ["update", "update", "first look"]
    [planned] = piped("copy", IDLE, PAUSED, "--dry-run")
    assert planned["status"] == "planned"


@pytest.mark.slow
def test_in_pipes_the_watcher_runs_until_it_is_stopped(
    environment: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*FIVETRAN_STATE, "watch"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    ) as watching:
        assert watching.stderr is not None
        messages = (json.loads(line)["message"] for line in watching.stderr)
        assert any(message.startswith("Looked at") for message in messages)
        watching.terminate()
        stdout, _ = watching.communicate(timeout=60)

    assert (watching.returncode, stdout) == (130, "")
