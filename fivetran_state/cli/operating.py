"""The commands of operators: doctor, finish, watch."""

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import JsonOption, SandboxOption
from fivetran_state.cli.output import Colour, Output, in_commands
from fivetran_state.cli.shell import Action, Shell, work

if TYPE_CHECKING:
    from fivetran_state.service.unfinished import Finding
    from fivetran_state.watch.look import Looked

GuestsOption = Annotated[
    bool, typer.Option("--guests", help="For HTTP servers that have no API key of their own.")
]


def finish(
    sandbox: SandboxOption = False,
    guests: GuestsOption = False,
    as_json: JsonOption = False,
    after: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Finish the updates of stopped or killed servers.

    It ends with exit code 3 if a connection is still paused.
    """

    async def action(shell: Shell) -> ExitCode:
        paused = await shell.service.operations.finish(after)
        for connection_id, workflow_id in paused.items():
            if as_json:
                shell.output.record({"still_paused": connection_id, "workflow_id": workflow_id})
            shell.output.note(f"{connection_id} is still paused by {workflow_id}")
        return ExitCode.STILL_PAUSED if paused else ExitCode.DONE

    _run(action, sandbox=sandbox, as_json=as_json, takes_guests=guests)


def doctor(
    sandbox: SandboxOption = False, guests: GuestsOption = False, as_json: JsonOption = False
) -> None:
    """Check the set-up, the database and the updates.

    It ends with exit code 1 if something is wrong.
    """

    async def action(shell: Shell) -> ExitCode:
        findings = await shell.service.operations.diagnose()
        for finding in findings:
            _show(shell.output, finding)
        has_failed = any(finding.is_well is False for finding in findings)
        return ExitCode.FAILED if has_failed else ExitCode.DONE

    _run(action, sandbox=sandbox, as_json=as_json, takes_guests=guests, starts=False)


_VERDICTS: dict[bool | None, tuple[str, Colour | None]] = {
    True: ("ok ", "green"),
    False: ("BAD", "red"),
    None: ("?  ", "yellow"),
}


def _show(output: Output, finding: "Finding") -> None:
    next_ = None if finding.next is None else in_commands(finding.next)
    if output.as_json:
        fields = {"what": finding.what, "is_well": finding.is_well, "detail": finding.detail}
        output.record(fields | ({"next": next_} if next_ else {}) | (finding.update or {}))
        return
    verdict, colour = _VERDICTS[finding.is_well]
    # A detail with a line of its own must not pass for another finding.
    output.text(" ".join(f"{verdict}  {finding.what}: {finding.detail}".splitlines()), colour)
    if next_ is not None:
        output.text(f"     → {next_}")


def watch(
    sandbox: SandboxOption = False,
    as_json: JsonOption = False,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit, as from cron.")] = False,
) -> None:
    """Remember the states that syncs leave.

    It looks every 15 minutes, or every FIVETRAN_STATE_WATCH_INTERVAL seconds. With --once it ends
    with exit code 1 if the look ended early.
    """

    async def action(shell: Shell) -> ExitCode:
        operations = shell.service.operations
        if not once:
            await operations.watch()
        return _looked(shell.output, await operations.look())

    _run(action, sandbox=sandbox, as_json=as_json)


def _looked(output: Output, looked: "Looked") -> ExitCode:
    troubles, stopped_by = looked["troubles"], looked["stopped_by"]
    if output.as_json:
        output.record(
            {
                "connections": looked["keeping"],
                "read": looked["read"],
                "failed": troubles,
                "stopped_by": stopped_by,
            }
        )
    else:
        output.text(
            f"{looked['keeping']} connections keep a state. {looked['read']} states were read, and "
            f"{len(troubles)} could not be."
        )
        for connection_id, code in troubles.items():
            output.note(f"{connection_id}: {code}")
    if stopped_by is None:
        return ExitCode.DONE
    output.note(f"The look ended early: {stopped_by}")
    return ExitCode.FAILED


def _run(
    action: Action[ExitCode],
    *,
    sandbox: bool,
    as_json: bool,
    takes_guests: bool = False,
    starts: bool = True,
) -> NoReturn:
    """Run the action as a server would, with its log lines, and exit with its code."""
    raise typer.Exit(
        work(
            action,
            sandbox=sandbox,
            as_json=as_json,
            takes_guests=takes_guests,
            is_logged=True,
            starts=starts,
        )
    )
