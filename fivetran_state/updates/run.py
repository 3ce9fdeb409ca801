"""One run of an update: what it knows, and how it waits."""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Literal, TypeVar

from dbos import DBOS

from fivetran_state import large, phases, state
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranError,
    FivetranUnavailable,
    InvalidChange,
    RateLimited,
    SyncRunning,
    Unauthorized,
)
from fivetran_state.fivetran_answers import Connection
from fivetran_state.history.recorder import Recorder
from fivetran_state.models import changes_between
from fivetran_state.phases import Phase
from fivetran_state.updates import binding
from fivetran_state.updates.records import (
    CANCEL,
    PROGRESS,
    Outcome,
    Progress,
    Snapshot,
    UpdateRequest,
    owner,
)
from fivetran_state.updates.refusals import called_off, conflict
from fivetran_state.updates.running import Running
from fivetran_state.updates.slots import Single, Slot
from fivetran_state.updates.steps import Steps
from fivetran_state.vault import Bound

T = TypeVar("T")

PATIENCE = 24 * 3600.0
"""Seconds for which a paused connection's workflow keeps trying to reach Fivetran."""
MAX_RETRY_PAUSE = 300.0
VERIFY_PATIENCE = 60.0
"""Seconds for which Fivetran may refuse to show what was written."""


class GivenUp(asyncio.CancelledError):
    """Fivetran refuses this process's key. A process with another key may go on."""


