"""One change of one connection, from the plan to the update's end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from fivetran_state import changes
from fivetran_state.cli import showing
from fivetran_state.cli.asking import TerminalConfirmation
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.shell import FOREVER, Shell
from fivetran_state.errors import FivetranStateError
from fivetran_state.models import Update

if TYPE_CHECKING:
    from fivetran_state.updates.records import Progress


@dataclass(frozen=True)
class How:
    """The options of a change."""

    expected_version: str | None = None
    yes: bool = False
    dry_run: bool = False
    then_sync: bool = False
    allow_resync: bool = False
    reason: str | None = None
    propose: bool = False

    def __post_init__(self) -> None:
        if self.yes and self.expected_version is None:
            raise typer.BadParameter(
                "--yes needs --expected-version: nothing is changed that nobody has seen. "
                "--dry-run shows the change and its version."
            )
        check_reason(self.reason)


MAX_REASON = 500
_WITHOUT_CHANGE = ("cancelled", "failed", "rejected", "withdrawn", "expired")


def check_reason(reason: str | None) -> None:
    """Raise `typer.BadParameter` if the history cannot keep all of it."""
    if reason is not None and len(reason) > MAX_REASON:
        raise typer.BadParameter(f"--reason has more than {MAX_REASON} characters.")


async def change_state(
    shell: Shell, connection_id: str, change: changes.Change, how: How
) -> ExitCode:
    """Plan the change, ask, make it and show its end.

    Where nobody can be asked and no version is named, only the plan is shown.
    """
    proposes = how.propose or shell.must_propose
    if how.dry_run or (how.expected_version is None and not shell.can_ask and not proposes):
        return await _plan(shell, connection_id, change, how)
    ended = await make(shell, connection_id, change, how)
    showing.update(shell, ended)
    return of_update(ended)


async def _plan(shell: Shell, connection_id: str, change: changes.Change, how: How) -> ExitCode:
    plan = await shell.service.plans.plan(
        connection_id, change, expected_version=how.expected_version, then_sync=how.then_sync
    )
    showing.plan(shell, plan)
    if not plan.changes_total:
        return ExitCode.DONE
    if plan.ruling.refusal is not None:
        shell.output.note("Nothing was written.")
        return ExitCode.DONE if how.dry_run else ExitCode.REFUSED
    shell.output.note(
        "Nothing was written. To make exactly this change, repeat the command with "
        f"--expected-version {plan.version_before}"
    )
    return ExitCode.DONE if how.dry_run else ExitCode.REFUSED


async def make(
    shell: Shell,
    connection_id: str,
    change: changes.Change,
    how: How,
    on_progress: "Callable[[Progress], Awaitable[None]] | None" = None,
) -> Update:
    """Make the change and wait for its end; raise the update's own error."""
    try:
        started = await shell.service.changes.update_state(
            connection_id,
            change,
            expected_version=how.expected_version,
            then_sync=how.then_sync,
            allow_resync=how.allow_resync,
            reason=how.reason,
            confirmation=None
            if how.yes or not shell.can_ask
            else TerminalConfirmation(shell.output),
            propose=how.propose,
        )
    except asyncio.CancelledError:
        listing = shell.command("history", connection_id)
        shell.output.note(f"If an update was started, it goes on by itself: {listing}")
        raise
    if started.status != "running" or started.workflow_id is None:
        return started
    return await follow(shell, started.workflow_id, on_progress or noted(shell))


async def follow(
    shell: Shell, workflow_id: str, on_progress: "Callable[[Progress], Awaitable[None]]"
) -> Update:
    """Wait for an update's end; raise its error. A signal leaves it running, and says so."""
    workflows = shell.service.workflows
    try:
        await workflows.follow(workflow_id, FOREVER, on_progress)
    except asyncio.CancelledError:
        shell.goes_on(workflow_id)
        raise
    answer = (await workflows.task(workflow_id)).answer
    if isinstance(answer, FivetranStateError):
        raise answer
    return answer


def noted(shell: Shell, about: str = "") -> "Callable[[Progress], Awaitable[None]]":
    """Prints each phase for the person; `about` stands before it."""

    async def note(progress: "Progress") -> None:
        shell.output.note(f"· {about}{progress['message']}")

    return note


def of_update(ended: Update) -> ExitCode:
    """The exit code that tells how an update is, or how it ended without an error."""
    if ended.paused_by_update:
        return ExitCode.STILL_PAUSED
    if ended.status == "proposed":
        return ExitCode.PROPOSED
    return ExitCode.FAILED if ended.status in _WITHOUT_CHANGE else ExitCode.DONE
