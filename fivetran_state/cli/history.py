"""The command that tells how a state moved."""

from typing import Annotated

import typer

from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import ConnectionArgument, JsonOption, SandboxOption
from fivetran_state.cli.shell import Shell, run
from fivetran_state.models import HistoryEntry, HistoryKind
from fivetran_state.text import quoted, visible

MAX_PAGE = 100
SHOWN_PATHS = 3


def history(
    connection: ConnectionArgument,
    path: Annotated[
        str | None, typer.Option("--path", metavar="PATH", help="Only when this part moved.")
    ] = None,
    kind: Annotated[
        HistoryKind | None, typer.Option("--kind", help="Only what this moved.", show_choices=True)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="With its zone: 2026-11-24T08:00Z."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="With its zone.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, at most.")] = 20,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Show when a state moved, and what moved it."""

    async def action(shell: Shell) -> ExitCode:
        found: list[HistoryEntry] = []
        cursor = None
        while True:
            page = await shell.service.history.time_line(
                connection,
                kind=kind,
                since=since,
                until=until,
                path=path,
                cursor=cursor,
                limit=min(limit - len(found), MAX_PAGE),
            )
            found += page.entries
            cursor = page.next_cursor
            if cursor is None or len(found) >= limit:
                break
        if as_json:
            for each in found:
                shell.output.record(each)
        elif found:
            shell.output.table(
                ("AT", "BY", "VERSION", "WORKFLOW_ID", "STATUS", "MOVED", "ASKED_BY", "REASON"),
                map(_row, found),
            )
        if page.message is not None:
            shell.output.note(page.message)
        if cursor is not None:
            shell.output.note(f"There are older ones: --limit {10 * limit}")
        return ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


def _row(entry: HistoryEntry) -> tuple[str, ...]:
    status = entry.status or "-"
    return (
        entry.at,
        entry.kind,
        entry.version or "-",
        entry.workflow_id or "-",
        status if entry.error is None else f"{status} ({entry.error})",
        _moved(entry),
        _people(entry),
        "-" if entry.reason is None else visible(entry.reason),
    )


def _people(entry: HistoryEntry) -> str:
    agreed = "" if entry.agreed_by is None else f", agreed by {visible(entry.agreed_by)}"
    return "-" if entry.asked_by is None else f"{visible(entry.asked_by)}{agreed}"


def _moved(entry: HistoryEntry) -> str:
    if entry.changes is None:
        return "-"
    paths = [quoted(change.path) if change.path else "everything" for change in entry.changes]
    more = (entry.changes_total or 0) - SHOWN_PATHS
    return ", ".join(paths[:SHOWN_PATHS]) + (f" and {more:,} more" if more > 0 else "") or "nothing"
