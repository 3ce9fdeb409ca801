"""The update workflow: the steps that change a connection's state, and nothing else.

inspect → pause → drain → snapshot → write → verify → resume (→ sync)

Each step is checkpointed by DBOS, so that whichever process recovers the workflow goes on where
the last one stopped. A step may run twice (a crash between its effect and its checkpoint), so
each one that changes something looks before it repeats itself. Once the connection is paused,
every way out leads through resume.

Updates that version 0.1 began are told by what their first step recorded: the connection alone.
"""

import asyncio
import hashlib
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal, TypeVar, cast

from dbos import DBOS, SetWorkflowID
from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from fivetran_state import large, state
from fivetran_state.errors import (
    Cancelled,
    Conflict,
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    FivetranUnavailable,
    Forbidden,
    InternalError,
    InvalidChange,
    LeftPaused,
    MissingCredentials,
    NoStateYet,
    RateLimited,
    RollbackFailed,
    SyncRunning,
    SyncStillRunning,
    Tampered,
    Unauthorized,
    Undone,
    VerificationFailed,
)
from fivetran_state.fivetran import Connection, Fivetran
from fivetran_state.models import changes_between
from fivetran_state.updates import binding, phases
from fivetran_state.updates.phases import Phase
from fivetran_state.updates.records import (
    CANCEL,
    NAME,
    PROGRESS,
    REMEMBER_KEY,
    STARTED,
    UNFINISHED,
    Inspection,
    Outcome,
    Progress,
    Readback,
    Snapshot,
    Sync,
    UpdateRequest,
    Written,
    owner,
)
from fivetran_state.updates.refusals import (
    cancelled,
    conflict,
    described_differences,
    left_as_it_is,
    refuse_impossible_sync,
    refuse_pending_resync,
    state_not_kept,
)
from fivetran_state.vault import Bound

T = TypeVar("T")
logger = logging.getLogger(__name__)
DONE, VERDICT, KEEP, UNDO = "done", "verdict", "keep", "undo"
"""Messages between a group and its members."""
PATIENCE = 24 * 3600.0
"""Seconds for which a paused connection's workflow keeps trying to reach Fivetran."""
MAX_RETRY_PAUSE = 300.0
VERIFY_PATIENCE = 60.0
"""Seconds for which Fivetran may refuse to show what was written."""
SYNC_PATIENCE = 30.0
"""Seconds for which the start of a sync is tried."""
_CONTRADICTION = "Fivetran answered 404, but still shows the connection."
_own: Fivetran | None
_guest: ContextVar[Fivetran] = ContextVar("_guest")
"""The client of the running update, for a guest's account."""
_open: Callable[[str | None, str | None, str | None], Fivetran]
_prove: Callable[[str], Awaitable[None]]
_is_cancelled: Callable[[str], Awaitable[bool | str]]
_release: Callable[[str], Awaitable[None]]
application_name: str
"""The DBOS application of this process: one for each Fivetran account."""


def bind(
    fivetran: Fivetran | None,
    application: str,
    open_: Callable[[str | None, str | None, str | None], Fivetran],
    prove: Callable[[str], Awaitable[None]],
    is_cancelled: Callable[[str], Awaitable[bool | str]],
    release: Callable[[str], Awaitable[None]],
) -> None:
    """Give this process's workflows what they need; before DBOS is launched.

    `open_` makes a client from an account and its sealed credentials. `prove` is awaited with the
    workflow's id before each call that changes something: it returns if the workflow is still this
    process's to run, and never otherwise. `is_cancelled` tells whether somebody has cancelled the
    workflow (`OUTSIDE`: in the database). `release` lets other processes take the workflow over.
    """
    global _own, application_name, _open, _prove, _is_cancelled, _release
    _own, application_name = fivetran, application
    _open, _prove, _is_cancelled, _release = open_, prove, is_cancelled, release


def _fivetran() -> Fivetran:
    client = _guest.get(_own)
    if client is None:
        raise MissingCredentials("This server has no credentials of its own.")
    return client


