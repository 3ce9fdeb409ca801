"""Every effect of an update on Fivetran, each a step that DBOS records.

A step may run twice (a crash between its effect and its record), so each one that changes something
looks before it repeats itself. DBOS stores the names: a new name needs a new application version.
"""

import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from dbos import DBOS

from fivetran_state import large, state
from fivetran_state.errors import (
    Cancelled,
    Conflict,
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    FivetranUnavailable,
    Forbidden,
    RateLimited,
    SyncRunning,
    Unauthorized,
)
from fivetran_state.events import Name
from fivetran_state.fivetran import Fivetran
from fivetran_state.fivetran_answers import Connection
from fivetran_state.updates import binding
from fivetran_state.updates.records import (
    GROUP,
    OUTSIDE,
    Inspection,
    Readback,
    Snapshot,
    Written,
)
from fivetran_state.updates.refusals import called_off
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.slots import Single, Slot
from fivetran_state.updates.telling import Telling, told

MAX_AGE = 24 * 3600.0
"""Seconds after which a request is not begun any more."""

_CONTRADICTION = "Fivetran answered 404, but still shows the connection."


class Steps:
    """The steps of one running update, with its account's client."""

    def __init__(
        self, connection_id: str, fivetran: Fivetran, runtime: Runtime, telling: Telling
    ) -> None:
        self.telling = telling
        self._connection_id = connection_id
        self._fivetran = fivetran
        self._lease = runtime.lease
        self._running = runtime.running
        self._store = runtime.store
        self._decisions = runtime.decisions

    @binding.step("inspect")
    @told(Name.INSPECTED, "inspect")
    async def inspect(
        self, run: str, in_order: bool, asked_at: float | None, group: str | None
    ) -> dict[str, Any]:
        """An `Inspection`; 0.1 recorded the connection alone.

        Raises `Cancelled` for a request of an earlier day (someone may have put it back), and for one
        of a group that was called off.

        `in_order`: the connection first, so that a paused one need not be read again before the write.
        """
        self.telling.tell(Name.STARTED)
        self._decisions.check(group)
        if asked_at is not None and time.time() > asked_at + MAX_AGE:
            raise Cancelled("The update was asked for more than a day ago. Nothing was written.")
        fivetran = self._fivetran
        if in_order:
            connection = await fivetran.get_connection(self._connection_id)
            document = await fivetran.get_state_or_none(connection)
        else:
            connection, document = await fivetran.get_connection_and_state(self._connection_id)
        return dict(
            Inspection(
                connection=asdict(connection),
                snapshot=None if document is None else await large.run(_taken, document, run),
                is_settled=in_order and connection.is_drained,
            )
        )

    @binding.step("pause")
    @told(Name.PAUSED, "pause", lambda found: not found["was_paused"])
    async def pause(
        self, *, look: bool, is_first_run: bool, can_be_cancelled: bool, group: str | None
    ) -> dict[str, Any]:
        """`connection`, and whether it `was_paused` already, by somebody else; 0.1 recorded the
        connection alone."""
        try:
            self._decisions.check(group)
            if can_be_cancelled and not is_first_run:
                [cancel] = await self._store.is_cancelled(DBOS.workflow_id or "")
                if cancel:
                    raise called_off(cancel)
            if look:
                connection = await self._fivetran.get_connection(self._connection_id)
                if connection.paused:
                    return {"connection": asdict(connection), "was_paused": True}
            return {"connection": asdict(await self.set_paused(True)), "was_paused": False}
        except FivetranStateError as error:
            # An earlier run may have paused it and died before it recorded that.
            if not is_first_run:
                error.details["maybe_applied"] = True
            raise

    @binding.step("drain")
    @told(Name.DRAINED, "drain", lambda found: Connection(**found).is_drained)
    async def drain(self, group: str | None) -> dict[str, Any]:
        self._decisions.check(group)
        return asdict(await self._fivetran.get_connection(self._connection_id))

    @binding.step("snapshot")
    @told(Name.READ, "snapshot")
    async def snapshot(self, run: str) -> Snapshot:
        return await large.run(_taken, await self._fivetran.get_state(self._connection_id), run)

    @binding.step("write")
    @told(Name.WRITTEN, "write")
    async def write(
        self,
        target: state.State,
        snapshot: Snapshot,
        part_of: str | None,
        *,
        look: bool,
        has_tried: bool,
    ) -> Written:
        """Write the target, after a look if much may have happened since the snapshot.

        `has_tried`: perhaps it has been written already. If the look fails, the error says so.
        """
        if look:
            try:
                await self._insist_on_drained()
                current = await self._fivetran.get_state(self._connection_id)
            except FivetranError as error:
                error.details["maybe_applied"] = has_tried or None
                raise
            if await large.run(state.same, current, target):
                return Written(answer=None)
            found = await large.run(state.document, snapshot["state"])
            if not await large.run(state.same, current, found):
                version = await large.run(state.version, current)
                raise Conflict(
                    f"The state became version {version} during the update; it was left as it is.",
                    current_version=version,
                )
        self._decisions.check(part_of)
        group = [] if part_of is None else [part_of]
        cancel, *cancel_of_group = await self._store.is_cancelled(DBOS.workflow_id or "", *group)
        if cancel:
            raise called_off(cancel)
        if any(cancel_of_group):
            raise called_off(OUTSIDE if OUTSIDE in cancel_of_group else GROUP)
        answer = await self._set_state(target)
        if answer is None or await large.run(state.same, answer, target):
            return Written(answer=None)
        return Written(answer=await large.run(state.dump, answer))

    @binding.step("verify")
    @told(Name.VERIFIED, "verify", lambda found: found["is_as_written"])
    async def verify(self, expected: state.State) -> Readback:
        """Read the state back. 0.1 recorded only a boolean."""
        try:
            found = await self._fivetran.get_state(self._connection_id)
        except ConnectionNotFound as error:
            await self._fivetran.get_connection(self._connection_id)
            raise FivetranUnavailable(_CONTRADICTION) from error
        if await large.run(state.same, found, expected):
            return Readback(is_as_written=True, found=None, at=_now())
        text = await large.run(state.dump, found)
        return Readback(is_as_written=False, found=text, at=_now())

    @binding.step("verdict")
    async def verdict(self, group: str, slot: Slot | Single) -> str:
        """Wait for the decision of the update's group, without the slot: `KEEP` or `UNDO`."""
        # Within the step: all members hear it at once, and each records it when its turn comes.
        async with slot.given_back():
            return (await self._decisions.of(group)).value

    @binding.step("roll_back")
    @told(Name.ROLLED_BACK, "roll_back")
    async def roll_back(self, before: state.State, kept: str | None) -> None:
        """Put the state from before back over `kept`, and over nothing else."""
        ours = None if kept is None else await large.run(state.document, kept)
        await self._put_back(before, ours)

    @binding.step("undo")
    @told(Name.UNDONE, "undo")
    async def undo(self, before: state.State, target: state.State) -> None:
        await self._put_back(before, target)

    async def _put_back(self, before: state.State, ours: state.Document | None) -> None:
        await self._insist_on_drained()
        current = await self._fivetran.get_state(self._connection_id)
        if await large.run(state.same, current, before):
            return
        if ours is None or not await large.run(state.same, current, ours):
            raise Conflict("Somebody has changed the state meanwhile; it was left as it is.")
        await self._set_state(before)

    @binding.step("resume")
    @told(Name.RESUMED, "resume")
    async def resume(self) -> dict[str, Any]:
        """Resume the connection and return it. 0.1 recorded nothing."""
        return asdict(await self.set_paused(False))

    @binding.step("sync")
    @told(Name.SYNC_STARTED, "sync")
    async def start_sync(self) -> None:
        await self._lease.prove(DBOS.workflow_id or "")
        with suppress(SyncRunning):  # Then one is running already.
            await self._fivetran.start_sync(self._connection_id)

    async def set_paused(self, paused: bool) -> Connection:
        """Pause or resume. Look after an error: Fivetran may fail a pause that took effect."""
        await self._lease.prove(DBOS.workflow_id or "")
        try:
            with self._running.change(DBOS.workflow_id or ""):
                return await self._fivetran.set_paused(self._connection_id, paused)
        except (RateLimited, Unauthorized):
            raise
        except FivetranError as error:
            if paused and isinstance(error, Forbidden):
                raise
            try:
                connection = await self._fivetran.get_connection(self._connection_id)
            except ConnectionNotFound:
                raise
            except FivetranError as unseen:
                if not paused and isinstance(unseen, (Unauthorized, Forbidden)):
                    raise  # Another key may resume it. A second try is harmless.
                raise FivetranUnavailable(
                    f"It is unclear whether the connection is paused: {unseen.message}",
                    maybe_applied=True,
                ) from error
            if connection.paused == paused:
                return connection
            if isinstance(error, ConnectionNotFound):
                raise FivetranUnavailable(_CONTRADICTION) from error
            raise

    async def _insist_on_drained(self) -> None:
        """Raise `SyncRunning` if somebody has resumed the connection meanwhile."""
        connection = await self._fivetran.get_connection(self._connection_id)
        if not connection.is_drained:
            raise SyncRunning(
                "The connection was resumed during the update.",
                was_resumed=not connection.paused or None,
            )

    async def _set_state(self, document: state.State) -> state.Document | None:
        await self._lease.prove(DBOS.workflow_id or "")
        with self._running.change(DBOS.workflow_id or ""):
            return await self._fivetran.set_state(self._connection_id, document)


def _taken(document: state.Document, run: str) -> Snapshot:
    return Snapshot(
        state=state.dump(document), version=state.version(document), taken_by=run, at=_now()
    )


def _now() -> int:
    return time.time_ns() // 1_000_000
