"""The update workflow: the seven steps that change a connection's state, and nothing else.

inspect → pause → drain → snapshot → write → verify → resume

Each step is checkpointed by DBOS, so that whichever process recovers the workflow goes on where
the last one stopped. A step may run twice (a crash between its effect and its checkpoint), so
each one that changes something looks before it repeats itself. Once the connection is paused,
every way out leads through resume.
"""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, TypeVar

from dbos import DBOS, SetWorkflowID, WorkflowStatusString
from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import NotRequired, TypedDict

from fivetran_state import state
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
    StateNotKept,
    SyncRunning,
    SyncStillRunning,
    Unauthorized,
    Undone,
    VerificationFailed,
)
from fivetran_state.fivetran import Connection, Fivetran
from fivetran_state.models import changes_between
from fivetran_state.text import shown

T = TypeVar("T")

logger = logging.getLogger(__name__)

NAME = "update_state"
PROGRESS = "progress"
CANCEL = "cancel"
"""The topic of a message, and the attribute of a workflow, that asks it to end without writing."""
STEPS = ("inspect", "pause", "drain", "snapshot", "write", "verify", "roll_back", "undo", "resume")
DONE, VERDICT, KEEP, UNDO = "done", "verdict", "keep", "undo"
"""What an update and the workflow that it is a part of tell each other."""

UNFINISHED = [
    WorkflowStatusString.PENDING.value,
    WorkflowStatusString.ENQUEUED.value,
    WorkflowStatusString.DELAYED.value,
]

PATIENCE = 24 * 3600.0
"""Seconds for which a paused connection's workflow keeps trying to reach Fivetran."""

LONGEST_PAUSE_BETWEEN_TRIES = 300.0


class UpdateRequest(TypedDict):
    """The workflow's input. It holds no credentials in the clear; mostly, none at all."""

    connection_id: str
    change_kind: Literal["new_state", "merge_patch", "json_patch"]
    change: str
    """The change's value as exact JSON text."""
    change_is_exact: bool
    source: str | None
    """Where the change came from, if not from the caller: `restore_from X` or `copy_from X`."""
    expected_version: str | None
    reason: str | None
    idempotency_key: str
    key_was_given: bool
    sync_wait: float
    account: NotRequired[str]
    """Whose connection it is, if it is not of this process's own account."""
    credentials: NotRequired[str]
    """Those of that account, sealed."""
    part_of: NotRequired[str]
    """The workflow that changes this connection and others together."""


class Outcome(TypedDict):
    """The workflow's result when it did what was asked."""

    outcome: Literal["updated", "unchanged"]
    version_before: str
    version_after: str
    changes: list[dict[str, Any]]
    """`models.Change`, as JSON."""
    changes_total: int
    was_paused: bool
    deleted: bool
    """Somebody deleted the connection before it could be resumed."""


class Progress(TypedDict):
    """The event `progress`: where the workflow is, in a word and in a sentence.

    Set only for what the recorded steps cannot tell: an event costs as much as a step.
    """

    phase: str
    message: str
    was_paused: bool
    still_paused: bool
    """Paused by this update, or perhaps so; it will be resumed."""


class Snapshot(TypedDict):
    state: str
    version: str
    taken_by: str
    """The run of the workflow that took it: only that one can know that no write was tried since."""


_own: Fivetran | None
_guest: ContextVar[Fivetran] = ContextVar("_guest")
"""The client of the update that is being run, if it is another account's."""
_open: Callable[[str], Fivetran]
_prove: Callable[[str], Awaitable[None]]
_is_cancelled: Callable[[str], Awaitable[bool]]
application_name: str
"""The DBOS application of this process: one for each Fivetran account."""


