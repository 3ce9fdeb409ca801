"""The commands about proposed changes: proposals, approve, reject."""

from typing import Annotated

import typer

from fivetran_state.cli import group, making, showing
from fivetran_state.cli.asking import agree
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import JsonOption, SandboxOption
from fivetran_state.cli.shell import Shell, run
from fivetran_state.errors import NotConfirmed
from fivetran_state.models import GroupPlanView, ProposalView, Update, UpdatesView
from fivetran_state.text import caller, quoted

ProposalArgument = Annotated[
    str, typer.Argument(metavar="PROPOSAL", help="Its id; 'proposals' lists them.")
]


def proposals(as_json: JsonOption = False, sandbox: SandboxOption = False) -> None:
    """List the changes that wait for a person to approve them."""

    async def action(shell: Shell) -> ExitCode:
        found = (await shell.service.proposals.waiting()).proposals
        if as_json:
            for each in found:
                shell.output.record(each)
        elif not found:
            shell.output.note("Nothing waits for approval.")
        else:
            shell.output.table(
                ("PROPOSAL", "ASKED BY", "EXPIRES", "CHANGE", "OF"), map(_row, found)
            )
        return ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


def approve(
    proposal: ProposalArgument, as_json: JsonOption = False, sandbox: SandboxOption = False
) -> None:
    """Agree to a proposed change, which is then made.

    Shows what it would do to the state as it is now, and asks. Only a person at a terminal can approve,
    and nobody what they have asked for themselves.
    """

    async def action(shell: Shell) -> ExitCode:
        if not shell.can_ask:
            raise NotConfirmed("Only a person at a terminal can approve. Nothing was written.")
        view = await shell.service.proposals.proposal(proposal, is_planned=False)
        version = await _agreed(shell, view)
        ended = await shell.service.proposals.approve(
            proposal, expected_version=version, wait_seconds=0
        )
        if isinstance(ended, UpdatesView):
            if ended.status != "proposed":
                ended = await group.follow(shell, ended.workflow_id)
            group.show(shell, ended)
            return await group.exit_code(shell, ended)
        update: Update = ended
        if ended.status != "proposed":
            update = await making.follow(shell, str(ended.workflow_id), making.noted(shell))
        showing.update(shell, update)
        return making.of_update(update)

    run(action, sandbox=sandbox, as_json=as_json)


async def _agreed(shell: Shell, view: ProposalView) -> str:
    """The version of the plan that the person has agreed to."""
    plan = await shell.service.proposals.plan(view.workflow_id)
    shell.output.note(
        f"{caller(view.asked_by)} asks for this"
        + ("." if view.reason is None else f": {quoted(view.reason)}")
    )
    if isinstance(plan, GroupPlanView):
        group.show_plan(shell, plan)
        version = str(plan.version)
    else:
        showing.plan(shell, plan)
        version = plan.version_before
    await agree(shell.output, "Make this change?")
    return version


def reject(
    proposal: ProposalArgument,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, for whoever has asked.")
    ] = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """End a proposal without a change. To take back your own, use cancel."""

    async def action(shell: Shell) -> ExitCode:
        if not shell.can_ask:
            raise NotConfirmed("Only a person at a terminal can reject.")
        show(shell, await shell.service.proposals.reject(proposal, reason=reason))
        return ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


def show(shell: Shell, view: ProposalView) -> None:
    """What has become of a proposal."""
    if shell.output.as_json:
        shell.output.record(view)
    else:
        shell.output.text(f"{view.workflow_id}: {view.status}. {view.message}")


def _row(view: ProposalView) -> tuple[str, ...]:
    more = f" and {view.total - 1:,} more" if view.total > 1 else ""
    return (
        view.workflow_id,
        caller(view.asked_by),
        view.expires_at,
        quoted(view.change),
        f"{view.connection_ids[0]}{more}",
    )
