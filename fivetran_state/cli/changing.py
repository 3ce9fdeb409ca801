"""The commands that change one state: update, restore, copy, edit."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fivetran_state import changes, state
from fivetran_state.cli import inputs
from fivetran_state.cli.exit_codes import ExitCode
from fivetran_state.cli.making import How, change_state
from fivetran_state.cli.options import (
    AllowResyncOption,
    ConnectionArgument,
    DryRunOption,
    ExpectedVersionOption,
    JsonOption,
    JsonPatchOption,
    MergePatchOption,
    NewStateOption,
    OnlyOption,
    ProposeOption,
    ReasonOption,
    SandboxOption,
    ThenSyncOption,
    YesOption,
)
from fivetran_state.cli.output import Output
from fivetran_state.cli.reading import document
from fivetran_state.cli.shell import Shell, ending, run, work
from fivetran_state.errors import InvalidRequest, NotConfirmed


def update(
    connection: ConnectionArgument,
    merge_patch: MergePatchOption = None,
    json_patch: JsonPatchOption = None,
    new_state: NewStateOption = None,
    expected_version: ExpectedVersionOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    propose: ProposeOption = False,
    then_sync: ThenSyncOption = False,
    allow_resync: AllowResyncOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Change a connection's state: pause, write, verify, resume.

    Give exactly one of --merge-patch, --json-patch and --new-state. JSON is the text itself, @FILE,
    or - for stdin. Every number is taken exactly.

    On a terminal you see every change and are asked. Elsewhere name the version you have seen with
    --expected-version; without it, only the plan is shown.
    """
    how = How(expected_version, yes, dry_run, then_sync, allow_resync, reason, propose)

    async def action(shell: Shell) -> ExitCode:
        given = {"merge_patch": merge_patch, "json_patch": json_patch, "new_state": new_state}
        change = await changes.parse(inputs.texts_of(given))
        return await change_state(shell, connection, change, how)

    run(action, sandbox=sandbox, as_json=as_json)


def restore(
    connection: ConnectionArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="WHEN",
            help="A workflow id (the state before that update), a time with its zone, or a version. "
            "'history' lists them.",
        ),
    ],
    only: OnlyOption = None,
    expected_version: ExpectedVersionOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    propose: ProposeOption = False,
    then_sync: ThenSyncOption = False,
    allow_resync: AllowResyncOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Put back an earlier state.

    Every cursor moves back, including those that syncs have moved since. The plan names them.
    """
    how = How(expected_version, yes, dry_run, then_sync, allow_resync, reason, propose)

    async def action(shell: Shell) -> ExitCode:
        return await change_state(shell, connection, changes.RestoreFrom(only, source), how)

    run(action, sandbox=sandbox, as_json=as_json)


def copy(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="The connection whose state is taken.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="The connection whose state is changed.")
    ],
    only: OnlyOption = None,
    expected_version: ExpectedVersionOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    propose: ProposeOption = False,
    then_sync: ThenSyncOption = False,
    allow_resync: AllowResyncOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Copy one connection's state to another.

    --expected-version is that of TO.
    """
    how = How(expected_version, yes, dry_run, then_sync, allow_resync, reason, propose)

    async def action(shell: Shell) -> ExitCode:
        return await change_state(shell, target, changes.CopyFrom.of(source, only), how)

    run(action, sandbox=sandbox, as_json=as_json)


def edit(
    connection: ConnectionArgument,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Don't ask; make the change as it was edited.")
    ] = False,
    dry_run: DryRunOption = False,
    propose: ProposeOption = False,
    then_sync: ThenSyncOption = False,
    allow_resync: AllowResyncOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Change a connection's state in $EDITOR.

    The change applies to the version that was opened. If the state moves meanwhile, nothing is
    written, and the file stays.
    """
    output = Output(as_json=as_json)

    async def open_(shell: Shell) -> tuple[state.Document, str]:
        if not (yes or dry_run or propose or shell.can_ask):
            raise NotConfirmed(
                "Nobody is at a terminal to agree, so the editor was not opened. "
                "--yes makes the change as it was edited."
            )
        view = await shell.service.states.get_state(connection, exact=True)
        return document(view), view.version

    async def change(shell: Shell) -> ExitCode:
        how = How(version, yes, dry_run, then_sync, allow_resync, reason, propose)
        return await change_state(shell, connection, changes.Inline(new_state), how)

    before, version = work(open_, sandbox=sandbox, as_json=as_json)
    # The engine is down meanwhile: editing may take hours.
    file = Path(tempfile.mkdtemp(prefix="fivetran-state-")) / f"{connection}.json"
    file.write_text(state.indented(before) + "\n", encoding="utf-8")
    is_needed = True
    try:
        with ending(output):
            inputs.edited(file)
            after = _usable(file)
        if state.same(before, after):
            output.note("You have changed nothing.")
            is_needed = False
            raise typer.Exit(ExitCode.DONE)
        new_state = state.Change("new_state", after)
        code = work(change, sandbox=sandbox, as_json=as_json)
        is_needed = code != ExitCode.DONE
        raise typer.Exit(code)
    finally:
        if is_needed:
            output.note(f"What you have written is in {file}")
        else:
            file.unlink()
            file.parent.rmdir()


def _usable(file: Path) -> state.State:
    """The state in the file; raises `InvalidRequest`."""
    try:
        found = state.document(file.read_bytes())
    except state.InvalidState as error:
        raise InvalidRequest(f"{file}: {error}") from error
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}.") from error
    if isinstance(found, state.RawDocument):
        raise InvalidRequest(f"{file}: {found.problem}.")
    return found
