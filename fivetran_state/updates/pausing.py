"""Pauses and drains before the write, and resumes after it. A person's last action counts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranError,
    FivetranStateError,
    FivetranUnavailable,
    Forbidden,
    LeftPaused,
    SyncRunning,
    SyncStillRunning,
    Unauthorized,
)
from fivetran_state.fivetran_answers import Connection
from fivetran_state.updates.run import MAX_RETRY_PAUSE, PATIENCE, Run

logger = logging.getLogger(__name__)


async def quiesce(run: Run) -> None:
    """Pause and drain: returns when the connection is paused and no sync is running."""
    while True:
        note_others(run)
        if not run.connection.paused:
            run.is_settled = False
            await run.tell("pause", "Pausing the connection.", still_paused=True)
            try:
                await run.durably(partial(pause, run))
            except SyncRunning:
                await wait_for_the_sync(run)
                continue
        if run.connection.is_drained:
            run.has_waited = False
            return
        run.is_settled = False
        await wait_for_the_sync(run)


def note_others(run: Run) -> None:
    """Remember a pause or resume by somebody else, which counts at the end."""
    if run.was_paused and not run.connection.paused:
        run.by_others = "resumed"
    elif run.connection.paused and not run.was_paused and not run.still_paused:
        run.by_others = "paused"


async def pause(run: Run, attempt: int) -> None:
    # Our own pause may have taken effect, so a paused connection proves nothing.
    look = attempt > 0 and run.is_first_run and not run.still_paused
    try:
        found = await run.steps.pause(
            look=look,
            is_first_run=run.is_first_run,
            can_be_cancelled=not run.cannot_be_cancelled,
            group=run.group,
        )
    except FivetranStateError as error:
        # An error that 0.1 recorded does not tell.
        is_unclear = run.began_with_0_1 and isinstance(error, FivetranUnavailable)
        if error.details.get("maybe_applied") or is_unclear:
            run.still_paused = True
        raise
    run.connection = Connection(**found.get("connection", found))
    run.still_paused = run.still_paused or not found.get("was_paused", False)
    note_others(run)


async def wait_for_the_sync(run: Run) -> None:
    """Sleep (durably), then look again; raises `SyncStillRunning` when the time is up."""
    if run.waited >= run.request["sync_wait"]:
        if run.is_rolling_back:
            written = ""
        elif run.may_have_written:
            written = " It is unclear whether the new state was written."
        else:
            written = " Nothing was written."
        raise SyncStillRunning(
            f"Fivetran did not stop the running sync within {run.request['sync_wait']:g} s.{written}"
        )
    so_far = f", {run.waited:g} s so far" if run.waited else ""
    await run.tell("drain", f"Waiting for the running sync to stop{so_far}.")
    seconds = min(run.between_polls, run.request["sync_wait"] - run.waited)
    await run.sleep(seconds)
    run.waited += seconds
    run.between_polls = min(run.between_polls * 2, 15.0)
    run.connection = Connection(**await run.durably(lambda _: run.steps.drain(run.group)))


async def resume(run: Run, so_far: Mapping[str, Any]) -> bool:
    """Undo our own pause, trying for a day; then `LeftPaused` says what happened `so_far`.

    False if there is nothing to resume any more, because the connection was deleted.
    """
    run.cannot_be_cancelled = True
    if not run.still_paused:
        return True
    try:
        found = await run.durably(
            lambda _: run.steps.resume(),
            even_if=FivetranError,
            refusal_patience=PATIENCE,
            another_key_may=(Unauthorized, Forbidden),
        )
    except ConnectionNotFound:
        return False
    except FivetranError as error:
        raise left_paused(error, so_far) from error
    # 0.1 recorded nothing.
    run.connection = Connection(**found) if found else replace(run.connection, paused=False)
    run.still_paused = False
    run.reached("resume")
    return True


def left_paused(error: FivetranStateError, so_far: Mapping[str, Any]) -> LeftPaused:
    """The end of an update whose connection could not be resumed; `so_far`: how it had ended before."""
    return LeftPaused(
        f"The connection is still paused; it could not be resumed: {error.message}",
        paused_by_update=True,
        so_far=dict(so_far),
    )


async def resume_unrecorded(run: Run) -> None:
    """Undo our own pause when nothing can be recorded. Until then the row stays unfinished."""
    if run.may_have_paused:
        await insist_on_resuming(partial(run.steps.set_paused, False))


async def insist_on_resuming(resume: Callable[[], Awaitable[Connection]]) -> None:
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
