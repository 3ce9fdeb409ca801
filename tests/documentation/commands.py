"""Command lines as pages show them, taken apart by the program's own options."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import typer

from fivetran_state.cli.app import app

_PROGRAM = typer.main.get_command(app)
_COMMENT = re.compile(r"(^|\s)#\s.*$", re.MULTILINE)
_MISSING = re.compile(r"Missing .*|Option .* requires an argument.*")
_INSTALLS = ["--install-completion"]
"""Acts when it is parsed."""


def statements(text: str) -> Iterator[str]:
    """The commands of a block, each on one line and without its comment."""
    for line in _COMMENT.sub("", text.replace("\\\n", " ")).splitlines():
        if line.strip():
            yield line.strip()


def words(statement: str) -> list[str]:
    return shlex.split(statement)


def parse(arguments: list[str], *, may_lack_arguments: bool = False) -> None:
    """Takes `fivetran-state ARGUMENTS` apart without running it; raises what the program would say.

    With `may_lack_arguments`, a command may be named without them, as in a sentence.
    """
    if arguments == _INSTALLS:
        return
    command: Any = _PROGRAM
    parent: Any = None
    rest, name = list(arguments), "fivetran-state"
    while True:
        try:
            parent = command.make_context(name, rest, parent=parent, resilient_parsing=False)
        except typer.TyperException as error:
            if may_lack_arguments and _MISSING.match(error.format_message()):
                return
            raise
        except typer.Exit:  # --help and --version.
            return
        rest = [*parent._protected_args, *parent.args]
        if not hasattr(command, "commands") or not rest:
            return
        name, command, rest = command.resolve_command(parent, rest)
