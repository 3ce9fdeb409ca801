"""The progress and the end of a group, as its callers see them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from fivetran_state.errors import Cancelled, FivetranStateError
from fivetran_state.models import GroupState, MemberPlan, UpdatesView
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.updates import statuses
from fivetran_state.updates.ends import End, error_of
from fivetran_state.updates.groups import Status

SHOWN_UPDATES = 100
LOOK_SECONDS = 1.0
"""Seconds between two looks at a group that somebody follows."""


@dataclass(frozen=True)
class GroupProgress:
    """How far a running group is."""

    done: int
    total: int
    message: str


OnLook = Callable[[GroupProgress], Awaitable[None]]


class GroupFollower:
    """Follows the groups of one account."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def status(self, workflow_id: str, wait_seconds: float) -> Status:
        await self._caller.check_group(workflow_id)
        updates = await self._caller.updates()
        return await updates.groups.follow(
            workflow_id, (await self._caller.account()).id, wait_seconds
        )

    async def follow(self, workflow_id: str, wait_seconds: float, on_look: OnLook | None) -> Status:
        """Wait for the end, at most `wait_seconds`; `on_look` gets the progress meanwhile."""
        if on_look is None:
            return await self.status(workflow_id, wait_seconds)
        now = asyncio.get_running_loop().time
        deadline = now() + wait_seconds
        found = await self.status(workflow_id, 0)
        while not found.has_ended:
            await on_look(_progress(found))
            left = deadline - now()
            if left <= 0:
                break
            found = await self.status(workflow_id, min(left, LOOK_SECONDS))
        return found

    async def answer(self, workflow_id: str, found: Status) -> UpdatesView:
        """The answer of `update_states`; raises the group's error if it changed nothing."""
        view = await self.view(workflow_id, found)
        if found.error is not None and found.mode == "all_or_nothing":
            found.error.details |= {
                "workflow_id": workflow_id,
                "updates": [update.to_json() for update in view.updates],
            }
            raise found.error
        return view

    async def task(self, workflow_id: str) -> views.Task[UpdatesView]:
        """The group with the present answer of `update_states`."""
        found = await self.status(workflow_id, 0)
        updates = await self._caller.updates()
        row = await updates.store.bare_status(workflow_id)
        assert row is not None, "it was just found"
        answer: UpdatesView | FivetranStateError
        try:
            answer = await self.answer(workflow_id, found)
        except FivetranStateError as error:
            answer = error
        return views.group_task(
            workflow_id,
            answer,
            created_at=statuses.created_at(row),
            completed_at=row.completed_at if found.has_ended else None,
            retention_days=self._caller.settings.retention_days,
        )

    async def view(self, workflow_id: str, found: Status) -> UpdatesView:
        """Bounded: the failures and the running updates come first if there are many."""
        updates = await self._caller.updates()
        ids = _most_telling(found)
        shown = await updates.groups.members(workflow_id, ids)
        counts = _counts(found)
        return UpdatesView(
            workflow_id=workflow_id,
            status=_status_of(found),
            message=_message(found, counts),
            mode=found.mode,
            total=len(found.members),
            counts=dict(sorted(counts.items())),
            updates=[
                views.update(shown[id_].update, shown[id_].steps) for id_ in ids if id_ in shown
            ],
            not_started=not_started(found.ends.values()),
            error=None if found.error is None else views.failure(found.error),
        )


def _progress(found: Status) -> GroupProgress:
    counts = _counts(found)
    total = len(found.members)
    return GroupProgress(total - _open(counts), total, _message(found, counts))


def _counts(found: Status) -> Counter[str]:
    return Counter(
        end["how"] if (end := found.ends.get(id_)) else _how_far(id_, found)
        for id_ in found.members
    )


def _open(counts: Mapping[str, int]) -> int:
    """The number of connections that have not ended."""
    return counts.get("running", 0) + counts.get("waiting", 0)


def _most_telling(found: Status) -> list[str]:
    """The ids of the updates to show: all in order, or of many those that failed or run."""
    ids = [found.started[id_] for id_ in found.members if id_ in found.started]
    if len(ids) <= SHOWN_UPDATES:
        return ids
    ended = {end["workflow_id"]: end for end in found.ends.values()}

    def weight(workflow_id: str) -> int:
        end = ended.get(workflow_id)
        return 1 if end is None else 2 if end["message"] is None else 0

    return sorted(ids, key=weight)[:SHOWN_UPDATES]


def _message(found: Status, counts: Mapping[str, int]) -> str:
    total = len(found.members)
    done = f"{counts.get('updated', 0):,} of {total:,} connections were changed."
    if not found.has_ended:
        return (
            f"{total - _open(counts):,} of {total:,} connections are done. Follow it with "
            "workflow_status. It goes on by itself, even if this server stops."
        )
    if unchanged := counts.get("unchanged", 0):
        done += f" {unchanged:,} were as they should be."
    return done if found.error is None else f"{done} {found.error.message}"


def _how_far(connection_id: str, found: Status) -> str:
    return "running" if connection_id in found.started else "waiting"


def _status_of(found: Status) -> GroupState:
    if not found.has_ended:
        return "running"
    if found.error is None:
        return "updated"
    if any(end["how"] == "updated" for end in found.ends.values()):
        return "partly_updated"
    return "cancelled" if isinstance(found.error, Cancelled) else "failed"


def not_started(ends: Iterable[End]) -> list[MemberPlan] | None:
    """The first connections without an update that failed."""
    found = [
        MemberPlan(connection_id=end["connection_id"], error=views.failure(error))
        for end in ends
        if end["workflow_id"] is None and (error := error_of(end)) is not None
    ]
    return found[:SHOWN_UPDATES] or None
