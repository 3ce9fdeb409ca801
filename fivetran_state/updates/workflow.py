"""The update workflow, as a reviewer reads it:

inspect → pause → drain → snapshot → write → verify → resume (→ sync)

DBOS records each step, so that whichever process recovers the workflow goes on where the last one
stopped. Once the connection is paused, every way out leads through resume.

Updates that version 0.1 began are told by what their first step recorded: the connection alone.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import cast

from dbos import DBOS
from sqlalchemy.exc import SQLAlchemyError

from fivetran_state import large, state, tracing
from fivetran_state.errors import (
    Conflict,
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    InternalError,
    NoStateYet,
    SyncRunning,
    Tampered,
)
from fivetran_state.fivetran import Fivetran
from fivetran_state.fivetran_answers import Connection
from fivetran_state.updates import binding, membership, pausing, verification
from fivetran_state.updates.keys import Keys
from fivetran_state.updates.records import (
    NAME,
    Inspection,
    Outcome,
    Snapshot,
    Sync,
    UpdateRequest,
    Written,
    is_held,
)
from fivetran_state.updates.refusals import (
    refuse_impossible_sync,
    refuse_pending_resync,
    state_not_kept,
)
from fivetran_state.updates.run import GivenUp, Run
from fivetran_state.updates.runtime import Runtime
from fivetran_state.updates.signals import Signal
from fivetran_state.updates.steps import Steps
from fivetran_state.updates.telling import Telling
from fivetran_state.vault import Bound

logger = logging.getLogger(__name__)

RESUME_PATIENCE = 60.0
"""Seconds for which a person's resume is tried: they wait for it."""
SYNC_PATIENCE = 30.0
"""Seconds for which the start of a sync is tried."""


class UpdateWorkflow:
    """The DBOS workflow that applies one change to one connection's state."""

    def __init__(self, runtime: Runtime, keys: Keys) -> None:
        """Register the workflow with DBOS, which must not have been launched."""
        self._runtime = runtime
        self._keys = keys

        @DBOS.workflow(name=NAME, max_recovery_attempts=None)
        async def update_state(request: Bound) -> Bound:
            workflow_id = DBOS.workflow_id or ""
            place = binding.output_of(workflow_id)
            with binding.bound_errors(place):
                asked: UpdateRequest = binding.opened(request, binding.input_of(workflow_id, NAME))
                is_recovered = workflow_id in runtime.running.taken_up
                telling = Telling(runtime.events, workflow_id, asked, is_recovered=is_recovered)
                about = {tracing.CONNECTION: asked["connection_id"]}
                stored, began = asked.get("trace"), asked.get("asked_at")
                with tracing.workflow("update", workflow_id, stored, began, about) as facts:
                    outcome = await telling.to_end(self._run_here(workflow_id, asked, telling))
                    facts[tracing.OUTCOME] = outcome["outcome"]
                    return Bound(place, outcome)

        self.registered = update_state
        """Takes an `UpdateRequest` and returns an `Outcome`; raises a `FivetranStateError`. In the
        end the connection is paused if it was before, or as somebody else has left it meanwhile."""

    async def mend(self, workflow_id: str, request: UpdateRequest) -> None:
        """Resume the connection of an update that cannot go on."""
        async with self._runtime.accounts.client_for(request, workflow_id) as fivetran:
            await pausing.insist_on_resuming(
                partial(fivetran.set_paused, request["connection_id"], False)
            )

    async def _run_here(
        self, workflow_id: str, request: UpdateRequest, telling: Telling
    ) -> Outcome:
        runtime = self._runtime
        if "credentials" in request:
            runtime.running.with_credentials.add(workflow_id)
        with runtime.running.here(workflow_id):
            async with runtime.accounts.client_for(request, workflow_id) as fivetran:
                wanted = await large.run(
                    state.parse_change,
                    request["change_kind"],
                    request["change"],
                    request["change_is_exact"],
                )
                steps = Steps(request["connection_id"], fivetran, runtime, telling)
                run = Run(workflow_id, request, wanted, steps, runtime.running, runtime.recorder)
                try:
                    async with self._slot_of(run, fivetran):
                        return await self._run_or_resume(run)
                except GivenUp:
                    with suppress(SQLAlchemyError):
                        await runtime.lease.release(workflow_id)
                    raise
                except FivetranStateError:
                    raise
                except BaseException:
                    # The row may be gone, or belong to another run: recovery looks.
                    if run.may_have_paused:
                        runtime.running.unsettled[workflow_id] = request
                    raise

    @asynccontextmanager
    async def _slot_of(self, run: Run, fivetran: Fivetran) -> AsyncIterator[None]:
        """A slot for the member of a group; other updates do not wait for one."""
        if "mode" not in run.request:
            with self._runtime.slots.single() as run.slot:
                yield
            return
        has_begun = run.workflow_id in self._runtime.running.taken_up
        decisions, slots = self._runtime.decisions, self._runtime.slots
        with decisions.member(run.request["part_of"], run.workflow_id) as is_called_off:
            async with slots.slot(fivetran, is_called_off, has_begun=has_begun) as run.slot:
                yield

    async def _run_or_resume(self, run: Run) -> Outcome:
        """Run the update. Resume the connection even if DBOS refuses to go on with the workflow."""
        try:
            if run.request["key_was_given"]:
                await self._keys.remember(self._keys.row_id(run.request), run.workflow_id)
            outcome = await update(run)
            await run.finish_notes()
            return outcome
        except Tampered:
            await pausing.resume_unrecorded(run)
            raise
        except FivetranStateError:
            await run.finish_notes()
            raise
        except SQLAlchemyError:
            raise
        except Exception as error:
            # DBOS refuses to go on, so nothing can be recorded.
            failure = _unexpected(error)
            await pausing.resume_unrecorded(run)
            raise failure from error