class Run:
    """One run of the workflow. Its fields are rebuilt from the checkpoints when it is recovered."""

    connection: Connection
    """As it was last seen."""
    slot: Slot | Single
    """Given back while it waits."""

    def __init__(
        self,
        workflow_id: str,
        request: UpdateRequest,
        wanted: state.Change,
        steps: Steps,
        running: Running,
        recorder: Recorder,
    ) -> None:
        self.workflow_id = workflow_id
        self.request = request
        self.connection_id = request["connection_id"]
        self.steps = steps
        self._running = running
        self._recorder = recorder
        self._notes: list[asyncio.Task[None]] = []
        self.id = uuid.uuid4().hex
        """Of this run alone: one that goes on with it, in this process or another, has its own."""
        self.wanted = wanted
        self.inspected: Snapshot | None = None
        """None as well for an update that 0.1 began."""
        self.is_settled = False
        """Whether that snapshot is still what is there, unless somebody else writes."""
        self.began_with_0_1 = False
        self.before: state.Document = {}
        self.after: state.State = {}
        """What it found and left, once that is certain."""
        self.parsed: tuple[str, state.Document] | None = None
        self.applied: tuple[state.Document, state.Applied] | None = None
        """The change, applied to the document that was found last."""
        self.has_reported = False
        self.was_paused = False
        self.by_others: Literal["paused", "resumed"] | None = None
        self.still_paused = False
        """Whether we have paused, or may have paused, a connection that was running."""
        self.cannot_be_cancelled = False
        self.is_rolling_back = False
        self.may_have_written = False
        """Whether the last write was answered so that it may have taken effect, as recorded."""
        self.has_waited = False
        """Whether Fivetran was waited for since the connection was last seen drained."""
        self.waited = 0.0
        self.between_polls = 1.0

    @property
    def may_have_paused(self) -> bool:
        """True if this run, or one before it, may have paused a running connection."""
        return hasattr(self, "connection") and not self.was_paused

    @property
    def group(self) -> str | None:
        """The update's group, if that may still call it off."""
        return None if self.cannot_be_cancelled else self.request.get("part_of")

    @property
    def is_first_run(self) -> bool:
        """True if no other run came before this one. An earlier run may have died half-way."""
        return self.inspected is not None and self.inspected["taken_by"] == self.id

    @property
    def must_go_on(self) -> bool:
        """True if a refusal must not end the update, because it may have written something unverified."""
        return self.may_have_written and not self.began_with_0_1

    def begin_roll_back(self) -> None:
        """From here on nobody can call the update off, and a sync may take its whole time to stop."""
        self.is_rolling_back = self.cannot_be_cancelled = True
        self.waited = 0.0
        self.between_polls = 1.0

    async def target(self, before: state.Document, version: str) -> state.State:
        """The state after the change; raises `Conflict` or `InvalidChange`."""
        expected = self.request["expected_version"]
        if expected is not None and not self.is_expected(expected, version):
            raise conflict(expected, version)
        if self.applied is None or self.applied[0] is not before:
            try:
                self.applied = before, await large.run(state.applied, self.wanted, before)
            except (state.InvalidChange, state.InvalidState) as error:
                raise InvalidChange(f"{error}; nothing was written.") from error
        return self.applied[1].after

    async def document_of(self, snapshot: Snapshot) -> state.Document:
        """The found state, parsed once: it may have megabytes."""
        text = snapshot["state"]
        if self.parsed is None or self.parsed[0] != text:
            self.parsed = text, await large.run(state.document, text)
        return self.parsed[1]

    def saw(self, document: state.Document, version: str, at: int | None) -> None:
        """Remember the state that was found, for the history."""
        if at is not None:
            note = self._recorder.saw(owner(self.request), document, version, at, self.connection)
            self._notes += [] if note is None else [note]

    async def wrote(self, document: state.Document, at: int | None) -> None:
        """Remember the state that this update left, for the history."""
        if at is not None:
            version = await large.run(state.version, document)
            self._notes.append(
                self._recorder.wrote(owner(self.request), document, version, at, self.workflow_id)
            )

    async def finish_notes(self) -> None:
        """Wait until the history has what this run saw and wrote.

        Otherwise a crash could lose it: a workflow that has ended does not run again.
        """
        await asyncio.gather(*self._notes)

    def is_expected(self, expected: str, version: str) -> bool:
        # Versions of 0.1 were half as long.
        return version == expected or (
            self.began_with_0_1 and len(expected) == 16 and version.startswith(expected)
        )

    def outcome(
        self,
        outcome: Literal["updated", "unchanged"],
        before: state.Document,
        after: state.State,
    ) -> Outcome:
        changes, total = changes_between(before, after)
        result = Outcome(
            outcome=outcome,
            version_before=state.version(before),
            version_after=state.version(after),
            changes=[change.model_dump(exclude_none=True) for change in changes],
            changes_total=total,
            was_paused=self.was_paused,
            deleted=False,
            connection=asdict(self.connection),
            by_others=self.by_others,
        )
        if self.applied is not None and self.applied[1].kept_total:
            result["kept_numbers"] = list(self.applied[1].kept)
            result["kept_numbers_total"] = self.applied[1].kept_total
        return result

    async def tell(self, phase: Phase, message: str, *, still_paused: bool | None = None) -> None:
        progress = Progress(
            phase=phase,
            message=message,
            was_paused=self.was_paused,
            still_paused=self.still_paused if still_paused is None else still_paused,
        )
        self._running.progress[self.workflow_id] = progress
        place = binding.event_of(self.workflow_id, PROGRESS)
        await DBOS.set_event_async(PROGRESS, Bound(place, progress))

    def reached(self, step: str) -> None:
        """Set the progress for callers in this process; other processes read the recorded steps."""
        phase, message = phases.AFTER[step]
        self._running.progress[self.workflow_id] = Progress(
            phase=phase,
            message=message,
            was_paused=self.was_paused,
            still_paused=self.still_paused,
        )

    async def sleep(self, seconds: float) -> None:
        """Sleep durably; raises `Cancelled` as soon as somebody cancels, if nothing was written."""
        async with self.slot.given_back():
            await self._sleep(seconds)

    async def _sleep(self, seconds: float) -> None:
        if self.cannot_be_cancelled:
            await DBOS.sleep_async(seconds)
            return
        self._running.asleep.add(self.workflow_id)
        try:
            cancel = await binding.receive(CANCEL, seconds)
        finally:
            self._running.asleep.discard(self.workflow_id)
        if cancel is not None:
            raise called_off(cancel)

    async def durably(
        self,
        step: Callable[[int], Awaitable[T]],
        *,
        patience: float = PATIENCE,
        limit_patience: float = PATIENCE,
        even_if: type[FivetranError] = FivetranUnavailable,
        refusal_patience: float = VERIFY_PATIENCE,
        another_key_may: tuple[type[FivetranError], ...] = (),
    ) -> T:
        """Run a step until Fivetran answers it, sleeping durably in between, for `patience` seconds.

        A rate limit may last up to `limit_patience`: Fivetran says when it ends. A refusal, if it is
        waited for, may last up to `refusal_patience`. If another key may succeed, the update is given up
        for a process that has one.
        """
        waited = 0.0
        attempt = refused = 0
        while True:
            try:
                async with self.slot.step():
                    return await step(attempt)
            except FivetranError as error:
                gives_up = isinstance(error, another_key_may) or (
                    isinstance(error, Unauthorized) and (self.must_go_on or self.is_rolling_back)
                )
                is_expected = isinstance(error, (RateLimited, even_if))
                # The caller handles these: it waits for a sync, and gives up a connection that is gone.
                is_callers = isinstance(error, ConnectionNotFound) or (
                    isinstance(error, SyncRunning) and not is_expected
                )
                if is_callers or not (gives_up or is_expected or self.must_go_on):
                    raise
                if gives_up:
                    pause, allowed = 1.0, math.inf
                elif isinstance(error, RateLimited):
                    pause = max(error.details["retry_after"], 1.0)
                    allowed = limit_patience
                else:
                    pause = min(2.0 ** min(attempt - refused, 10), MAX_RETRY_PAUSE)
                    is_outage = isinstance(error, FivetranUnavailable)
                    allowed = patience if is_outage else refusal_patience
                if waited + pause > allowed:
                    raise
                paused = "; the connection is still paused" if self.still_paused else ""
                why = error.message.removesuffix(".")
                await self.tell("wait", f"{why}. Trying again in {pause:g} s{paused}.")
                if gives_up and error.is_live:
                    raise GivenUp from error
                await self.sleep(pause)
                self.has_waited = True
                waited += pause
                attempt += 1
                refused += gives_up
