"""The commands about an update that was started: status, cancel."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from fivetran_state.cli import deciding, group, showing
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.making import of_update
from fivetran_state.cli.options import JsonOption, SandboxOption, WorkflowArgument
from fivetran_state.cli.output import Output
from fivetran_state.cli.shell import FOREVER, Shell, run
from fivetran_state.models import ProposalView, UpdatesView, WorkflowView
from fivetran_state.text import caller

if TYPE_CHECKING:
    from fivetran_state.updates.records import Progress


def status(
    workflow_id: WorkflowArgument,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it until it ends. Ctrl-C leaves it running.")
    ] = False,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Show how far an update is, or how it ended.

    The exit code tells too: 0 it runs or ended well, 1 it failed, 3 its connection is paused. Of
    connections that are changed together, 5: some were changed, others not.
    """

    async def action(shell: Shell) -> ExitCode:
        wait = FOREVER if watch else 0
        try:
            if shell.service.proposals.is_proposal(workflow_id):
                return await _proposal(shell, workflow_id, wait)
            if shell.service.groups.is_group(workflow_id):
                found = await (
                    group.follow(shell, workflow_id, records=True)
                    if watch
                    else shell.service.groups.updates_status(workflow_id)
                )
                group.show(shell, found)
                return await group.exit_code(shell, found)
            view = await shell.service.workflows.workflow_status(
                workflow_id, wait_seconds=wait, on_progress=_live(shell, workflow_id)
            )
        except asyncio.CancelledError:
            if watch:
                shell.goes_on(workflow_id)
            raise
        _show(shell.output, view)
        return of_update(view)

    run(action, sandbox=sandbox, as_json=as_json)


def cancel(
    workflow_id: WorkflowArgument,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """End an update before it writes; refused once it has written."""

    async def action(shell: Shell) -> ExitCode:
        try:
            ended = await shell.service.by_id.cancel(workflow_id, wait_seconds=FOREVER)
        except asyncio.CancelledError:
            shell.goes_on(workflow_id)
            raise
        if isinstance(ended, ProposalView):
            deciding.show(shell, ended)
        elif isinstance(ended, UpdatesView):
            group.show(shell, ended)
            if group.is_paused(ended):
                return ExitCode.STILL_PAUSED
        else:
            showing.update(shell, ended)
        return ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


async def _proposal(shell: Shell, workflow_id: str, wait: float) -> ExitCode:
    """Show what a proposal is, or the update that it has started."""
    found = await shell.service.proposals.status(workflow_id, wait_seconds=wait)
    if isinstance(found, UpdatesView):
        group.show(shell, found)
        return await group.exit_code(shell, found)
    _show(shell.output, found)
    return of_update(found)


def _live(shell: Shell, workflow_id: str) -> "Callable[[Progress], Awaitable[None]]":
    """Prints each phase as it begins."""

    async def show(progress: "Progress") -> None:
        shell.output.note(f"· {progress['message']}")
        if shell.output.as_json:
            fields = {
                "workflow_id": workflow_id,
                "status": "running",
                "phase": progress["phase"],
                "message": progress["message"],
                "was_paused": progress["was_paused"],
                "paused_by_update": progress["still_paused"],
            }
            shell.output.record({k: v for k, v in fields.items() if v is not None})

    return show


def _show(output: Output, view: WorkflowView) -> None:
    if output.as_json:
        output.record(view)
        return
    output.text(f"{view.workflow_id}: {view.status}", showing.COLOURS.get(view.status))
    output.text(view.message)
    if view.asked_by is not None:
        agreed = "" if view.agreed_by is None else f", agreed by {caller(view.agreed_by)}"
        output.text(f"Asked by {caller(view.asked_by)}{agreed}.")
    if view.reason is not None:
        output.text(f"Reason: {view.reason}")
    if view.version_before is not None:
        output.text(f"Version {view.version_before} became {view.version_after}.")
    if view.paused_by_update:
        output.text("The connection is still paused by this update.", "red")
    if view.since is not None:
        moved = ", and the state has moved" if view.since.state_moved else ""
        output.text(f"Since then: sync {view.since.sync}{moved}.")
    if view.steps:
        output.table(
            ("STEP", "STARTED", "SECONDS", "ERROR"),
            (
                (
                    step.name,
                    step.started_at or "-",
                    "-" if step.seconds is None else f"{step.seconds:.3f}",
                    step.error or "",
                )
                for step in view.steps
            ),
        )
    showing.changes(output, view)