async def update(run: Run) -> Outcome:
    """The whole update; every failure after the pause goes through resume."""
    if "resumes" in run.request:
        return await resume(run)
    try:
        await inspect(run)
        outcome = await unchanged(run)
        if outcome is not None:
            await membership.report(run, Signal.DONE)
            return outcome
    except FivetranStateError as error:
        await membership.report(run, error.code)
        raise
    try:
        outcome = await change(run)
        await membership.report(run, Signal.DONE)
        if is_held(run.request):
            await membership.wait_for_the_others(run)
    except (SQLAlchemyError, Tampered):
        raise  # A forged step must not be followed by another step.
    except Exception as error:
        failure = error if isinstance(error, FivetranStateError) else _unexpected(error)
        failure.details.setdefault("was_paused", run.was_paused)
        failure.details.setdefault("by_others", run.by_others)
        if run.may_have_written and isinstance(failure, FivetranError):
            failure.details["maybe_written"] = True
        # Before the resume, which may take a day: the others are paused as well.
        await membership.report(run, failure.code)
        await pausing.resume(run, failure.to_json())
        raise failure from error
    outcome["deleted"] = not await pausing.resume(run, outcome)
    await sync(run, outcome)
    outcome["connection"] = asdict(run.connection)
    return outcome


async def resume(run: Run) -> Outcome:
    """Resume a connection that was left paused, at a person's word; its state stays as it is.

    If that fails and an update has left it paused, `LeftPaused` keeps that known.
    """
    run.cannot_be_cancelled = True
    try:
        with suppress(NoStateYet):
            await inspect(run)
        if run.connection.paused:
            run.still_paused = run.request["resumes"] is not None
            found = await run.durably(
                lambda _: run.steps.resume(),
                patience=RESUME_PATIENCE,
                limit_patience=RESUME_PATIENCE,
            )
            run.connection = Connection(**found)
            run.still_paused = False
            run.reached("resume")
    except (ConnectionNotFound, Tampered):
        raise
    except FivetranStateError as error:
        error.details["was_paused"] = True
        if run.request["resumes"] is None:
            raise
        raise pausing.left_paused(error, {}) from error
    version = state.version({}) if run.inspected is None else run.inspected["version"]
    return Outcome(
        outcome="unchanged",
        version_before=version,
        version_after=version,
        changes=[],
        changes_total=0,
        was_paused=run.was_paused,
        deleted=False,
        connection=asdict(run.connection),
        by_others=None,
    )


async def inspect(run: Run) -> None:
    """Read connection and state; nothing is touched yet."""
    in_order = run.request.get("seen_paused", False)
    found = await run.durably(
        lambda _: run.steps.inspect(
            run.id,
            in_order,
            run.request.get("asked_at"),
            run.group,
        ),
        patience=0,
    )
    if "connection" in found:
        inspection = cast(Inspection, found)
        run.connection = Connection(**inspection["connection"])
        run.inspected = inspection["snapshot"]
        run.is_settled = inspection["is_settled"]
    else:
        run.connection = Connection(**found)
        run.began_with_0_1 = True
    run.was_paused = run.connection.paused
    if run.inspected is not None:
        found_state = await run.document_of(run.inspected)
        run.saw(found_state, run.inspected["version"], run.inspected.get("at"))
    if not run.connection.keeps_state:
        raise state_not_kept(run.connection)
    if run.inspected is None and not run.began_with_0_1:
        raise NoStateYet(f"{run.connection_id} has no state yet, so it cannot be written.")