@asynccontextmanager
async def _account_of(request: UpdateRequest) -> AsyncIterator[None]:
    """Run the steps inside with the client of the request's account."""
    account, credentials = request.get("account"), request.get("credentials")
    if account is None and credentials is None:
        yield
        return
    client = _open(account, credentials, DBOS.workflow_id)
    token = _guest.set(client)
    try:
        yield
    finally:
        _guest.reset(token)
        await client.aclose()


@DBOS.workflow(name=REMEMBER_KEY, max_recovery_attempts=None)
async def remember_key(workflow_id: Bound) -> None:
    """Do nothing: the row itself maps an idempotency key to its update."""


async def remember(row_id: str, workflow_id: str | None) -> None:
    """Store a workflow's id in a row with the id `row_id`, unless that row exists."""
    place = binding.input_of(row_id, REMEMBER_KEY)
    with SetWorkflowID(row_id):
        await DBOS.start_workflow_async(remember_key, Bound(place, workflow_id))


def key_row_id(request: UpdateRequest) -> str:
    """The workflow id under which an update remembers the idempotency key it was given."""
    # Accounts may have connections of the same name, and share a database.
    whose = f"{application_name}\n{request['idempotency_key']}"
    return f"key:{owner(request)}:{hashlib.sha256(whose.encode()).hexdigest()}"


running: dict[str, Progress] = {}
"""The progress of each update that this process runs."""
tasks: dict[str, asyncio.Task[Any]] = {}
"""Their tasks."""
changing: set[str] = set()
"""Updates with a changing call under way, which must not be broken off."""
unsettled: dict[str, UpdateRequest] = {}
"""Updates that lost their row in the database while they may hold the connection paused."""


class GivenUp(asyncio.CancelledError):
    """Fivetran refuses this process's key. A process with another key may go on."""


@DBOS.workflow(name=NAME, max_recovery_attempts=None)
async def update_state(request: Bound) -> Bound:
    """Apply one change to one connection's state; raise a `FivetranStateError` if that fails.

    Takes an `UpdateRequest` and returns an `Outcome`. In the end the connection
    is paused if it was before, or as somebody else has left it meanwhile.
    """
    workflow_id = DBOS.workflow_id or ""
    with binding.bound_errors(binding.output_of(workflow_id)):
        asked: UpdateRequest = binding.opened(request, binding.input_of(workflow_id, NAME))
        return Bound(binding.output_of(workflow_id), await _run_here(asked))


async def _run_here(request: UpdateRequest) -> Outcome:
    with running_here():
        async with _account_of(request):
            wanted = await large.run(
                state.parse_change,
                request["change_kind"],
                request["change"],
                request["change_is_exact"],
            )
            update = _Update(request, wanted)
            try:
                return await _run_or_resume(update)
            except GivenUp:
                with suppress(SQLAlchemyError):
                    await _release(DBOS.workflow_id or "")
                raise
            except FivetranStateError:
                raise
            except BaseException:
                # The row may be gone, or belong to another run: the engine looks.
                if update.may_have_paused:
                    unsettled[DBOS.workflow_id or ""] = request
                raise


async def _run_or_resume(update: "_Update") -> Outcome:
    """Run the update. Resume the connection even if DBOS refuses to go on with the workflow."""
    try:
        return await _run(update)
    except Tampered:
        await update.resume_unrecorded()
        raise
    except (FivetranStateError, SQLAlchemyError):
        raise
    except Exception as error:
        # DBOS refuses to go on, so nothing can be recorded.
        failure = _unexpected(error)
        await update.resume_unrecorded()
        raise failure from error


async def mend(request: UpdateRequest) -> None:
    """Resume the connection of an update that cannot go on."""
    async with _account_of(request):
        await _insist_on_resuming(lambda: _fivetran().set_paused(request["connection_id"], False))


@contextmanager
def running_here() -> Iterator[None]:
    """Count the workflow as running in this process."""
    workflow_id = DBOS.workflow_id or ""
    running[workflow_id] = STARTED
    task = asyncio.current_task()
    if task is not None:
        tasks[workflow_id] = task
    try:
        yield
    except SQLAlchemyError as error:
        # Not an outcome, so it must not be recorded as one (as in `vault`): without the database
        # nothing can be promised. The engine finds the workflow and runs it again.
        logger.exception("The database failed", extra={"workflow_id": workflow_id})
        raise asyncio.CancelledError from error
    except FivetranStateError as error:
        logger.warning("%s ended with %s", workflow_id, error, extra={"workflow_id": workflow_id})
        raise
    finally:
        running.pop(workflow_id, None)
        tasks.pop(workflow_id, None)


