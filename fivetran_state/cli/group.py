"""Connections changed together, as text: the plan, the progress and the end."""

from collections.abc import Iterable, Iterator
from typing import get_args

from fivetran_state.cli import showing
from fivetran_state.cli.exit_codes import ExitCode, of_error, of_several
from fivetran_state.cli.output import Colour, error_fields
from fivetran_state.cli.shell import Shell
from fivetran_state.errors import FivetranStateError, Undone
from fivetran_state.models import (
    Failure,
    GroupPlanView,
    MemberPlan,
    ProposalState,
    Update,
    UpdatesView,
)
from fivetran_state.text import quoted

SHOWN_MEMBERS = 20
"""Connections that are listed although nothing is wrong with them."""
SHOWN_CHANGES = 3
"""Changes of each connection, or places of each kind of change."""
_LOOK_SECONDS = 1.0
_LOOK_SECONDS_OF_A_MEMBER = 0.005
"""A look reads every member, so large groups are looked at less often."""
_PAUSING = {
    "all_or_nothing": "Each connection stays paused until all are written and verified. If one "
    "fails, every state is put back first.",
    "independent": "Each connection is paused while its state is written, and succeeds or fails alone.",
}


def plan_text(plan: GroupPlanView) -> str:
    """The plan: how many, what kinds of change, the first connections, and every failure."""
    heading = (
        f"Change the states of {_of(plan.changed, plan.total)} ({plan.mode})?"
        if is_possible(plan)
        else plan.message
    )
    paragraphs = (
        [heading, *_left_as_they_are(plan)],
        [_kind(kind.connections, kind.changes) for kind in plan.kinds],
        list(_first(plan.connections)),
        [f"{each.connection_id}: {_message(each.error)}" for each in plan.failures],
        list(_closing(plan)) if is_possible(plan) else [],
    )
    return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)


def is_possible(plan: GroupPlanView) -> bool:
    """False if there is nothing to agree to: nothing would change, or a failure forbids it."""
    return plan.changed > 0 and not (plan.mode == "all_or_nothing" and plan.failed)


def errors_of(plan: GroupPlanView) -> list[FivetranStateError]:
    return [_error(each.error) for each in plan.failures if each.error is not None]


def show_plan(shell: Shell, plan: GroupPlanView) -> None:
    """The plan on stdout; as JSON, each connection with its changes or its error, and the counts."""
    output = shell.output
    if not output.as_json:
        output.text(plan_text(plan))
        return
    for each in plan.connections:
        output.record(each)
    for each in plan.failures:
        if each.error is not None:
            fields = error_fields(_error(each.error))
            output.record({"connection_id": each.connection_id, "error": fields})
    summary = plan.to_json(exactly=True)
    output.record({name: summary[name] for name in summary if name not in _LISTED})


_LISTED = ("connections", "failures", "more")


def _of(number: int, total: int) -> str:
    if number == total:
        return _connections(total)
    return f"{number:,} of {_connections(total)}"


def _connections(number: int) -> str:
    return f"{number:,} connection{'' if number == 1 else 's'}"


def _left_as_they_are(plan: GroupPlanView) -> Iterator[str]:
    if plan.unchanged:
        yield f"{_connections(plan.unchanged)} would stay as now."
    if plan.failed and is_possible(plan):
        yield f"{_connections(plan.failed)} cannot be changed."


def _kind(connections: int, changes: list[str]) -> str:
    places = []
    for change in changes[:SHOWN_CHANGES]:
        op, _, path = change.partition(" ")
        places.append(f"{op} {quoted(path) if path else '(everything)'}")
    if len(changes) > SHOWN_CHANGES:
        places.append(f"and {len(changes) - SHOWN_CHANGES:,} more")
    return f"{_connections(connections)}: {', '.join(places)}"


def _first(members: list[MemberPlan]) -> Iterator[str]:
    for member in members[:SHOWN_MEMBERS]:
        yield f"{member.connection_id}:"
        shown = (member.changes or [])[:SHOWN_CHANGES]
        yield from (f"  {showing.change_line(change)}" for change in shown)
        more = (member.changes_total or 0) - len(shown)
        if more:
            yield f"  … and {more:,} more changes"
        yield from (f"  {warning}" for warning in member.warnings or [])
    more = len(members) - SHOWN_MEMBERS
    if more > 0:
        yield f"… and {more:,} more connections"


def _closing(plan: GroupPlanView) -> Iterator[str]:
    yield f"Version {plan.version}."
    seconds = max(1, round(plan.seconds))
    yield f"About {plan.calls:,} calls to Fivetran, {seconds:,} s. {_PAUSING[plan.mode]}"