def bind(
    fivetran: Fivetran | None,
    application: str,
    open_: Callable[[str], Fivetran],
    prove: Callable[[str], Awaitable[None]],
    is_cancelled: Callable[[str], Awaitable[bool]],
) -> None:
    """Give this process's workflows what they need; before DBOS is launched.

    `open_` makes a client from sealed credentials. `prove` is awaited with the workflow's id before
    each call that changes something: it returns if the workflow is still this process's to run,
    and never otherwise. `is_cancelled` tells whether somebody has cancelled the workflow.
    """
    global _own, application_name, _open, _prove, _is_cancelled
    _own, application_name = fivetran, application
    _open, _prove, _is_cancelled = open_, prove, is_cancelled


def _fivetran() -> Fivetran:
    client = _guest.get(_own)
    if client is None:
        raise MissingCredentials("This server has no credentials of its own.")
    return client


@asynccontextmanager
async def _account_of(request: UpdateRequest) -> AsyncIterator[None]:
    """Steps within talk to Fivetran as the account that the request is of."""
    if "credentials" not in request:
        yield
        return
    client = _open(request["credentials"])
    token = _guest.set(client)
    try:
        yield
    finally:
        _guest.reset(token)
        await client.aclose()


@DBOS.workflow(name="remember_key", max_recovery_attempts=None)
async def remember_key() -> None:
    """Does nothing: its row, a child of the update's, is how a key finds its update."""


def owner(request: UpdateRequest) -> str:
    """What the ids of a connection's updates begin with: its id, behind a foreign account's."""
    account = request.get("account")
    return request["connection_id"] if account is None else f"{account}/{request['connection_id']}"


def key_row_id(request: UpdateRequest) -> str:
    """The workflow id under which an update remembers the idempotency key it was given."""
    # Accounts may have connections of the same name, and share a database.
    whose = f"{application_name}\n{request['idempotency_key']}"
    return f"key:{owner(request)}:{hashlib.sha256(whose.encode()).hexdigest()}"


STARTED = Progress(
    phase="inspect",
    message="Looking at the connection.",
    was_paused=False,
    still_paused=False,
)
AFTER = {
    "snapshot": ("write", "Writing the new state."),
    "write": ("verify", "Reading the state back."),
    "verify": ("resume", "Putting the connection back as it was."),
}
"""The phase that follows on a recorded step."""

running: dict[str, Progress] = {}
"""The updates that this process is running at the moment, and where they are."""


@DBOS.workflow(name=NAME, max_recovery_attempts=None)
async def update_state(request: UpdateRequest) -> Outcome:
    """Applies one change to one connection's state; raises a `FivetranStateError` if it could not.

    Whatever happens after the pause, the connection ends with the paused flag it had before.
    """
    with running_here():
        async with _account_of(request):
            return await _update_state(request)


@contextmanager
def running_here() -> Iterator[None]:
    """Around all that a workflow does."""
    workflow_id = DBOS.workflow_id or ""
    running[workflow_id] = STARTED
    try:
        yield
    except SQLAlchemyError as error:
        # Not an outcome, so it must not be recorded as one (as in `vault`): without the database
        # nothing can be promised. The engine finds the workflow and runs it again.
        logger.exception("The database failed", extra={"workflow_id": workflow_id})
        raise asyncio.CancelledError from error
    finally:
        running.pop(workflow_id, None)


async def _update_state(request: UpdateRequest) -> Outcome:
    if request["key_was_given"]:
        with SetWorkflowID(key_row_id(request)):
            await DBOS.start_workflow_async(remember_key)
    update = _Update(request)
    try:
        await update.inspect()
        if update.asks_for_what_it_expects():
            outcome = await update.check_only()
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
    except SQLAlchemyError:
        raise
    except Exception as error:
        failure = error if isinstance(error, FivetranStateError) else _unexpected(error)
        failure.details.setdefault("was_paused", update.was_paused)
        # Before the resume, which may take a day: the others are paused as well.
        await update.report(failure.code)
        await update.resume(failure.to_json())
        raise failure from error
    outcome["deleted"] = not await update.resume(outcome)
    return outcome


