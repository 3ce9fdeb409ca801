"""Plans, updates and differences as lines of text."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fivetran_state import question, state
from fivetran_state.cli.output import Colour, Output
from fivetran_state.cli.shell import Shell
from fivetran_state.errors import TooLargeToConfirm
from fivetran_state.models import Change, ConnectionFacts, StateView, Update
from fivetran_state.state import DiffEntry, OutlineEntry
from fivetran_state.text import quoted

if TYPE_CHECKING:
    from fivetran_state.plan import Plan

COLOURS: dict[str, Colour] = {
    "add": "green",
    "remove": "red",
    "replace": "yellow",
    "updated": "green",
    "failed": "red",
    "cancelled": "yellow",
}
"""Of changes and of updates."""


def plan(shell: Shell, found: "Plan") -> None:
    """What the plan would do, as a person is asked it; the first changes if that is too much."""
    output = shell.output
    if output.as_json:
        output.record(found.to_update())
    elif not found.changes_total:
        output.text(found.to_update().message)
    else:
        try:
            output.text(question.of_plan(found))
        except TooLargeToConfirm:
            output.text(f"Change the state of {found.described_connection}?")
            changes(output, found.to_update())
            output.text(f"Version {found.version_before} becomes {found.version_after}.")
            output.text(" ".join(found.consequences))


def update(shell: Shell, ended: Update) -> None:
    """How an update ended, and how to undo it."""
    output = shell.output
    if output.as_json:
        output.record(ended)
        return
    output.text(ended.message, COLOURS.get(ended.status))
    if ended.status == "updated" and ended.workflow_id is not None:
        output.text(f"Version {ended.version_before} became {ended.version_after}.")
        undo = shell.command("restore", ended.connection_id, ended.workflow_id)
        output.text(f"Undo it: {undo}")


def changes(output: Output, update: Update) -> None:
    """The first changes of an update, cut where they are long."""
    listed = update.changes or []
    for change in listed:
        output.text(change_line(change), COLOURS[change.op])
    more = (update.changes_total or 0) - len(listed)
    if more:
        output.text(f"… and {more:,} more changes")


def differences(output: Output, found: Iterable[DiffEntry]) -> int:
    """Every difference, in full; their number."""
    number = 0
    for entry in found:
        number += 1
        if output.as_json:
            output.record(_fields(entry))
        else:
            before, after = state.dump(entry.before), state.dump(entry.after)
            output.text(_line(entry.op, entry.path, before, after), COLOURS[entry.op])
    return number


def matches(output: Output, found: Iterable[OutlineEntry]) -> int:
    """Every value that a search found: itself if it is small, or its size; their number."""
    number = 0
    for entry in found:
        number += 1
        if output.as_json:
            fields = vars(entry)
            output.record({name: fields[name] for name in fields if fields[name] is not None})
        else:
            output.text(f"{quoted(entry.path)}: {_matched(entry)}")
    return number


def facts(found: ConnectionFacts | StateView) -> list[str]:
    """What tells a connection apart, and what is unusual about it, in words."""
    group = found.group_id if found.group_name is None else found.group_name
    return [
        f"{quoted(found.service or '')} {quoted(found.name or '')} in the group {quoted(group or '')}",
        *status(found),
    ]


def status(found: ConnectionFacts | StateView) -> list[str]:
    """Whether it is paused or syncing, and what is unusual."""
    said = ["paused" if found.paused else quoted(found.sync_state or "")]
    if found.paused and found.sync_state == "syncing":
        said.append("its last sync is stopping")
    if found.setup_state is not None:
        said.append(f"set-up {quoted(found.setup_state)}")
    if found.schedule_type is not None:
        said.append(f"schedule {quoted(found.schedule_type)}")
    if found.is_historical_sync:
        said.append("re-sync pending or running")
    return said


def change_line(change: Change) -> str:
    """One change as a line; its values are cut where they are long."""
    return _line(change.op, change.path, change.before or "", change.after or "")


def _line(op: str, path: str, before: str, after: str) -> str:
    where = quoted(path) if path else "(everything)"
    return {
        "add": f"+ {where}: {after}",
        "remove": f"- {where}: {before}",
        "replace": f"~ {where}: {before} -> {after}",
    }[op]


def _matched(entry: OutlineEntry) -> str:
    if entry.preview is not None and entry.bytes <= state.MAX_PREVIEW:
        return entry.preview
    size = f"{entry.type} of {entry.bytes:,} bytes"
    if entry.items is None:
        return f"({size}) {entry.preview}"
    return f"({size}, {entry.items:,} {'member' if entry.items == 1 else 'members'})"


def _fields(entry: DiffEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {"op": entry.op, "path": entry.path}
    for name, value in (("before", entry.before), ("after", entry.after)):
        if entry.op != {"before": "add", "after": "remove"}[name]:
            fields[name] = value.text if isinstance(value, state.RawDocument) else value
    return fields
