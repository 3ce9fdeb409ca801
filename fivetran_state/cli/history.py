"""The command that tells what was done to a connection."""

from typing import Annotated

import typer

from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import ConnectionArgument, JsonOption, SandboxOption
from fivetran_state.cli.shell import Shell, run
from fivetran_state.models import WorkflowSummary
from fivetran_state.text import visible

MAX_PAGE = 100


def history(
    connection: ConnectionArgument,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """List a connection's updates, newest first."""

    async def action(shell: Shell) -> ExitCode:
        found, message, has_more = await _updates(shell, connection, limit)
        if as_json:
            for each in found:
                shell.output.record(each)
        elif found:
            shell.output.table(
                ("WORKFLOW_ID", "STARTED", "STATUS", "CHANGE", "VERSION BEFORE", "REASON"),
                map(_row, found),
            )
        if message is not None:
            shell.output.note(message)
        if has_more:
            shell.output.note(f"There are older ones: --limit {10 * limit}")
        return ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


async def _updates(
    shell: Shell, connection: str, limit: int
) -> tuple[list[WorkflowSummary], str | None, bool]:
    found: list[WorkflowSummary] = []
    cursor = None
    while True:
        page = await shell.service.workflows.list_workflows(
            connection, cursor=cursor, limit=min(limit - len(found), MAX_PAGE)
        )
        found += page.workflows
        cursor = page.next_cursor
        if cursor is None or len(found) >= limit:
            return found, page.message, cursor is not None


def _row(update: WorkflowSummary) -> tuple[str, ...]:
    ended = update.status if update.error is None else f"{update.status} ({update.error})"
    return (
        update.workflow_id,
        update.started_at,
        ended,
        update.change,
        update.version_before or "-",
        "-" if update.reason is None else visible(update.reason),
    )
