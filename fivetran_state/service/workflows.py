"""The updates that were made: one, those of a connection, or all."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from typing_extensions import TypedDict, Unpack

from fivetran_state import large
from fivetran_state.errors import (
    FivetranError,
    NotAllowed,
    Tampered,
    UnusableKey,
    WorkflowNotFound,
)
from fivetran_state.ids import UpdateId, is_update_number
from fivetran_state.models import Since, Update, WorkflowPage, WorkflowView
from fivetran_state.service import views
from fivetran_state.service.caller import Caller
from fivetran_state.service.changes import OnProgress, ignore
from fivetran_state.service.connections import MAX_PAGES_SEARCHED
from fivetran_state.service.refusals import not_a_cursor
from fivetran_state.service.times import milliseconds
from fivetran_state.updates import groups, records
from fivetran_state.updates.reader import READ_BATCH
from fivetran_state.updates.updates import Updates


@dataclass(frozen=True)
class Unfinished:
    """Updates and groups that have not ended. `total` counts all of the updates."""

    updates: list[WorkflowView]
    groups: list[str]
    total: int


@dataclass(frozen=True)
class Which:
    """A choice of updates: those that fit all that is given. Times are milliseconds since the epoch."""

    status: str | None = None
    asked_by: str | None = None
    since: int | None = None
    until: int | None = None
    """The first moment after the last one."""

    @property
    def is_any(self) -> bool:
        return self == Which()

    def is_past(self, update: records.Update) -> bool:
        """True if neither this update nor an older one was started late enough."""
        return self.since is not None and update.created_at < self.since

    def fits(self, update: records.Update) -> bool:
        view = views.summary(update)
        return (
            self.status in (None, view.status)
            and self.asked_by in (None, view.asked_by)
            and (self.since is None or update.created_at >= self.since)
            and (self.until is None or update.created_at < self.until)
        )


class Choice(TypedDict, total=False):
    """Chooses updates, in texts of a caller: their status, who asked, and when they started."""

    status: str | None
    asked_by: str | None
    since: str | None
    until: str | None


def _which(choice: Choice) -> Which:
    """Raises `InvalidRequest`."""
    since, until = choice.get("since"), choice.get("until")
    return Which(
        status=choice.get("status"),
        asked_by=choice.get("asked_by"),
        since=None if since is None else milliseconds(since, "since"),
        until=None if until is None else milliseconds(until, "until"),
    )


_SEARCHED = "Only a part of the updates was searched: older ones may fit. Go on with next_cursor."


class Workflows:
    """Shows the updates of one account."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def workflow_status(
        self, workflow_id: str, *, wait_seconds: float = 0, on_progress: OnProgress = ignore
    ) -> WorkflowView:
        """One update: its progress, its steps and its end."""
        updates = await self._caller.updates()
        update = await self.follow(workflow_id, wait_seconds, on_progress)
        steps = await updates.store.steps(workflow_id)
        return views.workflow(update, steps, await self._since(update))

    async def follow(
        self, workflow_id: str, wait_seconds: float, on_progress: OnProgress = ignore
    ) -> records.Update:
        """Wait until the update ends, at most `wait_seconds`. Leaving earlier does not stop it."""
        updates = await self._caller.updates()
        await self._caller.check_update(workflow_id)
        update = await updates.store.get(workflow_id)
        if update.status == "running" and wait_seconds:
            await updates.followers.follow(
                await updates.starter.find(workflow_id), wait_seconds, on_progress
            )
            update = await updates.store.get(workflow_id)
        return update

    async def unfinished(self, limit: int = 50) -> Unfinished:
        """The updates and groups that run now, the first `limit` of each with their progress."""
        updates = await self._caller.updates()
        account = (await self._caller.account()).id
        ids = sorted(await updates.unfinished.ids())
        group_ids = [id_ for id_ in ids if groups.is_of(id_, account)]
        update_ids = [
            id_
            for id_ in ids
            if not groups.is_id(id_) and self._caller.may_see(UpdateId.parse(id_), account)
        ]
        found = await updates.listings.by_ids(update_ids[:limit])
        running = []
        for update in found:
            progress = await updates.store.progress(update.workflow_id)
            steps = await updates.store.steps(update.workflow_id)
            running.append(views.workflow(replace(update, progress=progress), steps))
        running.sort(key=lambda view: view.started_at)
        return Unfinished(
            updates=[view for view in running if view.status == "running"],
            groups=group_ids[:limit],
            total=len(update_ids),
        )

    async def may_see(self, workflow_id: str) -> bool:
        """True if the update is this account's, and of a connection that is allowed."""
        return self._caller.may_see(UpdateId.parse(workflow_id), (await self._caller.account()).id)

    async def _since(self, update: records.Update) -> Since | None:
        """What has happened since the update; None if Fivetran does not answer."""
        if update.outcome is None or update.outcome["deleted"]:
            return None
        connection_id = update.request["connection_id"]
        try:
            fivetran = await self._caller.fivetran_for(connection_id)
            connection, document = await fivetran.get_connection_and_state(connection_id)
        except FivetranError:
            return None
        is_large = document is not None and large.is_any(document)
        return await large.run_if(is_large, views.since, update.outcome, connection, document)

    async def task(self, workflow_id: str) -> views.Task[Update]:
        """One update with the present answer of `update_state`."""
        updates = await self._caller.updates()
        await self._caller.check_update(workflow_id)
        update = await updates.store.get(workflow_id)
        return views.task(
            update, await updates.store.steps(workflow_id), self._caller.settings.retention_days
        )

    async def list_workflows(
        self,
        connection_id: str,
        *,
        cursor: str | None = None,
        limit: int = 20,
        **choice: Unpack[Choice],
    ) -> WorkflowPage:
        """The connection's updates, newest first. Pages are stable: numbers only count up.

        A choice is a search through a bounded number of updates: a page may have fewer of them than
        `limit`, and still a `next_cursor`.
        """
        which = _which(choice)
        updates = await self._caller.updates()
        fivetran = await self._caller.fivetran_for(connection_id)
        if cursor is not None and not is_update_number(cursor):
            raise not_a_cursor(cursor)
        below = None if cursor is None else int(cursor)
        owner = await self._caller.owner(connection_id)
        batch = limit if which.is_any else max(limit, READ_BATCH)
        found: list[records.Update] = []
        for _ in range(1 if which.is_any else MAX_PAGES_SEARCHED):
            page = await updates.listings.history(owner, below, batch)
            if not page and below is None:
                await fivetran.get_connection(connection_id)
                return WorkflowPage(workflows=[], message=self._covered())
            if not page:
                below = 1
            for update in page:
                below = UpdateId.parse(update.workflow_id).number
                if which.is_past(update):
                    below = 1
                elif which.fits(update):
                    found.append(update)
                if below == 1 or len(found) == limit:
                    break
            if below == 1 or len(found) == limit:
                break
        is_end = below == 1
        return WorkflowPage(
            workflows=[views.summary(update) for update in found],
            next_cursor=None if is_end else str(below),
            message=None if is_end or len(found) == limit or which.is_any else _SEARCHED,
        )

    def _covered(self) -> str:
        """The message of an empty history."""
        days = self._caller.settings.retention_days
        kept = f" of the last {days:g} days" if days else ""
        return (
            f"There are no updates{kept}. Listed are the updates that were made through this server's "
            "database, not syncs or changes made by other means."
        )

    async def list_all_workflows(
        self, *, cursor: str | None = None, limit: int = 20, **choice: Unpack[Choice]
    ) -> WorkflowPage:
        """The updates of all the account's connections, newest first.

        What is read is bounded, and what this caller may not see, or did not choose, is left out of
        it. So a page may have fewer updates than `limit`, and still a `next_cursor`. Our cursor is the
        last update that was read, so new updates do not move the pages. It is sealed, because that
        update may belong to somebody else.
        """
        which = _which(choice)
        updates = await self._caller.updates()
        account = (await self._caller.account()).id
        at = None if which.until is None else (which.until, "")
        if cursor is not None:
            at = _moment(updates, cursor)
        found: list[records.Update] = []
        for _ in range(MAX_PAGES_SEARCHED):
            page = await self._older(updates, account, at, max(limit, READ_BATCH), which)
            is_end, is_full = not page, False
            for update in page:
                is_end, is_full = which.is_past(update), len(found) == limit
                if is_end or is_full:
                    break
                at = (update.created_at, update.workflow_id)
                id_ = UpdateId.parse(update.workflow_id)
                if self._caller.may_see(id_, account) and which.fits(update):
                    found.append(update)
            if is_end:
                at = None
            if is_end or is_full:
                break
        is_whole = at is None or len(found) == limit or which.is_any
        return WorkflowPage(
            workflows=[views.summary(update) for update in found],
            next_cursor=None if at is None else updates.texts.seal(at),
            message=None if is_whole else _SEARCHED,
        )

    async def _older(
        self,
        updates: Updates,
        account: str | None,
        at: tuple[int, str] | None,
        limit: int,
        which: Which,
    ) -> list[records.Update]:
        """Some updates that were started before `at`, newest first; empty if there are no more."""
        if which.status != "running":
            return await updates.listings.page(account, at, limit)
        # The database finds what has not ended at once, however long ago it was started.
        running = [id_ for id_ in await updates.unfinished.ids() if not groups.is_id(id_)]
        return await updates.listings.page_of(running, at, limit)

    async def last_ended(self, connection_id: str) -> int:
        """The number of the connection's last update that has ended; 0 if none has."""
        updates = await self._caller.updates()
        await self._caller.fivetran_for(connection_id)
        return await updates.listings.last_ended(await self._caller.owner(connection_id))

    async def ended_since(self, last_ended: Mapping[str, int]) -> dict[str, int]:
        """The number of each connection's next update, for those where it has ended."""
        updates = await self._caller.updates()
        return await updates.listings.ended_since(last_ended)

    async def newest_workflow_ids(self, prefix: str, limit: int) -> list[str]:
        """The newest `limit` ids with this prefix, without those this caller may not see.

        Those of groups come first, unless the prefix is empty.
        """
        updates = await self._caller.updates()
        account = (await self._caller.account()).id
        whole = prefix if account is None else f"{account}/{prefix}"
        found = await updates.listings.newest(whole, limit)
        beginning = groups.id_beginning(prefix, account)
        if whole and beginning is not None:
            found = await updates.listings.newest_groups(beginning, limit) + found
        return [id_ for id_ in found[:limit] if await self._may_see(id_, account)]

    async def _may_see(self, workflow_id: str, account: str | None) -> bool:
        if not groups.is_id(workflow_id):
            return self._caller.may_see(UpdateId.parse(workflow_id), account)
        if self._caller.settings.allowed_connections == "*":
            return groups.is_of(workflow_id, account)
        with suppress(NotAllowed, Tampered, UnusableKey, WorkflowNotFound):
            await self._caller.check_group(workflow_id)
            return True
        return False


def _moment(updates: Updates, cursor: str) -> tuple[int, str]:
    """The start time and the id of an update."""
    try:
        created_at, workflow_id = cast(Any, updates.texts.unseal(cursor))
        return int(created_at), str(workflow_id)
    except (UnusableKey, TypeError, ValueError):
        raise not_a_cursor(cursor) from None
