"""What the tools take and answer about connections that are changed together."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import Context

from fivetran_state import changes
from fivetran_state.errors import FivetranStateError
from fivetran_state.models import Update, UpdatesView

if TYPE_CHECKING:
    from fivetran_state.service import Service
    from fivetran_state.service.group_status import GroupProgress, OnLook

SHOWN_UPDATES = 20
SHOWN_CHANGES = 3
_FAILED = ("failed", "cancelled")


async def wanted(
    service: "Service",
    connection_ids: Sequence[str] | None,
    fitting: changes.Filter,
    each: Sequence[object] | str | None,
    given: Mapping[str, object],
    only: str | None,
) -> Mapping[str, changes.Change]:
    """The change of each connection, by its id; raises `InvalidRequest` and `NothingToUndo`."""
    source = given["restore_from"]
    undone = source if isinstance(source, str) and service.groups.is_group(source) else None
    choice = changes.the_one_choice(
        {
            "connection_ids": connection_ids,
            "name, group and service": any((fitting.name, fitting.group, fitting.service)),
            "changes": each,
            "restore_from with a group's workflow_id": undone,
        }
    )
    if choice == "changes":
        changes.refuse_another(choice, given, only)
        return await changes.parse_each(each or ())
    if undone is not None:
        changes.refuse_another("it", dict(given) | {"restore_from": None}, only)
        return await service.selection.resolved(changes.Undo(undone))
    change = await changes.parse(given, only)
    if connection_ids:
        return changes.for_each(connection_ids, change)
    return await service.selection.resolved(changes.fitting(fitting, change))


def brief(view: UpdatesView) -> UpdatesView:
    """Without most of its updates and changes, because a model reads all of it.

    The updates that failed come first, then those that run. `counts` has all.
    """
    order = sorted(
        view.updates,
        key=lambda update: (update.status not in _FAILED, update.status != "running"),
    )
    updates = [_brief(update) for update in order[:SHOWN_UPDATES]]
    not_started = (view.not_started or [])[:SHOWN_UPDATES] or None
    return view.model_copy(update={"updates": updates, "not_started": not_started})


def _brief(update: Update) -> Update:
    return update.model_copy(update={"changes": (update.changes or [])[:SHOWN_CHANGES] or None})


def shorten(error: FivetranStateError) -> None:
    """The same for an error that has the updates of its group."""
    updates = error.details.get("updates", [])
    if updates:
        updates = sorted(updates, key=lambda update: update["status"] not in _FAILED)
        error.details["updates"] = [
            {name: value for name, value in update.items() if name != "changes"}
            for update in updates[:SHOWN_UPDATES]
        ]
    failures = error.details.get("failures", [])
    if failures:
        error.details["failures"] = failures[:SHOWN_UPDATES]


def counter(context: Context[Any, Any]) -> "OnLook | None":
    """Reports to the client how many connections are done; None if it does not want to know."""
    if (context.request_context.meta or {}).get("progress_token") is None:
        return None

    async def report(progress: "GroupProgress") -> None:
        await context.report_progress(progress.done, progress.total, progress.message)

    return report