class _Update:
    """One run of the workflow. Its fields are rebuilt from the checkpoints when it is recovered."""

    def __init__(self, request: UpdateRequest) -> None:
        self.request = request
        self.id = request["connection_id"]
        self.run = uuid.uuid4().hex
        """Of this run alone: one that goes on with it, in this process or another, has its own."""
        self.wanted = state.Change(
            request["change_kind"],
            state.parse_value(request["change"]),
            exact=request["change_is_exact"],
        )
        self.before: state.State = {}
        self.after: state.State = {}
        """What it found and left, once that is certain."""
        self.has_reported = False
        self.was_paused = False
        self.still_paused = False
        """Whether we have paused, or may have paused, a connection that was running."""
        self.cannot_be_cancelled = False
        self.may_have_written = False
        """Whether the last write was answered so that it may have taken effect, as recorded."""
        self.has_waited = False
        """Whether Fivetran was waited for since the connection was last seen drained."""
        self.waited = 0.0
        self.between_polls = 1.0

    async def inspect(self) -> None:
        """Does it exist, does it keep a state, is it paused?"""
        self.connection = Connection(**await self.durably(lambda _: _inspect(self.id), patience=0))
        if not self.connection.keeps_state:
            raise StateNotKept(
                f"{self.id} is a {self.connection.service} connection, which keeps no state."
            )
        self.was_paused = self.connection.paused

    async def check_only(self) -> Outcome:
        """The way out for a change that changes nothing: nobody is paused for it."""
        snapshot = await self.durably(lambda _: _snapshot(self.id, self.run), patience=0)
        before = state.parse(snapshot["state"])
        return self.outcome("unchanged", before, self.target(before, snapshot["version"]))

    async def change(self) -> Outcome:
        """Everything between inspect and resume."""
        refused: tuple[state.State, state.State] | None = None
        while True:
            await self.quiesce()
            snapshot = await self.durably(lambda _: _snapshot(self.id, self.run))
            self.reached("snapshot")
            before = state.parse(snapshot["state"])
            if refused is not None and state.same(before, refused[1]):
                before, target = refused  # The write took effect, whatever Fivetran has said.
            else:
                if self.may_have_written and refused is not None:
                    self.insist_on_unwritten(before, refused[0], snapshot["version"])
                target = self.target(before, snapshot["version"])
                if state.same(before, target):
                    self.before, self.after = before, target
                    return self.outcome("unchanged", before, target)
                try:
                    self.cannot_be_cancelled = True
                    await self.durably(partial(self.write, target, snapshot))
                except SyncRunning:
                    self.cannot_be_cancelled = self.may_have_written
                    refused = before, target
                    await self.wait_for_the_sync()
                    continue
                except FivetranError:
                    if not self.may_have_written:
                        raise
            self.reached("write")
            await self.verify(before, target)
            self.reached("verify")
            self.before, self.after = before, target
            return self.outcome("updated", before, target)

    async def quiesce(self) -> None:
        """Pause and drain: returns when the connection is paused and no sync is running."""
        while True:
            if not self.connection.paused:
                await self.tell(
                    "pause", "Pausing the connection.", still_paused=not self.was_paused
                )
                try:
                    self.connection = Connection(**await self.durably(self.pause))
                except SyncRunning:
                    await self.wait_for_the_sync()
                    continue
            if self.connection.is_drained:
                self.has_waited = False
                return
            await self.wait_for_the_sync()

    async def pause(self, _attempt: int) -> dict[str, Any]:
        try:
            connection = await _pause(self.id)
        except FivetranUnavailable:
            self.still_paused = not self.was_paused  # It may have taken effect.
            raise
        self.still_paused = not self.was_paused
        return connection

    async def wait_for_the_sync(self) -> None:
        """Sleep (durably), then look again; raises `SyncStillRunning` when the time is up."""
        if self.waited >= self.request["sync_wait"]:
            written = (
                "it is unclear whether the new state was written"
                if self.may_have_written
                else "nothing was written"
            )
            raise SyncStillRunning(
                f"The running sync did not finish within {self.request['sync_wait']:g} s; {written}."
            )
        so_far = f", {self.waited:g} s so far" if self.waited else ""
        await self.tell("drain", f"Waiting for the running sync to finish{so_far}.")
        pause = min(self.between_polls, self.request["sync_wait"] - self.waited)
        await self.sleep(pause)
        self.waited += pause
        self.between_polls = min(self.between_polls * 2, 15.0)
        self.connection = Connection(**await self.durably(lambda _: _drain(self.id)))

    def target(self, before: state.State, version: str) -> state.State:
        """What the state shall be; raises `Conflict` or `InvalidChange`."""
        expected = self.request["expected_version"]
        if expected is not None and version != expected:
            raise Conflict(
                f"The state is version {version}, not '{shown(expected)}'; nothing was written.",
                current_version=version,
            )
        try:
            return state.apply(self.wanted, before)
        except (state.InvalidChange, state.InvalidState) as error:
            raise InvalidChange(f"{error}; nothing was written.") from error

    def insist_on_unwritten(self, now: state.State, before: state.State, version: str) -> None:
        """Raise `Conflict` if the state is another one than before a write that may have been made."""
        if not state.same(now, before):
            raise Conflict(
                f"The state became version {version} while it was unclear whether the update had "
                "been written; it was left as it is.",
                current_version=version,
            )
        self.may_have_written = False

    async def write(self, target: state.State, snapshot: Snapshot, attempt: int) -> None:
        """Look first, unless this write was certainly never tried and nothing was waited for."""
        has_tried = self.may_have_written or snapshot["taken_by"] != self.run
        look = attempt > 0 or self.has_waited or has_tried
        try:
            part_of = self.request.get("part_of")
            await _write(self.id, target, snapshot, part_of, look=look, has_tried=has_tried)
        except FivetranError as error:
            self.may_have_written = bool(error.details.get("maybe_applied"))
            raise

    async def verify(self, before: state.State, target: state.State) -> None:
        """Compare what Fivetran has with what was written; if it differs, put the snapshot back."""
        try:
            if await self.durably(lambda _: _verify(self.id, target)):
                return
            trouble = "Fivetran did not keep what was written"
        except FivetranError as error:
            trouble = f"What was written could not be read back ({error.message})"
        await self.tell("roll_back", f"{trouble}: putting the state from before back.")
        try:
            await self.durably(lambda _: _roll_back(self.id, before))
            is_back = await self.durably(lambda _: _verify(self.id, before))
        except ConnectionNotFound:
            raise
        except FivetranError:
            is_back = False
        if not is_back:
            raise RollbackFailed(f"{trouble}, and the state from before could not be put back.")
        raise VerificationFailed(f"{trouble}; the state from before is back in place.")

    async def report(self, how: str) -> None:
        """Tell the workflow that this update is a part of that it is done, or how it failed: once.

        If that workflow is gone, this update goes on by itself.
        """
        if "part_of" not in self.request or self.has_reported:
            return
        self.has_reported = True
        # The latter is as what the former comes back from a checkpoint.
        with suppress(dbos_error.DBOSNonExistentWorkflowError, InternalError):
            await DBOS.send_async(self.request["part_of"], how, topic=owner(self.request))

    async def wait_for_the_others(self) -> None:
        """Wait, still paused, for the connections that are changed together with this one.

        Raises `Undone`, with the state from before back in place, if one of them has failed.
        """
        await self.tell("hold", "Done; waiting for the connections that are changed with it.")
        if await self.verdict() == KEEP:
            return
        await self.tell("roll_back", "Putting the state from before back.")
        trouble = "Fivetran did not keep it."
        try:
            await self.durably(lambda _: _undo(self.id, self.before, self.after))
            is_back = await self.durably(lambda _: _verify(self.id, self.before))
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
        """`KEEP` or `UNDO`, as the workflow says that this update is a part of."""
        while True:
            verdict = await DBOS.recv_async(VERDICT, LONGEST_PAUSE_BETWEEN_TRIES)
            if verdict is None and await has_ended(self.request["part_of"]):
                # It has said so before it ended, or somebody else has ended it.
                verdict = await DBOS.recv_async(VERDICT, 0) or UNDO
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
            await self.durably(lambda _: _resume(self.id), even_if=FivetranError)
        except ConnectionNotFound:
            return False
        except FivetranError as error:
            raise LeftPaused(
                f"The connection is still paused; it could not be resumed: {error.message}",
                still_paused=True,
                so_far=dict(so_far),
            ) from error
        return True

    def asks_for_what_it_expects(self) -> bool:
        """Whether the request alone shows that nothing will change."""
        return (
            self.wanted.kind == "new_state"
            and isinstance(self.wanted.value, dict)
            and state.version(self.wanted.value) == self.request["expected_version"]
        )

    def outcome(
        self, outcome: Literal["updated", "unchanged"], before: state.State, after: state.State
    ) -> Outcome:
        changes, total = changes_between(before, after)
        return Outcome(
            outcome=outcome,
            version_before=state.version(before),
            version_after=state.version(after),
            changes=[change.model_dump(exclude_none=True) for change in changes],
            changes_total=total,
            was_paused=self.was_paused,
            deleted=False,
        )

    async def tell(self, phase: str, message: str, *, still_paused: bool | None = None) -> None:
        progress = Progress(
            phase=phase,
            message=message,
            was_paused=self.was_paused,
            still_paused=self.still_paused if still_paused is None else still_paused,
        )
        running[DBOS.workflow_id or ""] = progress
        await DBOS.set_event_async(PROGRESS, progress)

    def reached(self, step: str) -> None:
        """Say where we are to whoever follows in this process; others read the recorded steps."""
        phase, message = AFTER[step]
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
        elif await DBOS.recv_async(CANCEL, seconds) is not None:
            raise Cancelled("The update was cancelled; nothing was written.")

    async def durably(
        self,
        step: Callable[[int], Awaitable[T]],
        *,
        patience: float = PATIENCE,
        even_if: type[FivetranError] = FivetranUnavailable,
    ) -> T:
        """Run a step until Fivetran answers it, sleeping durably in between, for `patience` seconds.

        A rate limit is waited for whatever the patience: Fivetran says when it ends.
        """
        waited = 0.0
        attempt = 0
        while True:
            try:
                return await step(attempt)
            except ConnectionNotFound:
                raise
            except (RateLimited, even_if) as error:
                if isinstance(error, RateLimited):
                    pause = max(float(error.details["retry_after"]), 1.0)
                    allowed = PATIENCE
                else:
                    pause = min(2.0**attempt, LONGEST_PAUSE_BETWEEN_TRIES)
                    allowed = patience
                if waited + pause > allowed:
                    raise
                paused = "; the connection is still paused" if self.still_paused else ""
                await self.tell("wait", f"{error.message} Trying again in {pause:g} s{paused}.")
                await self.sleep(pause)
                self.has_waited = True
                waited += pause
                attempt += 1


