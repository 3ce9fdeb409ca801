"""The commands for the audit file."""

from pathlib import Path
from typing import Annotated

import typer

from fivetran_state import audit
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import JsonOption
from fivetran_state.cli.output import Output
from fivetran_state.cli.shell import ending
from fivetran_state.errors import InvalidRequest, UnusableSettings
from fivetran_state.startup import read_settings

commands = typer.Typer(help="Check the audit file.", rich_markup_mode=None)


@commands.callback()
def _commands() -> None:
    """Keep `verify` a command of its own, although it is the only one."""


@commands.command("verify")
def verify(
    file: Annotated[
        Path | None,
        typer.Argument(help="Without it: FIVETRAN_STATE_AUDIT_FILE.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether somebody has changed the audit file.

    It ends with exit code 1 if somebody has.
    """
    output = Output(as_json=as_json)
    with ending(output):
        path = file or read_settings(sandbox=False).audit_file
        if path is None:
            raise InvalidRequest("Name the file, or set FIVETRAN_STATE_AUDIT_FILE.")
        try:
            found = audit.verify(path)
        except OSError as error:
            raise UnusableSettings(f"{path} cannot be read: {error.strerror}.") from None
    _tell(found, output)
    raise typer.Exit(ExitCode.FAILED if found.wrong else ExitCode.DONE)


def _tell(found: audit.Verdict, output: Output) -> None:
    if output.as_json:
        output.record(
            {
                "lines": found.lines,
                "incomplete": found.incomplete,
                "wrong": found.wrong,
                "last": found.last,
            }
        )
        return
    for line in found.incomplete:
        output.note(f"Line {line} is incomplete: a process died while it wrote it.")
    for line in found.wrong:
        changed = f"Line {line} was changed, or lines after it were removed or inserted."
        output.note(changed if line else "The beginning of the file was removed.", "red")
    if not found.wrong:
        output.text(f"{found.lines} lines, each as it was written. The hash of the last one:")
        output.text(found.last)
