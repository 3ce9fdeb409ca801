"""The commands on a folder of exported states: export, plan, apply."""

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fivetran_state import question, state
from fivetran_state.cli import files, showing
from fivetran_state.cli.asking import agree
from fivetran_state.cli.exit_codes import ExitCode, of_error, of_several
from fivetran_state.cli.files import StateFile
from fivetran_state.cli.folder_plan import FolderPlan, look
from fivetran_state.cli.making import How, make, noted, of_update
from fivetran_state.cli.options import (
    AllowResyncOption,
    JsonOption,
    ReasonOption,
    SandboxOption,
    ThenSyncOption,
    YesOption,
)
from fivetran_state.cli.output import error_fields
from fivetran_state.cli.reading import all_connections, document
from fivetran_state.cli.shell import Shell, run
from fivetran_state.errors import (
    Conflict,
    FivetranStateError,
    InvalidRequest,
    NoStateYet,
    TooLargeToConfirm,
)
from fivetran_state.models import Update

AT_ONCE = 8
"""Connections that are read or changed at the same time."""

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the files.")]


def export(
    folder: FolderArgument,
    connections: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONNECTION", help="Their ids; without any, all that keep a state."),
    ] = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Write states to files, each with its version.

    A state is in DIR/CONNECTION.json, every number exact. Edit "state" in a file, then see 'plan' and 'apply'. A file with edits that
    were not applied is never overwritten.
    """

    async def action(shell: Shell) -> ExitCode:
        ids = connections or [each.id for each in await all_connections(shell) if each.keeps_state]
        few = asyncio.Semaphore(AT_ONCE)

        async def read(connection_id: str) -> StateFile | FivetranStateError:
            async with few:
                return await _read(shell, connection_id)

        found = dict(zip(ids, await asyncio.gather(*map(read, ids)), strict=True))
        _write(folder, [each for each in found.values() if isinstance(each, StateFile)])
        return _told(shell, folder, found)

    run(action, sandbox=sandbox, as_json=as_json)


async def _read(shell: Shell, connection_id: str) -> StateFile | FivetranStateError:
    try:
        view = await shell.service.states.get_state(connection_id, exact=True)
    except FivetranStateError as error:
        return error
    found = document(view)
    if isinstance(found, state.RawDocument):
        return InvalidRequest(f"{connection_id} has no usable state: {found.problem}.")
    return StateFile(connection_id, view.version, found)


def _write(folder: Path, exported: Sequence[StateFile]) -> None:
    """Write the files; raises `InvalidRequest` before the first one if edits would be lost."""
    for each in exported:
        path = files.path_of(folder, each.connection_id)
        if path.exists():
            old = files.read(path)
            if old.is_edited and not state.same(old.state, each.state):
                raise InvalidRequest(
                    f"{path} has edits that were not applied. Apply them, delete the file, or "
                    "export to another folder. Nothing was written."
                )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in exported:
            files.write(folder, each)
    except OSError as error:
        raise InvalidRequest(f"{folder} cannot be written: {error.strerror}.") from error


def _told(shell: Shell, folder: Path, found: dict[str, StateFile | FivetranStateError]) -> ExitCode:
    errors = []
    for connection_id, each in found.items():
        if isinstance(each, StateFile):
            path = files.path_of(folder, connection_id)
            if shell.output.as_json:
                shell.output.record(
                    {"connection_id": connection_id, "version": each.version, "file": str(path)}
                )
            else:
                shell.output.text(f"{path}  version {each.version}")
        elif isinstance(each, NoStateYet) and len(found) > 1:
            shell.output.note(f"{connection_id} has no state yet.")
        else:
            errors.append(each)
            _failed(shell, connection_id, each)
    return of_several(map(of_error, errors), has_changed=False)


def plan(
    folder: FolderArgument,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Show what 'apply' would do; exit 2 on drift.

    A file drifts if it was edited and the connection's state has moved since the export. A file
    that nobody edited asks for nothing.
    """

    async def action(shell: Shell) -> ExitCode:
        found = await look(shell, files.read_all(folder))
        _show(shell, found)
        if found.plans and not (found.drifted or found.failed):
            apply_it = ("apply", shlex.quote(str(folder)), "--expected-version", found.version)
            shell.output.note(
                f"Nothing was written. To make exactly these changes: {shell.command(*apply_it)}"
            )
        return _code(found)

    run(action, sandbox=sandbox, as_json=as_json)