@DBOS.step(name="has_ended")
async def has_ended(workflow_id: str) -> bool:
    """Whether another workflow has."""
    status = await DBOS.get_workflow_status_async(workflow_id)
    return status is None or status.status not in UNFINISHED


def _unexpected(error: Exception) -> InternalError:
    logger.exception("The update met an unexpected error", extra={"workflow_id": DBOS.workflow_id})
    return InternalError(f"The update met an unexpected {type(error).__name__}.")


# The steps. Their names are stored: a change to one is a change of the application version.


@DBOS.step(name="inspect")
async def _inspect(connection_id: str) -> dict[str, Any]:
    return asdict(await _fivetran().get_connection(connection_id))


@DBOS.step(name="pause")
async def _pause(connection_id: str) -> dict[str, Any]:
    return asdict(await _set_paused(connection_id, True))


@DBOS.step(name="drain")
async def _drain(connection_id: str) -> dict[str, Any]:
    return asdict(await _fivetran().get_connection(connection_id))


@DBOS.step(name="snapshot")
async def _snapshot(connection_id: str, run: str) -> Snapshot:
    document = await _read_state(connection_id)
    return Snapshot(state=state.dump(document), version=state.version(document), taken_by=run)


@DBOS.step(name="write")
async def _write(
    connection_id: str,
    target: state.State,
    snapshot: Snapshot,
    part_of: str | None,
    *,
    look: bool,
    has_tried: bool,
) -> None:
    """Write the target, after a look if much may have happened since the snapshot.

    `has_tried`: perhaps it has been written already. What keeps us from finding out says so.
    """
    if look:
        try:
            await _insist_on_drained(connection_id)
            current = await _read_state(connection_id)
        except FivetranError as error:
            error.details["maybe_applied"] = has_tried or None
            raise
        if state.same(current, target):
            return
        version = state.version(current)
        if version != snapshot["version"]:
            raise Conflict(
                f"The state became version {version} during the update; it was left as it is.",
                current_version=version,
            )
    for workflow_id in (DBOS.workflow_id, part_of):
        if workflow_id is not None and await _is_cancelled(workflow_id):
            raise Cancelled("The update was cancelled; nothing was written.")
    await _set_state(connection_id, target)


