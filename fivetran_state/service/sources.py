"""Where a change comes from: the request itself, an earlier state, or another connection."""

from contextlib import suppress

from fivetran_state import changes, large, state
from fivetran_state.errors import InvalidChange, InvalidRequest, NothingToUndo
from fivetran_state.ids import UpdateId
from fivetran_state.plan import Wanted
from fivetran_state.service.caller import Caller
from fivetran_state.service.history import History, Past
from fivetran_state.updates.records import UpdateRequest


class Sources:
    """Reads the source of a change. Its values never pass through the caller."""

    def __init__(self, caller: Caller, history: History) -> None:
        self._caller = caller
        self._history = history

    async def read(self, connection_id: str, change: changes.Change) -> Wanted:
        """The change with its source read."""
        match change:
            case changes.Inline():
                return Wanted(change.change)
            case changes.RestoreFrom():
                return await self._restored(connection_id, change)
            case changes.CopyFrom():
                return await self._copied(change)

    async def _restored(self, connection_id: str, change: changes.RestoreFrom) -> Wanted:
        updates = await self._caller.updates()
        await self._caller.fivetran_for(connection_id)
        workflow_id = change.at
        if not await self._is_update_of(connection_id, workflow_id):
            past = await self._history.at(connection_id, change.at, what="restore_from")
            return await _from_past(past, f"{connection_id} at {change.at}", change)
        undone = await updates.store.get(workflow_id)
        if undone.status == "running":
            raise InvalidRequest(f"{workflow_id} is still running; wait for its end, or cancel it.")
        is_updated = undone.outcome is not None and undone.outcome["outcome"] == "updated"
        if not is_updated and not (
            undone.error and await updates.store.may_have_written(workflow_id)
        ):
            raise NothingToUndo(f"{workflow_id} wrote nothing, so there is nothing to undo.")
        before = await large.run(state.document, await updates.store.state_before(undone))
        if isinstance(before, state.RawDocument):
            raise InvalidChange(
                f"Before {workflow_id} there was no usable state ({before.problem}); it cannot be "
                "written back."
            )
        return Wanted(
            await large.run(_whole_or_part, before, change.only),
            source=change.source,
            undoes=workflow_id,
            undone_paths=await large.run_if(
                large.is_any(before, undone.request["change"]),
                _changed_paths,
                undone.request,
                before,
            ),
        )

    async def _is_update_of(self, connection_id: str, text: str) -> bool:
        with suppress(InvalidRequest):
            return UpdateId.parse(text).owner == await self._caller.owner(connection_id)
        return False

    async def _copied(self, change: changes.CopyFrom) -> Wanted:
        other_id = change.connection_id
        if change.at is not None:
            past = await self._history.at(other_id, change.at, what="copy_from")
            return await _from_past(past, f"{other_id} at {change.at}", change)
        fivetran = await self._caller.fivetran_for(other_id, what="copy_from")
        other, document, _ = await self._caller.read(fivetran, other_id)
        if isinstance(document, state.RawDocument):
            raise InvalidChange(f"What {other_id} has is not a usable state: {document.problem}.")
        return Wanted(
            await large.run(_whole_or_part, document, change.only),
            source=change.source,
            copied_from=other,
        )


async def _from_past(
    past: Past, where: str, change: changes.RestoreFrom | changes.CopyFrom
) -> Wanted:
    if isinstance(past.document, state.RawDocument):
        raise InvalidChange(f"The state of {where} was not usable: {past.document.problem}.")
    wanted = await large.run(_whole_or_part, past.document, change.only)
    return Wanted(wanted, source=change.source)


def _whole_or_part(source: state.State, only: str | None) -> state.Change:
    if only is None:
        return state.Change("new_state", source)
    try:
        return state.part_of(source, only)
    except state.NotThere as error:
        raise InvalidRequest(f"only: {error}") from error


def _change_of(request: UpdateRequest) -> state.Change:
    return state.parse_change(
        request["change_kind"], request["change"], exact=request["change_is_exact"]
    )


def _changed_paths(request: UpdateRequest, before: state.State) -> frozenset[str]:
    """The paths that an update itself has changed."""
    try:
        after = state.apply(_change_of(request), before)
    except (state.InvalidChange, state.InvalidState):
        return frozenset()
    return frozenset(difference.path for difference in state.differences(before, after))


def named(change: changes.Change) -> Wanted:
    """The change as it is given; its source is not read."""
    if isinstance(change, changes.Inline):
        return Wanted(change.change)
    return Wanted(state.Change("new_state", {}), source=change.source)


def unread(change: changes.Change) -> Wanted | None:
    """The change with its source unread, to look for the update it started; None without a source."""
    return None if isinstance(change, changes.Inline) else named(change)