def apply(
    folder: FolderArgument,
    expected_version: Annotated[
        str | None,
        typer.Option(
            "--expected-version", metavar="VERSION", help="Of the plan that 'plan' has shown."
        ),
    ] = None,
    yes: YesOption = False,
    then_sync: ThenSyncOption = False,
    allow_resync: AllowResyncOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Make exactly the changes that 'plan' shows.

    Nothing is changed if one of them has drifted or cannot be made. Each connection is updated on
    its own. A file that was applied gets the new version.
    """
    how = How(expected_version, yes, False, then_sync, allow_resync, reason)

    async def action(shell: Shell) -> ExitCode:
        found = await look(shell, files.read_all(folder), how)
        if found.drifted or found.failed or not found.plans:
            _show(shell, found)
            return _code(found)
        if expected_version is not None and expected_version != found.version:
            raise Conflict(
                f"The plan {expected_version} was expected, but it is {found.version} now. Nothing "
                "was written.",
                current_version=found.version,
            )
        if expected_version is None and not shell.can_ask:
            _show(shell, found)
            shell.output.note(
                "Nothing was written. To make exactly these changes, repeat the command with "
                f"--expected-version {found.version}"
            )
            return ExitCode.REFUSED
        if not yes and shell.can_ask:
            await agree(shell.output, _question(found))
        return await _apply(shell, folder, found, how)

    run(action, sandbox=sandbox, as_json=as_json)


def _question(found: FolderPlan) -> str:
    total = sum(plan.changes_total for plan in found.plans)
    if total > question.MAX_CHANGES:
        raise TooLargeToConfirm(
            f"{total:,} changes are too much to show in full in one question, so you were not "
            "asked; nothing was written."
        )
    return "\n\n".join(map(question.of_plan, found.plans))


async def _apply(shell: Shell, folder: Path, found: FolderPlan, how: How) -> ExitCode:
    few = asyncio.Semaphore(AT_ONCE)

    async def change(file: StateFile) -> Update | FivetranStateError:
        agreed = replace(how, expected_version=file.version, yes=True)
        async with few:
            try:
                progress = noted(shell, f"{file.connection_id}: ")
                ended = await make(shell, file.connection_id, file.change, agreed, progress)
            except FivetranStateError as error:
                _failed(shell, file.connection_id, error)
                return error
        if shell.output.as_json:
            shell.output.record(ended)
        else:
            shell.output.text(
                f"{file.connection_id}: {ended.message}", showing.COLOURS.get(ended.status)
            )
        if ended.status in ("updated", "unchanged"):
            files.mark_applied(folder, file)
        return ended

    ended = await asyncio.gather(*map(change, found.files))
    updates = [each for each in ended if isinstance(each, Update)]
    errors = [each for each in ended if isinstance(each, FivetranStateError)]
    return of_several(
        [*map(of_update, updates), *map(of_error, errors)],
        has_changed=any(each.status == "updated" for each in updates),
    )


def _show(shell: Shell, found: FolderPlan) -> None:
    output = shell.output
    for each in found.plans:
        showing.plan(shell, each)
        output.note("")
    for file, conflict in found.drifted:
        if output.as_json:
            output.record({"connection_id": file.connection_id, "error": error_fields(conflict)})
        else:
            output.text(
                f"{file.connection_id}: drift. The state has moved since the export, from version "
                f"{file.version} to {conflict.details.get('current_version')}.",
                "red",
            )
    for file in found.moved:
        output.note(
            f"{file.connection_id}: the state has moved since the export; the file was not edited, "
            "so it is left alone."
        )
    for file, error in found.failed:
        _failed(shell, file.connection_id, error)
    if output.as_json:
        output.record(found.summary())
        return
    counts = {name: number for name, number in found.summary().items() if isinstance(number, int)}
    output.text(", ".join(f"{number:,} {name}" for name, number in counts.items() if number))


def _code(found: FolderPlan) -> ExitCode:
    if found.drifted:
        return ExitCode.DIFFERS
    return of_several((of_error(error) for _, error in found.failed), has_changed=False)


def _failed(shell: Shell, connection_id: str, error: FivetranStateError) -> None:
    if shell.output.as_json:
        shell.output.record({"connection_id": connection_id, "error": error_fields(error)})
    else:
        shell.output.note(f"{connection_id}: {error.message}", "red")