async def follow(shell: Shell, workflow_id: str, *, records: bool = False) -> UpdatesView:
    """Wait for the group's end; note its counts and its failures as they come, of few every update.

    `records`: with `--json`, the counts each time they change.
    """
    counts: dict[str, int] = {}
    told: dict[str, str] = {}
    wait = 0.0
    while True:
        view = await shell.service.groups.updates_status(workflow_id, wait_seconds=wait)
        failed = dict(_failed(view))
        for connection_id, line in (_running(view) | failed).items():
            if told.get(connection_id) != line:
                told[connection_id] = line
                shell.output.note(f"· {line}", "red" if connection_id in failed else None)
        if view.status != "running":
            return view
        if view.counts != counts:
            counts = view.counts
            shell.output.note(f"· {_counted(view)}")
            if records and shell.output.as_json:
                shell.output.record(
                    {"workflow_id": workflow_id, "status": view.status, "counts": counts}
                )
        wait = max(_LOOK_SECONDS, view.total * _LOOK_SECONDS_OF_A_MEMBER)


def show(shell: Shell, view: UpdatesView) -> None:
    """The group's counts, its failures, and the first of its other updates."""
    output = shell.output
    if output.as_json:
        output.record(view)
        return
    output.text(f"{view.workflow_id}: {view.status} ({view.mode})", _colour(view))
    if view.status in get_args(ProposalState):
        output.text(view.message)
        return
    output.text(_counted(view))
    failed = dict(_failed(view))
    if view.error is not None and not failed:
        output.text(view.error.message)
    for line in failed.values():
        output.text(line, "red")
    others = [each for each in view.updates if each.connection_id not in failed]
    others.sort(key=lambda each: each.status != "running")
    for update in others[:SHOWN_MEMBERS]:
        output.text(f"{update.workflow_id}: {update.status}. {update.message}")
    more = view.total - len(failed) - len(others[:SHOWN_MEMBERS])
    if more:
        output.text(f"… and {more:,} more connections")
    paused = sum(update.paused_by_update for update in view.updates)
    if paused and view.status != "running":
        output.text(f"{_connections(paused)} still paused by the update.", "red")
    if view.counts.get("updated") and view.status != "running":
        undo = shell.command("update-many", "--undo", view.workflow_id)
        output.text(f"Undo it: {undo}")


def _colour(view: UpdatesView) -> Colour | None:
    return "yellow" if view.status == "partly_updated" else showing.COLOURS.get(view.status)


def _counted(view: UpdatesView) -> str:
    counts = ", ".join(f"{number:,} {how}" for how, number in view.counts.items())
    return f"{_connections(view.total)}: {counts}"


def _failed(view: UpdatesView) -> Iterable[tuple[str, str]]:
    """The connections that have failed, each with a line that says why."""
    for update in view.updates:
        if _has_failed(update):
            yield update.connection_id, f"{update.workflow_id}: {update.status}. {update.message}"
    for member in view.not_started or []:
        yield member.connection_id, f"{member.connection_id}: not started. {_message(member.error)}"


def _running(view: UpdatesView) -> dict[str, str]:
    """How far each update is, of as few connections as fit on a screen."""
    if view.status != "running" or view.total > SHOWN_MEMBERS:
        return {}
    return {each.connection_id: f"{each.workflow_id}: {each.message}" for each in view.updates}


def _has_failed(update: Update) -> bool:
    return update.status in ("failed", "cancelled")


def is_paused(view: UpdatesView) -> bool:
    """True if one of its updates has paused a connection and has not resumed it."""
    return any(update.paused_by_update for update in view.updates)


async def exit_code(shell: Shell, view: UpdatesView) -> ExitCode:
    """The exit code that tells how a group is, or how it has ended."""
    if is_paused(view):
        return ExitCode.STILL_PAUSED
    if view.status == "running":
        return ExitCode.DONE
    if view.status == "proposed":
        return ExitCode.PROPOSED
    if view.status in ("rejected", "withdrawn", "expired"):
        return ExitCode.FAILED
    errors = [_error(each.error) for each in view.not_started or [] if each.error is not None]
    for update in filter(_has_failed, view.updates):
        answer = (await shell.service.workflows.task(str(update.workflow_id))).answer
        if isinstance(answer, FivetranStateError):
            errors.append(answer)
    if not errors and view.error is not None:
        errors.append(_error(view.error))
    # What was put back has failed for the reason of another one.
    causes = [error for error in errors if not isinstance(error, Undone)]
    return of_several(
        map(of_error, causes or errors), has_changed=view.counts.get("updated", 0) > 0
    )


def _error(failure: Failure) -> FivetranStateError:
    return FivetranStateError.from_json(failure.to_json())


def _message(failure: Failure | None) -> str:
    return "" if failure is None else failure.message