@DBOS.step(name="verify")
async def _verify(connection_id: str, expected: state.State) -> bool:
    return state.same(await _read_state(connection_id), expected)


@DBOS.step(name="roll_back")
async def _roll_back(connection_id: str, before: state.State) -> None:
    await _insist_on_drained(connection_id)
    if state.same(await _read_state(connection_id), before):
        return
    await _set_state(connection_id, before)


@DBOS.step(name="undo")
async def _undo(connection_id: str, before: state.State, target: state.State) -> None:
    await _insist_on_drained(connection_id)
    current = await _read_state(connection_id)
    if state.same(current, before):
        return
    if not state.same(current, target):
        raise Conflict("Somebody has changed the state meanwhile; it was left as it is.")
    await _set_state(connection_id, before)


@DBOS.step(name="resume")
async def _resume(connection_id: str) -> None:
    await _set_paused(connection_id, False)


async def _set_paused(connection_id: str, paused: bool) -> Connection:
    """Fivetran may answer an error after a minute although the pause took effect: so look."""
    await _prove(DBOS.workflow_id or "")
    try:
        return await _fivetran().set_paused(connection_id, paused)
    except (RateLimited, Unauthorized, Forbidden):
        raise
    except FivetranError as error:
        try:
            connection = await _fivetran().get_connection(connection_id)
        except ConnectionNotFound:
            raise
        except FivetranError as unseen:
            raise FivetranUnavailable(
                f"It is unclear whether the connection is paused: {unseen.message}",
                maybe_applied=True,
            ) from error
        if connection.paused == paused:
            return connection
        if isinstance(error, ConnectionNotFound):
            raise FivetranUnavailable(
                "Fivetran contradicts itself: 404, but it is there."
            ) from error
        raise


async def _insist_on_drained(connection_id: str) -> None:
    """Raise `SyncRunning` if somebody has resumed the connection meanwhile."""
    if not (await _fivetran().get_connection(connection_id)).is_drained:
        raise SyncRunning("The connection was resumed during the update.")


async def _set_state(connection_id: str, document: state.State) -> None:
    await _prove(DBOS.workflow_id or "")
    await _fivetran().set_state(connection_id, document)


async def _read_state(connection_id: str) -> state.State:
    try:
        return await _fivetran().get_state(connection_id)
    except NoStateYet:
        return {}
