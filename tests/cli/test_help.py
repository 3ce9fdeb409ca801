"""Help, versions, completion and exit codes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fivetran_state import __version__
from fivetran_state.cli.exit_codes import ExitCode, of_error, of_several
from fivetran_state.errors import (
    Conflict,
    FivetranStateError,
    Forbidden,
    LeftPaused,
    NotConfirmed,
    SyncStillRunning,
    VerificationFailed,
)
from tests.support.calls import ROOT
from tests.support.shell import Shell

COMMANDS = [
    "connections", "get", "history", "diff", "update", "update-many", "edit", "restore", "copy",
    "status", "cancel", "proposals", "approve", "reject", "export", "plan", "apply", "serve", "doctor", "resume", "finish", "watch", "demo",
    "token", "audit",
]  # fmt: skip


@pytest.mark.parametrize("command", [[], *([each] for each in COMMANDS)])
def test_help_reads_well_in_80_columns(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    long, short = shell.done(*command, "--help"), shell.done(*command, "-h")

    assert long.stdout == short.stdout
    lines = long.stdout.replace("[ARGS]...", "").replace("[CONNECTION]...", "").splitlines()
    assert lines[0].startswith("Usage: fivetran-state")
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith("...") for line in lines), "a sentence is cut"


def test_the_overview_names_every_command(shell: Shell) -> None:
    overview = shell.done("--help").stdout.partition("Commands:")[2]

    assert re.findall(r"^  ([\w-]+)", overview, re.MULTILINE) == COMMANDS


def test_the_version_is_printed(shell: Shell) -> None:
    assert shell.done("--version").stdout == f"fivetran-state {__version__}\n"


def test_a_command_line_is_understood_without_the_libraries_that_take_long_to_import() -> None:
    loaded = "import sys, fivetran_state.cli.app; print(*{'dbos', 'httpx'} & sys.modules.keys())"

    assert subprocess.check_output([sys.executable, "-c", loaded]) == b"\n"


def test_a_shell_completes_commands(environment: dict[str, str], tmp_path: Path) -> None:
    completed = subprocess.run(
        [str(Path(sys.executable).parent / "fivetran-state")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment
        | {
            "_FIVETRAN_STATE_COMPLETE": "complete_bash",
            "COMP_WORDS": "fivetran-state ex",
            "COMP_CWORD": "1",
        },
        cwd=tmp_path,
    )

    assert completed.stdout.split() == ["export"], completed


def test_the_exit_codes_are_those_of_the_reference() -> None:
    listed = re.findall(
        r"^\| (\d+) \|", (ROOT / "docs/reference/shell.md").read_text(), re.MULTILINE
    )

    assert list(map(int, listed)) == list(ExitCode)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Conflict(""), 2),
        (Forbidden(""), 1),
        (Forbidden("", paused_by_update=True), 3),
        (LeftPaused(""), 3),
        (NotConfirmed(""), 4),
        (SyncStillRunning(""), 1),
        (SyncStillRunning("", maybe_written=True), 5),
        (VerificationFailed(""), 5),
    ],
)
def test_an_error_has_one_exit_code(error: FivetranStateError, code: int) -> None:
    assert of_error(error) == code


@pytest.mark.parametrize(
    ("errors", "has_changed", "code"),
    [
        ([], True, 0),
        ([Forbidden("")], False, 1),
        ([Conflict(""), Conflict("")], False, 2),
        ([Conflict(""), Forbidden("")], False, 1),
        ([Forbidden("")], True, 5),
        ([Forbidden(""), LeftPaused("")], True, 3),
    ],
)
def test_several_errors_have_the_gravest_exit_code(
    errors: list[FivetranStateError], has_changed: bool, code: int
) -> None:
    assert of_several(map(of_error, errors), has_changed=has_changed) == code


@pytest.mark.parametrize(
    ("codes", "code"), [((0, 0), 0), ((0, 6), 6), ((0, 1), 5), ((6, 1), 5), ((6, 3), 3)]
)
def test_what_waits_for_approval_has_not_failed(codes: tuple[int, ...], code: int) -> None:
    assert of_several(map(ExitCode, codes), has_changed=True) == code
