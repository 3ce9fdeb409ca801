"""The command that changes several connections together: update-many."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import typer

from fivetran_state import changes, question, state
from fivetran_state.cli import group, inputs, showing
from fivetran_state.cli.asking import agree_or_look
from fivetran_state.cli.exit_codes import ExitCode, of_error, of_several
from fivetran_state.cli.making import How
from fivetran_state.cli.options import (
    AllowResyncOption,
    DryRunOption,
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
from fivetran_state.cli.shell import Shell, run
from fivetran_state.errors import Conflict, FivetranStateError, InvalidRequest
from fivetran_state.models import GroupPlanView, MemberPlan, Mode
from fivetran_state.text import shown

Wanted = Mapping[str, changes.Change]
"""The change of each connection, by its id."""

_PROMPT = "Type yes to agree, or the id of a connection to see all its changes:"
_INLINE = ("merge_patch", "json_patch", "new_state")
_NAMED = ("restore_from", "copy_from")


def update_many(
    connections: Annotated[
        list[str] | None, typer.Argument(metavar="CONNECTION", help="Their ids.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Those whose id or name fits: '*orders*'.")
    ] = None,
    group_name: Annotated[
        str | None, typer.Option("--group", help="Those of a group, by its id or name.")
    ] = None,
    service: Annotated[
        str | None, typer.Option(help="Those of a service: connector_sdk, …")
    ] = None,
    merge_patch: MergePatchOption = None,
    json_patch: JsonPatchOption = None,
    new_state: NewStateOption = None,
    restore_from: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Put back each one's state of a time with its zone."),
    ] = None,
    copy_from: Annotated[
        str | None, typer.Option(metavar="FROM", help="Copy this connection's state, or id@TIME.")
    ] = None,
    only: OnlyOption = None,
    file: Annotated[
        str | None, typer.Option(metavar="FILE", help="A change for each connection; - is stdin.")
    ] = None,
    undo: Annotated[
        str | None, typer.Option(metavar="WORKFLOW_ID", help="Put back what a group has changed.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Undo all if one fails, or let each succeed or fail alone.")
    ] = "all_or_nothing",
    if_busy: Annotated[
        Literal["fail", "wait"], typer.Option(help="Another update of a connection is running.")
    ] = "fail",
    expected_version: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Of the plan you have seen; nothing else is done."),
    ] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    propose: ProposeOption = False,
    then_sync: ThenSyncOption = False,
    allow_resync: AllowResyncOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
    sandbox: SandboxOption = False,
) -> None:
    """Change several connections together.

    Name them, or choose them by --name, --group and --service. Give one change for all. Or give
    --file, with one JSON object a line: {"connection_id": …, "merge_patch": …}. Or undo a group.

    On a terminal you see the plan and are asked; for every change of a connection, answer with its
    id. Elsewhere name the plan's version with --expected-version; without it, only the plan is
    shown.
    """
    how = How(expected_version, yes, dry_run, then_sync, allow_resync, reason, propose)
    options = changes.GroupOptions(
        mode, expected_version, if_busy == "wait", then_sync, allow_resync, reason
    )
    asked = _Asked(
        connections or [],
        {"name": name, "group": group_name, "service": service},
        {
            "merge_patch": merge_patch,
            "json_patch": json_patch,
            "new_state": new_state,
            "restore_from": restore_from,
            "copy_from": copy_from,
        },
        only,
        file,
        undo,
    )

    async def action(shell: Shell) -> ExitCode:
        return await _change(shell, await asked.wanted(shell), how, options)

    run(action, sandbox=sandbox, as_json=as_json)


@dataclass(frozen=True)
class _Asked:
    """The connections and their changes, in one of four ways."""

    connections: list[str]
    filters: Mapping[str, str | None]
    given: Mapping[str, str | None]
    """The one change for all, by kind."""
    only: str | None
    file: str | None
    undo: str | None

    def __post_init__(self) -> None:
        has_change = self.only is not None or any(
            value is not None for value in self.given.values()
        )
        ways = (
            bool(self.connections),
            any(value is not None for value in self.filters.values()),
            self.file is not None,
            self.undo is not None,
        )
        if sum(ways) != 1:
            raise typer.BadParameter(
                "say in one way which connections: name them, choose them by --name, --group and "
                "--service, or give --file or --undo."
            )
        if has_change and (self.file is not None or self.undo is not None):
            raise typer.BadParameter("--file and --undo bring the changes with them.")

    async def wanted(self, shell: Shell) -> Wanted:
        """The change of each connection; raises `InvalidRequest`."""
        selection = shell.service.selection
        if self.undo is not None:
            return await selection.undo_of(self.undo)
        if self.file is not None:
            text = inputs.text_of(self.file if self.file == "-" else f"@{self.file}", "--file")
            return await _listed(text)
        inline = {kind: self.given[kind] for kind in _INLINE}
        change = await changes.parse({**self.given, **inputs.texts_of(inline)}, self.only)
        return changes.for_each(self.connections or await selection.chosen(**self.filters), change)


async def _listed(text: str) -> Wanted:
    """The changes that the lines of a file ask for; raises `InvalidRequest`."""
    found: dict[str, changes.Change] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            connection_id, change = await _of_line(line)
            if connection_id in found:
                raise InvalidRequest(f"{shown(connection_id)} has a change already.")
        except InvalidRequest as error:
            raise InvalidRequest(f"--file, line {number}: {error.message}") from error
        found[connection_id] = change
    return found


async def _of_line(line: str) -> tuple[str, changes.Change]:
    try:
        fields = state.parse_value(line)
    except state.InvalidState as error:
        raise InvalidRequest(str(error)) from error
    if not isinstance(fields, dict):
        raise InvalidRequest('A line is an object such as {"connection_id": …, "merge_patch": …}.')
    unknown = fields.keys() - {"connection_id", "only", *_INLINE, *_NAMED}
    if unknown:
        raise InvalidRequest(f"'{shown(min(unknown))}' is not known.")
    texts = {name: fields.get(name) for name in ("connection_id", "only", *_NAMED)}
    for name, value in texts.items():
        if not isinstance(value, str | None):
            raise InvalidRequest(f"{name} must be a string.")
    connection_id = texts["connection_id"]
    if not isinstance(connection_id, str):
        raise InvalidRequest("connection_id is missing.")
    # As text, so that every number is taken exactly.
    inline = {kind: state.dump(fields[kind]) for kind in _INLINE if kind in fields}
    given = {kind: inline.get(kind, texts.get(kind)) for kind in (*_INLINE, *_NAMED)}
    only = texts["only"]
    return connection_id, await changes.parse(given, only if isinstance(only, str) else None)


async def _change(
    shell: Shell, wanted: Wanted, how: How, options: changes.GroupOptions
) -> ExitCode:
    """Plan the changes, ask, make them and show their end.

    Where nobody can be asked and no version is named, only the plan is shown.
    """
    if not how.dry_run and (how.propose or shell.must_propose):
        return await _propose(shell, wanted, options)
    if how.dry_run or (how.expected_version is None and not shell.can_ask):
        plan = await shell.service.groups.plan_updates(wanted, options, in_full=True)
        return _show_plan(shell, plan, how)
    while True:
        if shell.can_ask and not how.yes:
            plan = await shell.service.groups.plan_updates(wanted, options, in_full=True)
            if not group.is_possible(plan):
                return _show_plan(shell, plan, how)
            try:
                await _ask(shell, wanted, plan)
            except Conflict:
                if how.expected_version is not None:
                    raise
                shell.output.note("A state has moved since the plan was made.")
                continue
            pinned = replace(options, expected_version=plan.version)
        else:
            pinned = options
        try:
            return await _make(shell, wanted, pinned)
        except Conflict:
            if how.expected_version is not None:
                raise
            shell.output.note("A state has moved since the plan was made.")


async def _propose(shell: Shell, wanted: Wanted, options: changes.GroupOptions) -> ExitCode:
    found = await shell.service.groups.update_states(wanted, options, propose=True)
    if isinstance(found, GroupPlanView):
        group.show_plan(shell, found)
        return ExitCode.DONE
    group.show(shell, found)
    return ExitCode.PROPOSED


def _show_plan(shell: Shell, plan: GroupPlanView, how: How) -> ExitCode:
    group.show_plan(shell, plan)
    code = of_several(map(of_error, group.errors_of(plan)), has_changed=False)
    if group.is_possible(plan):
        shell.output.note(
            "Nothing was written. To make exactly these changes, repeat the command with "
            f"--expected-version {plan.version}"
        )
        return code if how.dry_run else ExitCode.REFUSED
    if plan.changed:
        shell.output.note(
            "Leave out the connections that cannot be changed, or change the others alone: "
            "--mode independent"
        )
    return code


async def _ask(shell: Shell, wanted: Wanted, plan: GroupPlanView) -> None:
    """Ask until the person agrees; raises `NotConfirmed`, or `Conflict` for a state that has moved."""
    members = {member.connection_id: member for member in plan.connections}
    text = group.plan_text(plan)
    while (looked_at := await agree_or_look(shell.output, text, _PROMPT, members)) is not None:
        text = await _in_full(shell, wanted[looked_at], members[looked_at])


async def _in_full(shell: Shell, change: changes.Change, member: MemberPlan) -> str:
    """Every change of one connection; the first ones if they are too many."""
    found = await shell.service.plans.plan(
        member.connection_id, change, expected_version=member.version_before
    )
    if found.version_after != member.version_after:
        raise Conflict("What would be written has changed.", current_version=found.version_before)
    try:
        lines = question.changes_in_full(found.before, found.applied.after)
    except question.TooLarge:
        lines = [showing.change_line(each) for each in found.changes]
        lines.append(f"… of {found.changes_total:,} changes, too much to show in full")
    return "\n".join([f"{found.described_connection}:", *lines])


async def _make(shell: Shell, wanted: Wanted, options: changes.GroupOptions) -> ExitCode:
    """Start the group, or attach to it; follow it to its end. A signal leaves it running."""
    workflow_id = None
    try:
        started = await shell.service.groups.update_states(wanted, options)
        if isinstance(started, GroupPlanView):
            group.show_plan(shell, started)
            return ExitCode.DONE
        workflow_id = started.workflow_id
        if started.status == "proposed":
            group.show(shell, started)
            return ExitCode.PROPOSED
        ended = await group.follow(shell, workflow_id)
    except asyncio.CancelledError:
        if workflow_id is None:
            listing = shell.command("history", next(iter(wanted)))
            shell.output.note(f"If the group was started, it goes on by itself: {listing}")
        else:
            shell.goes_on(workflow_id)
        raise
    except FivetranStateError as error:
        # A group that has ended at once raises its error; it is shown like any other end.
        workflow_id = error.details.get("workflow_id")
        if workflow_id is None or not shell.service.groups.is_group(str(workflow_id)):
            raise
        ended = await group.follow(shell, str(workflow_id))
    group.show(shell, ended)
    return await group.exit_code(shell, ended)
