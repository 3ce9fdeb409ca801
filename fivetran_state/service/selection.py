"""Which connections a group changes, and to what: those that fit a filter, or those of another group."""

import fnmatch
from collections.abc import Mapping

from fivetran_state import changes
from fivetran_state.changes import MAX_CONNECTIONS
from fivetran_state.errors import InvalidRequest, NothingToUndo
from fivetran_state.service.caller import Caller
from fivetran_state.service.connections import MAX_PAGE
from fivetran_state.service.group_status import GroupFollower
from fivetran_state.text import shown


class Selection:
    """Finds the connections of one account's groups."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._follower = GroupFollower(caller)

    async def chosen(
        self, *, name: str | None = None, group: str | None = None, service: str | None = None
    ) -> list[str]:
        """The ids of the connections that keep a state and fit every filter.

        `name` is a glob on the id or the name, `group` a group's id or name. Raises `InvalidRequest` if
        there are none, or more than a group may have; further pages are not read then.
        """
        fivetran = (await self._caller.account()).fivetran
        names = await fivetran.group_names()
        found: list[str] = []
        cursor: str | None = None
        while True:
            page, cursor = await fivetran.list_connections(cursor=cursor, limit=MAX_PAGE)
            found += [
                each.id
                for each in page
                if each.keeps_state
                and self._caller.settings.allows(each.id)
                and (name is None or _fits(name, each.id) or _fits(name, each.schema))
                and group in (None, each.group_id, names.get(each.group_id))
                and service in (None, each.service)
            ]
            if len(found) > MAX_CONNECTIONS:
                raise _too_many(name=name, group=group, service=service)
            if cursor is None:
                break
        if not found:
            raise InvalidRequest(
                "No connection that keeps a state fits the filter. list_connections shows what there is."
            )
        return sorted(found)

    async def undo_of(self, workflow_id: str) -> dict[str, changes.Change]:
        """The change that undoes a group: for each connection that it changed, the state before that."""
        found = await self._follower.status(workflow_id, 0)
        if not found.has_ended:
            raise InvalidRequest(f"{workflow_id} is still running; wait for its end, or cancel it.")
        undone = {
            connection_id: changes.RestoreFrom(at=str(end["workflow_id"]), only=None)
            for connection_id, end in found.ends.items()
            if end["how"] == "updated"
        }
        if not undone:
            raise NothingToUndo(f"{workflow_id} wrote nothing, so there is nothing to undo.")
        return dict(undone)

    async def resolved(self, change: changes.GroupChange) -> Mapping[str, changes.Change]:
        """The change of each connection; raises `InvalidRequest` and `NothingToUndo`."""
        match change:
            case changes.Fitting():
                fitting = change.filter
                found = await self.chosen(
                    name=fitting.name, group=fitting.group, service=fitting.service
                )
                return changes.for_each(found, change.change)
            case changes.Undo():
                return await self.undo_of(change.workflow_id)
            case _:
                return change


def _too_many(**filter_: str | None) -> InvalidRequest:
    given = ", ".join(f"{what} '{shown(value)}'" for what, value in filter_.items() if value)
    return InvalidRequest(
        f"More than {MAX_CONNECTIONS:,} connections that keep a state fit {given}; a group has at most "
        f"{MAX_CONNECTIONS:,}. Narrow name, group or service, and change them in several groups."
    )


def _fits(glob: str, text: str) -> bool:
    return fnmatch.fnmatchcase(text.lower(), glob.lower())
