"""What commands print: text for people, or one JSON object a line.

Whatever is printed as text shows all its characters, and none moves the cursor: a state, a name or
a message may come from anybody.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TextIO

import typer

from fivetran_state import state
from fivetran_state.errors import (
    Conflict,
    FivetranStateError,
    NotConfirmed,
    ResyncPending,
    RollbackFailed,
    TooLargeToConfirm,
    TooLateToCancel,
    UnusableSettings,
)
from fivetran_state.models import Model
from fivetran_state.text import visible

Colour = Literal["red", "green", "yellow", "bright_black"]

_COMMANDS = {
    "list_connections": "fivetran-state connections",
    "get_state": "fivetran-state get",
    "update_states": "fivetran-state update-many",
    "update_state": "fivetran-state update",
    "workflow_status": "fivetran-state status",
    "list_workflows": "fivetran-state history",
    "cancel_update": "fivetran-state cancel",
    "expected_version": "--expected-version",
}
_NAMES = re.compile("|".join(_COMMANDS))

_HINTS: dict[type[FivetranStateError], str] = {
    Conflict: "Look at the state as it is now, and repeat the command with its version, or without "
    "--expected-version to see a new plan. Do not pause the connection by other means.",
    NotConfirmed: "Nothing else is needed. To agree without a question, name the version you have "
    "seen: --expected-version VERSION --yes.",
    ResyncPending: "Wait until the re-sync has ended, or, to make the change all the same, repeat "
    "the command with --allow-resync.",
    RollbackFailed: "Act before the next sync: look at the state with fivetran-state get, and put it "
    "right, for example with fivetran-state restore.",
    TooLargeToConfirm: "Make the change in smaller steps, or restore only a part with --only. Or "
    "look at all of it with --dry-run, and name its version: --expected-version VERSION --yes.",
    TooLateToCancel: "If it has ended as updated, undo it with fivetran-state restore. Otherwise "
    "nothing is left to do.",
    UnusableSettings: "Correct what the message names. 'fivetran-state doctor' checks the set-up.",
}


class Output:
    """Prints a command's results on stdout; notes for a person, on stderr.

    With `as_json`, stdout has JSON objects and nothing else, errors included, and there are no notes.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def record(self, values: Model | Mapping[str, Any]) -> None:
        """One JSON object, with exact numbers."""
        fields = values.to_json(exactly=True) if isinstance(values, Model) else dict(values)
        # JSON leaves one control as it is: delete.
        _write(sys.stdout, state.dump(fields).replace("\x7f", r"\u007f"))

    def text(self, text: str, colour: Colour | None = None) -> None:
        """Lines on stdout."""
        _print(sys.stdout, text, colour)

    def note(self, text: str, colour: Colour | None = None) -> None:
        """Lines on stderr, for a person."""
        if not self.as_json:
            _print(sys.stderr, text, colour)

    def question(self, text: str) -> None:
        """Lines on stderr that a person has to see, with `as_json` too."""
        _print(sys.stderr, text, None)

    def error(self, error: FivetranStateError) -> None:
        if self.as_json:
            self.record({"error": error_fields(error)})
        else:
            self.note(f"Error: {error.message}", "red")
            self.note(hint(error))

    def table(self, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Columns on stdout, as wide as their longest value."""
        lines = [tuple(titles), *(tuple(map(visible, row)) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for number, line in enumerate(lines):
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.text("  ".join(cells).rstrip(), None if number else "bright_black")


def error_fields(error: FivetranStateError) -> dict[str, Any]:
    """The error's JSON, with the shell's hint."""
    return error.to_json() | {"hint": hint(error)}


def hint(error: FivetranStateError) -> str:
    """What to do next, in commands and options rather than tools and arguments."""
    own = _HINTS.get(type(error))
    return own or in_commands(error.hint)


def in_commands(text: str) -> str:
    """The text with commands and options instead of tools and arguments."""
    return _NAMES.sub(lambda found: _COMMANDS[found[0]], text)


def is_terminal(stream: TextIO | None) -> bool:
    """True if a person sees what is written to it, or types what is read."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # It is closed.
        return False


def _print(stream: TextIO | None, text: str, colour: Colour | None) -> None:
    has_colours = (
        is_terminal(stream) and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    )
    for line in text.split("\n"):
        harmless = visible(line)
        _write(stream, typer.style(harmless, fg=colour) if colour and has_colours else harmless)


def _write(stream: TextIO | None, line: str) -> None:
    if stream is None:  # The caller has closed it.
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        # Its reader has left. The command goes on, and its exit code counts.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
