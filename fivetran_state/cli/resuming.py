"""The command that resumes a connection that was left paused."""

from typing import TYPE_CHECKING, Annotated

import typer

from fivetran_state.cli import making, showing
from fivetran_state.cli.asking import agree
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import ConnectionArgument, JsonOption, ReasonOption, SandboxOption
from fivetran_state.cli.shell import Shell, run
from fivetran_state.errors import NotConfirmed
from fivetran_state.text import caller, quoted

if TYPE_CHECKING:
    from fivetran_state.service.pauses import Pause


def resume(
    connection_id: ConnectionArgument,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Don't ask, if an update has left it paused.")
    ] = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Resume a connection that an update has left paused.

    It says who paused the connection, as far as is known, and asks. The state stays as it is.
    """
    making.check_reason(reason)

    async def action(shell: Shell) -> ExitCode:
        pause = await shell.service.pauses.look(connection_id)
        if not pause.connection.paused:
            return _nothing_to_do(shell, pause)
        if not (yes and pause.left_by is not None) and not await _agrees(shell, pause):
            return ExitCode.REFUSED
        workflow_id = await shell.service.pauses.resume(pause, reason)
        ended = await making.follow(shell, workflow_id, making.noted(shell))
        showing.update(shell, ended)
        return making.of_update(ended)

    run(action, sandbox=sandbox, as_json=as_json)


def _nothing_to_do(shell: Shell, pause: "Pause") -> ExitCode:
    _record(shell, pause)
    if not shell.output.as_json:
        shell.output.text(f"{pause.connection.id} is not paused.")
    return ExitCode.DONE


async def _agrees(shell: Shell, pause: "Pause") -> bool:
    """True if the person at the terminal says yes."""
    if shell.can_ask:
        try:
            await agree(shell.output, _question(pause))
        except NotConfirmed:
            shell.output.note("You have not agreed; the connection stays paused.")
            return False
        return True
    _record(shell, pause)
    shell.output.note(_question(pause))
    again = shell.command("resume", pause.connection.id)
    shell.output.note(
        f"Nothing was changed. To agree at a terminal: {again}"
        if pause.left_by is None
        else f"Nothing was changed. To agree: {again} --yes"
    )
    return False


def _record(shell: Shell, pause: "Pause") -> None:
    if shell.output.as_json:
        shell.output.record(
            {
                "connection_id": pause.connection.id,
                "paused": pause.connection.paused,
                "left_paused_by": None if pause.left_by is None else pause.left_by.workflow_id,
            }
        )


def _question(pause: "Pause") -> str:
    found = pause.connection
    return (
        f"Resume {found.id} ({quoted(found.service)} {quoted(found.schema)})?\n{_who(pause)}\n"
        "Its state stays as it is, and its syncs start again."
    )


def _who(pause: "Pause") -> str:
    """Who paused it, as far as is known."""
    update = pause.left_by
    if update is not None:
        asked_by = update.request.get("asked_by")
        by = "" if asked_by is None else f", which {caller(asked_by)} asked for,"
        why = "" if update.error is None else f" {update.error.message}"
        return f"The update {update.workflow_id}{by} has left it paused.{why}"
    if pause.during is not None:
        return f"Somebody else paused it while the update {pause.during.workflow_id} ran: ask them."
    return "No update has left it paused. Somebody paused it in Fivetran, or with another program."