async def unchanged(run: Run) -> Outcome | None:
    """The outcome of a change that changes nothing, so that the connection is not paused for it.

    Raises the error of an impossible change before the pause, too.
    """
    if run.began_with_0_1:
        if not await is_noop(run):
            return None
        run.inspected = await run.durably(lambda _: run.steps.snapshot(run.id), patience=0)
    else:
        check_resync(run)
        if run.request.get("then_sync"):
            refuse_impossible_sync(run.connection)
    assert run.inspected is not None
    before = await run.document_of(run.inspected)
    target = await run.target(before, run.inspected["version"])
    if not await large.run(state.same, before, target) or is_held(run.request):
        return None
    return await large.run(run.outcome, "unchanged", before, target)


def check_resync(run: Run) -> None:
    if not run.request.get("allow_resync"):
        refuse_pending_resync(run.connection)


async def change(run: Run) -> Outcome:
    """Make the change: every step between inspect and resume."""
    refused: tuple[state.Document, state.State] | None = None
    while True:
        await pausing.quiesce(run)
        snapshot = await present(run)
        before = await run.document_of(snapshot)
        run.saw(before, snapshot["version"], snapshot.get("at"))
        kept = Written(answer=None)
        unclear: FivetranError | None = None
        if refused is not None and await large.run(state.same, before, refused[1]):
            before, target = refused  # The write took effect despite its error.
        else:
            if run.may_have_written and refused is not None:
                await insist_on_unwritten(run, before, refused[0], snapshot["version"])
            if not run.began_with_0_1:
                check_resync(run)
            target = await run.target(before, snapshot["version"])
            if await large.run(state.same, before, target):
                run.before, run.after = before, target
                return await large.run(run.outcome, "unchanged", before, target)
            try:
                run.cannot_be_cancelled = True
                written = await run.durably(partial(write, run, target, snapshot))
                kept = written or kept  # 0.1 recorded nothing.
            except SyncRunning as error:
                if error.details.get("was_resumed"):
                    run.still_paused = False  # From here on, a pause is not ours.
                run.cannot_be_cancelled = run.may_have_written
                refused = before, target
                await pausing.wait_for_the_sync(run)
                continue
            except FivetranError as error:
                if not run.may_have_written:
                    raise
                unclear = error
        run.reached("write")
        await verification.verify(run, before, target, kept["answer"], unclear)
        run.reached("verify")
        run.before, run.after = before, target
        return await large.run(run.outcome, "updated", before, target)


async def present(run: Run) -> Snapshot:
    """The present state. The inspected one is used if no sync can have run since."""
    if run.is_settled and run.inspected is not None:
        snapshot = run.inspected
    else:
        snapshot = await run.durably(lambda _: run.steps.snapshot(run.id))
    run.is_settled = False
    run.reached("snapshot")
    return snapshot


async def insist_on_unwritten(
    run: Run, now: state.Document, before: state.Document, version: str
) -> None:
    """Raise `Conflict` if the state has changed since before a write in doubt."""
    if not await large.run(state.same, now, before):
        raise Conflict(
            f"The state became version {version} while it was unclear whether the update had "
            "been written; it was left as it is.",
            current_version=version,
        )
    run.may_have_written = False


async def write(run: Run, target: state.State, snapshot: Snapshot, attempt: int) -> "Written":
    """Write. Look first, unless this is certainly the first try and nothing was waited for."""
    has_tried = run.may_have_written or snapshot["taken_by"] != run.id
    look = attempt > 0 or run.has_waited or has_tried
    try:
        part_of = run.request.get("part_of")
        return await run.steps.write(target, snapshot, part_of, look=look, has_tried=has_tried)
    except FivetranError as error:
        run.may_have_written = bool(error.details.get("maybe_applied"))
        raise


async def sync(run: Run, outcome: Outcome) -> None:
    """Start the sync of `then_sync`. A failure is recorded and does not fail the update."""
    if not run.request.get("then_sync") or outcome["outcome"] == "unchanged":
        return
    if outcome["deleted"] or run.connection.paused:
        why = "was deleted" if outcome["deleted"] else "is paused"
        outcome["sync"] = Sync(started=False, problem=f"The connection {why}.")
        return
    try:
        await run.durably(
            lambda _: run.steps.start_sync(), patience=SYNC_PATIENCE, limit_patience=SYNC_PATIENCE
        )
        outcome["sync"] = Sync(started=True, problem=None)
    except FivetranError as error:
        outcome["sync"] = Sync(started=False, problem=error.message)


async def is_noop(run: Run) -> bool:
    """True if the request alone shows that nothing will change."""
    expected, value = run.request["expected_version"], run.wanted.value
    if run.wanted.kind != "new_state" or not isinstance(value, dict) or expected is None:
        return False
    return run.is_expected(expected, await large.run(state.version, value))


def _unexpected(error: Exception) -> InternalError:
    logger.exception("The update met an unexpected error", extra={"workflow_id": DBOS.workflow_id})
    return InternalError(f"The update met an unexpected {type(error).__name__}.")
