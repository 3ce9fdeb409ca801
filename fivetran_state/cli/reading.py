"""The commands that read: connections, get, diff."""

from typing import Annotated

import typer

from fivetran_state import state
from fivetran_state.cli import showing
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.options import ConnectionArgument, JsonOption, SandboxOption
from fivetran_state.cli.output import Output
from fivetran_state.cli.shell import Shell, run
from fivetran_state.errors import InvalidRequest
from fivetran_state.models import ConnectionSummary, Seen, StateView
from fivetran_state.text import quoted

PAGE = 1000


def connections(
    name: Annotated[
        str | None, typer.Option("--name", help="Only those with this in their id or name.")
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", help="Only those of a service: connector_sdk, …")
    ] = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """List the account's connections."""

    async def action(shell: Shell) -> ExitCode:
        found = await all_connections(shell, name, service)
        if as_json:
            for each in found:
                shell.output.record(each)
        else:
            shell.output.table(
                ("ID", "NAME", "SERVICE", "GROUP", "STATUS"), (_row(each) for each in found)
            )
        return ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


async def all_connections(
    shell: Shell, name: str | None = None, service: str | None = None
) -> list[ConnectionSummary]:
    """The connections of all pages."""
    found: list[ConnectionSummary] = []
    cursor = None
    while True:
        page = await shell.service.connections.list_connections(
            name=name, service=service, cursor=cursor, limit=PAGE
        )
        found += page.connections
        cursor = page.next_cursor
        if cursor is None:
            return found


def _row(found: ConnectionSummary) -> tuple[str, ...]:
    status = showing.status(found)
    if not found.keeps_state:
        status.append("keeps no state")
    group = found.group_name or found.group_id
    return found.id, quoted(found.name), found.service, quoted(group), ", ".join(status)


def get(
    connection: ConnectionArgument,
    path: Annotated[
        str | None,
        typer.Option("--path", metavar="PATH", help="JSON Pointer to a part, such as /orders."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="WHEN",
            help="A past state: a time with its zone, a version, or a workflow id.",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="TEXT", help="List the values with this in their path, in any case."
        ),
    ] = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Print a connection's state and its version.

    Only the state, or what a search finds, goes to stdout; what else there is to know goes to stderr.
    """

    async def action(shell: Shell) -> ExitCode:
        view = await shell.service.states.get_state(connection, path=path, exact=True, at=at)
        if search and view.problem is not None:
            raise InvalidRequest(f"search: this is not a usable state ({view.problem}).")
        _note(shell.output, view)
        if search:
            found = showing.matches(shell.output, state.matches(view.state, search, path or ""))
            note = f"{found:,} found." if found else "No path contains it. Values are not searched."
            shell.output.note(note)
        elif as_json:
            shell.output.record(view)
        else:
            shell.output.text(view.state_json or state.indented(view.state))
        return ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


def _note(output: Output, view: StateView) -> None:
    """What there is to know about a state, except itself."""
    about = showing.facts(view) if view.seen is None else [_seen(view.seen)]
    output.note(f"{view.connection_id}: {', '.join(about)}", "bright_black")
    output.note(f"version {view.version}", "bright_black")
    if view.update_in_progress is not None:
        output.note(f"an update is running: {view.update_in_progress}", "yellow")
    if view.problem is not None:
        output.note(f"This is not a usable state: {view.problem}.", "yellow")


def _seen(seen: Seen) -> str:
    told = f"seen from {seen.seen_from} to {seen.seen_until}"
    if seen.is_certain is False:
        told += ", so it may have moved since"
    return told


_SIDE = (
    "A connection's id: its state now; with @ and a time or version, a past one. A workflow id: the "
    "state before that update."
)


def diff(
    first: Annotated[str, typer.Argument(help=_SIDE, metavar="FIRST")],
    second: Annotated[
        str | None,
        typer.Argument(
            help="The same. Without it: the state that the connection has now.", metavar="SECOND"
        ),
    ] = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Show how two states differ; exit 2 if they do.

    Compare a connection with its own past (speak_inexpensive:3), two moments of it, or two
    connections.
    """
    other = second
    if second is None and ("@" in first or ":" in first):
        other = first.partition("@")[0] if "@" in first else first.rpartition(":")[0]
    if other is None:
        raise typer.BadParameter("Name a workflow id, or two states that are to be compared.")

    async def action(shell: Shell) -> ExitCode:
        before, after = await _side(shell, first), await _side(shell, other)
        number = showing.differences(shell.output, state.differences(before, after))
        places = "1 place" if number == 1 else f"{number:,} places"
        shell.output.note(f"They differ in {places}." if number else "They are the same.")
        return ExitCode.DIFFERS if number else ExitCode.DONE

    run(action, sandbox=sandbox, as_json=as_json)


async def _side(shell: Shell, named: str) -> state.Document:
    connection, at_sign, at = named.partition("@")
    if at_sign:
        return document(await shell.service.states.get_state(connection, exact=True, at=at))
    if ":" in named:
        return await shell.service.changes.state_before(named)
    return document(await shell.service.states.get_state(named, exact=True))


def document(view: StateView) -> state.Document:
    """The whole state of an exact view."""
    if view.problem is not None:
        return state.RawDocument(view.state_json or "", view.problem)
    found: state.State = view.state
    return found
