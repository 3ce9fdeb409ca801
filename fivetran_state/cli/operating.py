"""The commands of operators: doctor, finish, watch."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import JsonOption, SandboxOption
from fivetran_state.cli.output import Output
from fivetran_state.ending import on_signals
from fivetran_state.startup import settings_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fivetran_state.service import Service

T = TypeVar("T")

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
    output = Output(as_json=as_json)
    paused = _with_service(
        output, sandbox, lambda service: service.operations.finish(after), takes_guests=guests
    )
    for connection_id, workflow_id in paused.items():
        if as_json:
            output.record({"still_paused": connection_id, "workflow_id": workflow_id})
        output.note(f"{connection_id} is still paused by {workflow_id}")
    raise typer.Exit(ExitCode.STILL_PAUSED if paused else ExitCode.DONE)


def doctor(
    sandbox: SandboxOption = False, guests: GuestsOption = False, as_json: JsonOption = False
) -> None:
    """Check the set-up, the database and the updates.

    It ends with exit code 1 if something is wrong.
    """
    output = Output(as_json=as_json)
    findings = _with_service(
        output, sandbox, lambda service: service.operations.diagnose(), takes_guests=guests
    )
    for finding in findings:
        if as_json:
            output.record(asdict(finding))
        else:
            verdict = "ok " if finding.is_well else "BAD"
            output.text(f"{verdict}  {finding.what}: {finding.detail}")
    is_well = all(finding.is_well for finding in findings)
    raise typer.Exit(ExitCode.DONE if is_well else ExitCode.FAILED)


def watch(
    sandbox: SandboxOption = False,
    as_json: JsonOption = False,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit, as from cron.")] = False,
) -> None:
    """Remember the states that syncs leave.

    It looks every 15 minutes, or every FIVETRAN_STATE_WATCH_INTERVAL seconds. With --once it ends
    with exit code 1 if the look ended early.
    """
    output = Output(as_json=as_json)
    if not once:
        _with_service(output, sandbox, lambda service: service.operations.watch())
        return
    looked = _with_service(output, sandbox, lambda service: service.operations.look())
    troubles, stopped_by = looked["troubles"], looked["stopped_by"]
    if as_json:
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
    if stopped_by is not None:
        output.note(f"The look ended early: {stopped_by}")
        raise typer.Exit(ExitCode.FAILED)


def _with_service(
    output: Output,
    sandbox: bool,
    action: "Callable[[Service], Awaitable[T]]",
    *,
    takes_guests: bool = False,
) -> T:
    """The action's result, with a service. On an error, print the reason and exit with 1."""
    import asyncio

    from fivetran_state.errors import FivetranStateError
    from fivetran_state.service import Service

    settings = settings_for(sandbox, takes_guests)

    async def run() -> T:
        this = asyncio.current_task()
        assert this is not None, "it runs"
        on_signals(this.cancel)
        service = Service(settings)
        service.start()
        try:
            return await action(service)
        finally:
            await service.close()

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise SystemExit("Ended by a signal.") from None
    except FivetranStateError as error:
        output.error(error)
        raise typer.Exit(ExitCode.FAILED) from None