async def _run(update: "_Update") -> Outcome:
    request = update.request
    if request["key_was_given"]:
        await remember(key_row_id(request), DBOS.workflow_id)
    try:
        await update.inspect()
        outcome = await update.unchanged()
        if outcome is not None:
            await update.report(DONE)
            return outcome
    except FivetranStateError as error:
        await update.report(error.code)
        raise
    try:
        outcome = await update.change()
        await update.report(DONE)
        if "part_of" in request:
            await update.wait_for_the_others()
    except (SQLAlchemyError, Tampered):
        raise  # A forged step must not be followed by another step.
    except Exception as error:
        failure = error if isinstance(error, FivetranStateError) else _unexpected(error)
        failure.details.setdefault("was_paused", update.was_paused)
        failure.details.setdefault("by_others", update.by_others)
        if update.may_have_written and isinstance(failure, FivetranError):
            failure.details["maybe_written"] = True
        # Before the resume, which may take a day: the others are paused as well.
        await update.report(failure.code)
        await update.resume(failure.to_json())
        raise failure from error
    outcome["deleted"] = not await update.resume(outcome)
    await update.sync(outcome)
    outcome["connection"] = asdict(update.connection)
    outcome["by_others"] = update.by_others
    return outcome


class _Update:
    """One run of the workflow. Its fields are rebuilt from the checkpoints when it is recovered."""

    connection: Connection
    """As it was last seen."""

    def __init__(self, request: UpdateRequest, wanted: state.Change) -> None:
        self.request = request
        self.id = request["connection_id"]
        self.run = uuid.uuid4().hex
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
    def is_first_run(self) -> bool:
        """True if no other run came before this one. An earlier run may have died half-way."""
        return self.inspected is not None and self.inspected["taken_by"] == self.run

    @property
    def must_go_on(self) -> bool:
        """True if a refusal must not end the update, because it may have written something unverified."""
        return self.may_have_written and not self.began_with_0_1

    async def inspect(self) -> None:
        """Read connection and state; nothing is touched yet."""
        in_order = self.request.get("seen_paused", False)
        found = await self.durably(
            lambda _: _inspect(self.id, self.run, in_order, self.request.get("asked_at")),
            patience=0,
        )
        if "connection" in found:
            inspection = cast(Inspection, found)
            self.connection = Connection(**inspection["connection"])
            self.inspected = inspection["snapshot"]
            self.is_settled = inspection["is_settled"]
        else:
            self.connection = Connection(**found)
            self.began_with_0_1 = True
        self.was_paused = self.connection.paused
        if not self.connection.keeps_state:
            raise state_not_kept(self.connection)
        if self.inspected is None and not self.began_with_0_1:
            raise NoStateYet(f"{self.id} has no state yet, so it cannot be written.")

    async def unchanged(self) -> Outcome | None:
        """The outcome of a change that changes nothing, so that the connection is not paused for it.

        Raises the error of an impossible change before the pause, too.
        """
        if self.began_with_0_1:
            if not await self.is_noop():
                return None
            self.inspected = await self.durably(lambda _: _snapshot(self.id, self.run), patience=0)
        else:
            self.check_resync()
            if self.request.get("then_sync"):
                refuse_impossible_sync(self.connection)
        assert self.inspected is not None
        before = await self.document_of(self.inspected)
        target = await self.target(before, self.inspected["version"])
        if not await large.run(state.same, before, target) or "part_of" in self.request:
            return None
        return await large.run(self.outcome, "unchanged", before, target)

    def check_resync(self) -> None:
        if not self.request.get("allow_resync"):
            refuse_pending_resync(self.connection)

    async def change(self) -> Outcome:
        """Make the change: every step between inspect and resume."""
        refused: tuple[state.Document, state.State] | None = None
        while True:
            await self.quiesce()
            snapshot = await self.snapshot()
            before = await self.document_of(snapshot)
            kept = Written(answer=None)
            unclear: FivetranError | None = None
            if refused is not None and await large.run(state.same, before, refused[1]):
                before, target = refused  # The write took effect despite its error.
            else:
                if self.may_have_written and refused is not None:
                    await self.insist_on_unwritten(before, refused[0], snapshot["version"])
                if not self.began_with_0_1:
                    self.check_resync()
                target = await self.target(before, snapshot["version"])
                if await large.run(state.same, before, target):
                    self.before, self.after = before, target
                    return await large.run(self.outcome, "unchanged", before, target)
                try:
                    self.cannot_be_cancelled = True
                    written = await self.durably(partial(self.write, target, snapshot))
                    kept = written or kept  # 0.1 recorded nothing.
                except SyncRunning as error:
                    if error.details.get("was_resumed"):
                        self.still_paused = False  # From here on, a pause is not ours.
                    self.cannot_be_cancelled = self.may_have_written
                    refused = before, target
                    await self.wait_for_the_sync()
                    continue
                except FivetranError as error:
                    if not self.may_have_written:
                        raise
                    unclear = error
            self.reached("write")
            await self.verify(before, target, kept["answer"], unclear)
            self.reached("verify")
            self.before, self.after = before, target
            return await large.run(self.outcome, "updated", before, target)

    async def snapshot(self) -> Snapshot:
        """The present state. The inspected one is used if no sync can have run since."""
        if self.is_settled and self.inspected is not None:
            snapshot = self.inspected
        else:
            snapshot = await self.durably(lambda _: _snapshot(self.id, self.run))
        self.is_settled = False
        self.reached("snapshot")
        return snapshot

    async def quiesce(self) -> None:
        """Pause and drain: returns when the connection is paused and no sync is running."""
        while True:
            self.note_others()
            if not self.connection.paused:
                self.is_settled = False
                await self.tell("pause", "Pausing the connection.", still_paused=True)
                try:
                    await self.durably(self.pause)
                except SyncRunning:
                    await self.wait_for_the_sync()
                    continue
            if self.connection.is_drained:
                self.has_waited = False
                return
            self.is_settled = False
            await self.wait_for_the_sync()

    def note_others(self) -> None:
        """Remember a pause or resume by somebody else, which counts at the end."""
        if self.was_paused and not self.connection.paused:
            self.by_others = "resumed"
        elif self.connection.paused and not self.was_paused and not self.still_paused:
            self.by_others = "paused"

    async def pause(self, attempt: int) -> None:
        # Our own pause may have taken effect, so a paused connection proves nothing.
        look = attempt > 0 and self.is_first_run and not self.still_paused
        try:
            found = await _pause(self.id, look=look, is_first_run=self.is_first_run)
        except FivetranStateError as error:
            # An error that 0.1 recorded does not tell.
            is_unclear = self.began_with_0_1 and isinstance(error, FivetranUnavailable)
            if error.details.get("maybe_applied") or is_unclear:
                self.still_paused = True
            raise
        self.connection = Connection(**found.get("connection", found))
        self.still_paused = self.still_paused or not found.get("was_paused", False)
        self.note_others()

    async def wait_for_the_sync(self) -> None:
        """Sleep (durably), then look again; raises `SyncStillRunning` when the time is up."""
        if self.waited >= self.request["sync_wait"]:
            written = (
                "It is unclear whether the new state was written."
                if self.may_have_written
                else "Nothing was written."
            )
            raise SyncStillRunning(
                f"Fivetran did not stop the running sync within {self.request['sync_wait']:g} s. "
                f"{written}"
            )
        so_far = f", {self.waited:g} s so far" if self.waited else ""
        await self.tell("drain", f"Waiting for the running sync to stop{so_far}.")
        pause = min(self.between_polls, self.request["sync_wait"] - self.waited)
        await self.sleep(pause)
        self.waited += pause
        self.between_polls = min(self.between_polls * 2, 15.0)
        self.connection = Connection(**await self.durably(lambda _: _drain(self.id)))

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

    def is_expected(self, expected: str, version: str) -> bool:
        # Versions of 0.1 were half as long.
        return version == expected or (
            self.began_with_0_1 and len(expected) == 16 and version.startswith(expected)
        )

    async def insist_on_unwritten(
        self, now: state.Document, before: state.Document, version: str
    ) -> None:
        """Raise `Conflict` if the state has changed since before a write in doubt."""
        if not await large.run(state.same, now, before):
            raise Conflict(
                f"The state became version {version} while it was unclear whether the update had "
                "been written; it was left as it is.",
                current_version=version,
            )
        self.may_have_written = False

    async def write(self, target: state.State, snapshot: Snapshot, attempt: int) -> "Written":
        """Write. Look first, unless this is certainly the first try and nothing was waited for."""
        has_tried = self.may_have_written or snapshot["taken_by"] != self.run
        look = attempt > 0 or self.has_waited or has_tried
        try:
            part_of = self.request.get("part_of")
            return await _write(self.id, target, snapshot, part_of, look=look, has_tried=has_tried)
        except FivetranError as error:
            self.may_have_written = bool(error.details.get("maybe_applied"))
            raise

    async def verify(
        self,
        before: state.Document,
        target: state.State,
        answer: str | None,
        unclear: FivetranError | None,
    ) -> None:
        """Compare the present state with the written one; `unclear` is the error of a write in doubt.

        Roll back only over a state that Fivetran itself has returned as the result of our write. Any
        other state may be somebody else's, and stays.
        """
        try:
            found = await self.readback(target)
        except ConnectionNotFound:
            raise
        except FivetranError as error:
            raise RollbackFailed(
                f"What was written was left as it is, because it could not be read back: {error.message}"
            ) from error
        self.may_have_written = False  # From here on it is known.
        if found["is_as_written"]:
            return
        now = None
        if found["found"] is not None:
            now = await large.run(state.document, found["found"])
        if now is not None and await large.run(state.same, now, before):
            if unclear is not None:
                unclear.details.pop("maybe_applied", None)
                raise unclear  # Nothing was written.
            raise VerificationFailed(
                "Fivetran did not keep what was written; the state is as it was before.",
                current_version=await large.run(state.version, now),
            )
        kept = None if answer is None else await large.run(state.document, answer)
        is_ours = kept is not None and now is not None and await large.run(state.same, now, kept)
        if not is_ours and not self.began_with_0_1:
            raise await large.run(left_as_it_is, target, now)
        await self.roll_back(before, target, kept, now)

    async def readback(self, target: state.State) -> Readback:
        if self.began_with_0_1:
            found = await self.durably(lambda _: _verify(self.id, target))
        else:
            found = await self.durably(
                lambda _: _verify(self.id, target),
                patience=VERIFY_PATIENCE,
                even_if=FivetranError,
                another_key_may=(Unauthorized,),
            )
        # 0.1 recorded only whether it was as written.
        return Readback(is_as_written=found, found=None) if isinstance(found, bool) else found

    async def roll_back(
        self,
        before: state.Document,
        target: state.State,
        kept: state.Document | None,
        now: state.Document | None,
    ) -> None:
        """Write the state from before again, over Fivetran's result of our write; always raises."""
        trouble = "Fivetran did not keep what was written"
        await self.tell("roll_back", f"{trouble}: putting the state from before back.")
        try:
            if isinstance(before, state.RawDocument):
                raise Conflict("the state from before is not one that can be written")
            kept_text = None if kept is None else await large.run(state.dump, kept)
            await self.durably(
                lambda _: _roll_back(self.id, before, kept_text), another_key_may=(Unauthorized,)
            )
            is_back = (await self.readback(before))["is_as_written"]
            problem = "."
        except ConnectionNotFound:
            raise
        except (Conflict, FivetranError) as error:
            is_back, problem = False, f": {error.message}"
        differences = await large.run(described_differences, target, now)
        if not is_back:
            raise RollbackFailed(
                f"{trouble}, and the state from before could not be put back{problem}",
                differences=differences,
            )
        raise VerificationFailed(
            f"{trouble}; the state from before is back in place.",
            current_version=await large.run(state.version, before),
            differences=differences,
        )

    async def report(self, how: str) -> None:
        """Tell the group once that this update is done, or how it failed.

        If the group's workflow is gone, this update goes on by itself.
        """
        if "part_of" not in self.request or self.has_reported:
            return
        self.has_reported = True
        # On replay, DBOS raises the second instead of the first.
        with suppress(dbos_error.DBOSNonExistentWorkflowError, InternalError):
            await binding.send(self.request["part_of"], how, owner(self.request))

    async def wait_for_the_others(self) -> None:
        """Wait, still paused, for the other connections of the group.

        Raises `Undone`, with the state from before back in place, if one of them has failed.
        """
        await self.tell("hold", "Done; waiting for the connections that are changed with it.")
        if await self.verdict() == KEEP:
            return
        await self.tell("roll_back", "Putting the state from before back.")
        trouble = "Fivetran did not keep it."
        try:
            if isinstance(self.before, state.RawDocument):
                raise Conflict("What was there before is not a state that can be written.")
            before, after = self.before, self.after
            await self.durably(
                lambda _: _undo(self.id, before, after), another_key_may=(Unauthorized,)
            )
            is_back = (await self.readback(before))["is_as_written"]
        except ConnectionNotFound:
            raise
        except FivetranStateError as error:
            is_back, trouble = False, error.message
        if not is_back:
            raise RollbackFailed(
                "Another of the connections could not be updated, and the state from before could "
                f"not be put back here: {trouble}"
            )
        raise Undone(
            "Another of the connections could not be updated; the state from before is back."
        )

    async def verdict(self) -> str:
        """The group's decision: `KEEP` or `UNDO`."""
        while True:
            verdict = await binding.receive(VERDICT, MAX_RETRY_PAUSE)
            if verdict is None and await has_ended(self.request["part_of"]):
                # It has said so before it ended, or somebody else has ended it.
                verdict = await binding.receive(VERDICT, 0) or UNDO
            if verdict is not None:
                return str(verdict)

    async def resume(self, so_far: Mapping[str, Any]) -> bool:
        """Undo our own pause, trying for a day; then `LeftPaused` says what happened `so_far`.

        False if there is nothing to resume any more, because the connection was deleted.
        """
        self.cannot_be_cancelled = True
        if not self.still_paused:
            return True
        try:
            found = await self.durably(
                lambda _: _resume(self.id),
                even_if=FivetranError,
                another_key_may=(Unauthorized, Forbidden),
            )
        except ConnectionNotFound:
            return False
        except FivetranError as error:
            raise LeftPaused(
                f"The connection is still paused; it could not be resumed: {error.message}",
                paused_by_update=True,
                so_far=dict(so_far),
            ) from error
        # 0.1 recorded nothing.
        self.connection = Connection(**found) if found else replace(self.connection, paused=False)
        self.still_paused = False
        self.reached("resume")
        return True

    async def resume_unrecorded(self) -> None:
        """Undo our own pause when nothing can be recorded. Until then the row stays unfinished."""
        if self.may_have_paused:
            await _insist_on_resuming(lambda: _set_paused(self.id, False))

    async def sync(self, outcome: Outcome) -> None:
        """Start the sync of `then_sync`. A failure is recorded and does not fail the update."""
        if not self.request.get("then_sync") or outcome["outcome"] == "unchanged":
            return
        if outcome["deleted"] or self.connection.paused:
            why = "was deleted" if outcome["deleted"] else "is paused"
            outcome["sync"] = Sync(started=False, problem=f"The connection {why}.")
            return
        try:
            await self.durably(
                lambda _: _start_sync(self.id), patience=SYNC_PATIENCE, limit_patience=SYNC_PATIENCE
            )
            outcome["sync"] = Sync(started=True, problem=None)
        except FivetranError as error:
            outcome["sync"] = Sync(started=False, problem=error.message)

    async def is_noop(self) -> bool:
        """True if the request alone shows that nothing will change."""
        expected, value = self.request["expected_version"], self.wanted.value
        if self.wanted.kind != "new_state" or not isinstance(value, dict) or expected is None:
            return False
        return self.is_expected(expected, await large.run(state.version, value))

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
        running[DBOS.workflow_id or ""] = progress
        place = binding.event_of(DBOS.workflow_id or "", PROGRESS)
        await DBOS.set_event_async(PROGRESS, Bound(place, progress))

    def reached(self, step: str) -> None:
        """Set the progress for callers in this process; other processes read the recorded steps."""
        phase, message = phases.AFTER[step]
        running[DBOS.workflow_id or ""] = Progress(
            phase=phase,
            message=message,
            was_paused=self.was_paused,
            still_paused=self.still_paused,
        )

    async def sleep(self, seconds: float) -> None:
        """Sleep durably; raises `Cancelled` as soon as somebody cancels, if nothing was written."""
        if self.cannot_be_cancelled:
            await DBOS.sleep_async(seconds)
            return
        cancel = await binding.receive(CANCEL, seconds)
        if cancel is not None:
            raise cancelled(cancel)

    async def durably(
        self,
        step: Callable[[int], Awaitable[T]],
        *,
        patience: float = PATIENCE,
        limit_patience: float = PATIENCE,
        even_if: type[FivetranError] = FivetranUnavailable,
        another_key_may: tuple[type[FivetranError], ...] = (),
    ) -> T:
        """Run a step until Fivetran answers it, sleeping durably in between, for `patience` seconds.

        A rate limit may last up to `limit_patience`: Fivetran says when it ends. If another key may
        succeed, the update is given up for a process that has one.
        """
        waited = 0.0
        attempt = refused = 0
        while True:
            try:
                return await step(attempt)
            except FivetranError as error:
                gives_up = isinstance(error, another_key_may) or (
                    isinstance(error, Unauthorized) and self.must_go_on
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
                    pause = min(2.0 ** (attempt - refused), MAX_RETRY_PAUSE)
                    allowed = patience if is_expected else VERIFY_PATIENCE
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


@binding.step("has_ended")
async def has_ended(workflow_id: str) -> bool:
    """True if another workflow has ended."""
    status = await DBOS.get_workflow_status_async(workflow_id)
    return status is None or status.status not in UNFINISHED


def _unexpected(error: Exception) -> InternalError:
    logger.exception("The update met an unexpected error", extra={"workflow_id": DBOS.workflow_id})
    return InternalError(f"The update met an unexpected {type(error).__name__}.")


@binding.step("inspect")
async def _inspect(
    connection_id: str, run: str, in_order: bool, asked_at: float | None
) -> dict[str, Any]:
    """An `Inspection`; 0.1 recorded the connection alone.

    Raises `Cancelled` for a request of an earlier day: someone may have put it back.

    `in_order`: the connection first, so that a paused one need not be read again before the write.
    """
    if asked_at is not None and time.time() > asked_at + PATIENCE:
        raise Cancelled("The update was asked for more than a day ago. Nothing was written.")
    fivetran = _fivetran()
    if in_order:
        connection = await fivetran.get_connection(connection_id)
        document = await fivetran.get_state_or_none(connection)
    else:
        connection, document = await fivetran.get_connection_and_state(connection_id)
    return dict(
        Inspection(
            connection=asdict(connection),
            snapshot=None if document is None else await large.run(_taken, document, run),
            is_settled=in_order and connection.is_drained,
        )
    )


@binding.step("pause")
async def _pause(connection_id: str, *, look: bool, is_first_run: bool) -> dict[str, Any]:
    """`connection`, and whether it `was_paused` already, by somebody else; 0.1 recorded the
    connection alone."""
    try:
        if not is_first_run and (cancel := await _is_cancelled(DBOS.workflow_id or "")):
            raise cancelled(cancel)
        if look:
            connection = await _fivetran().get_connection(connection_id)
            if connection.paused:
                return {"connection": asdict(connection), "was_paused": True}
        return {"connection": asdict(await _set_paused(connection_id, True)), "was_paused": False}
    except FivetranStateError as error:
        # An earlier run may have paused it and died before it recorded that.
        if not is_first_run:
            error.details["maybe_applied"] = True
        raise


@binding.step("drain")
async def _drain(connection_id: str) -> dict[str, Any]:
    return asdict(await _fivetran().get_connection(connection_id))


@binding.step("snapshot")
async def _snapshot(connection_id: str, run: str) -> Snapshot:
    return await large.run(_taken, await _fivetran().get_state(connection_id), run)


def _taken(document: state.Document, run: str) -> Snapshot:
    return Snapshot(state=state.dump(document), version=state.version(document), taken_by=run)


@binding.step("write")
async def _write(
    connection_id: str,
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
            await _insist_on_drained(connection_id)
            current = await _fivetran().get_state(connection_id)
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
    for workflow_id in (DBOS.workflow_id, part_of):
        cancel = workflow_id is not None and await _is_cancelled(workflow_id)
        if cancel:
            raise cancelled(cancel)
    answer = await _set_state(connection_id, target)
    if answer is None or await large.run(state.same, answer, target):
        return Written(answer=None)
    return Written(answer=await large.run(state.dump, answer))


@binding.step("verify")
async def _verify(connection_id: str, expected: state.State) -> Readback:
    """Read the state back. 0.1 recorded only a boolean."""
    try:
        found = await _fivetran().get_state(connection_id)
    except ConnectionNotFound as error:
        await _fivetran().get_connection(connection_id)
        raise FivetranUnavailable(_CONTRADICTION) from error
    if await large.run(state.same, found, expected):
        return Readback(is_as_written=True, found=None)
    return Readback(is_as_written=False, found=await large.run(state.dump, found))


@binding.step("roll_back")
async def _roll_back(connection_id: str, before: state.State, kept: str | None) -> None:
    """Put the state from before back over `kept`, and over nothing else."""
    ours = None if kept is None else await large.run(state.document, kept)
    await _put_back(connection_id, before, ours)


@binding.step("undo")
async def _undo(connection_id: str, before: state.State, target: state.State) -> None:
    await _put_back(connection_id, before, target)


async def _put_back(connection_id: str, before: state.State, ours: state.Document | None) -> None:
    await _insist_on_drained(connection_id)
    current = await _fivetran().get_state(connection_id)
    if await large.run(state.same, current, before):
        return
    if ours is None or not await large.run(state.same, current, ours):
        raise Conflict("Somebody has changed the state meanwhile; it was left as it is.")
    await _set_state(connection_id, before)


@binding.step("resume")
async def _resume(connection_id: str) -> dict[str, Any]:
    """Resume the connection and return it. 0.1 recorded nothing."""
    return asdict(await _set_paused(connection_id, False))


@binding.step("sync")
async def _start_sync(connection_id: str) -> None:
    await _prove(DBOS.workflow_id or "")
    with suppress(SyncRunning):  # Then one is running already.
        await _fivetran().start_sync(connection_id)


@contextmanager
def _changing() -> Iterator[None]:
    """Mark this update as one with a changing call under way."""
    workflow_id = DBOS.workflow_id or ""
    changing.add(workflow_id)
    try:
        yield
    finally:
        changing.discard(workflow_id)


async def _set_paused(connection_id: str, paused: bool) -> Connection:
    """Pause or resume. Look after an error: Fivetran may fail a pause that took effect."""
    await _prove(DBOS.workflow_id or "")
    try:
        with _changing():
            return await _fivetran().set_paused(connection_id, paused)
    except (RateLimited, Unauthorized, Forbidden):
        raise
    except FivetranError as error:
        try:
            connection = await _fivetran().get_connection(connection_id)
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


async def _insist_on_resuming(resume: Callable[[], Awaitable[Connection]]) -> None:
    """Try to resume until that succeeds or the connection is gone. This is not a step."""
    pause = 1.0
    while True:
        try:
            await resume()
            return
        except ConnectionNotFound:
            return
        except FivetranError as error:
            logger.warning("A connection is still paused: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_RETRY_PAUSE)


async def _insist_on_drained(connection_id: str) -> None:
    """Raise `SyncRunning` if somebody has resumed the connection meanwhile."""
    connection = await _fivetran().get_connection(connection_id)
    if not connection.is_drained:
        raise SyncRunning(
            "The connection was resumed during the update.",
            was_resumed=not connection.paused or None,
        )


async def _set_state(connection_id: str, document: state.State) -> state.Document | None:
    await _prove(DBOS.workflow_id or "")
    with _changing():
        return await _fivetran().set_state(connection_id, document)
