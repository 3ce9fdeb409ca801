"""Compares the state after the write with the target, and rolls back only our own write."""

from collections.abc import Awaitable, Callable

from fivetran_state import large, state
from fivetran_state.errors import (
    Conflict,
    ConnectionNotFound,
    FivetranError,
    RollbackFailed,
    SyncRunning,
    SyncStillRunning,
    Unauthorized,
    VerificationFailed,
)
from fivetran_state.updates import pausing
from fivetran_state.updates.records import Readback
from fivetran_state.updates.refusals import described_differences, left_as_it_is
from fivetran_state.updates.run import Run


async def verify(
    run: Run,
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
        found = await readback(run, target)
    except ConnectionNotFound:
        raise
    except FivetranError as error:
        raise RollbackFailed(
            f"What was written was left as it is, because it could not be read back: {error.message}"
        ) from error
    run.may_have_written = False  # From here on it is known.
    if found["is_as_written"]:
        await run.wrote(target, found.get("at"))
        return
    now = None
    if found["found"] is not None:
        now = await large.run(state.document, found["found"])
        run.saw(now, await large.run(state.version, now), found.get("at"))
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
    if not is_ours and not run.began_with_0_1:
        raise await large.run(left_as_it_is, target, now)
    await roll_back(run, before, target, kept, now)


async def readback(run: Run, target: state.State) -> Readback:
    if run.began_with_0_1:
        found = await run.durably(lambda _: run.steps.verify(target))
    else:
        found = await run.durably(
            lambda _: run.steps.verify(target),
            even_if=FivetranError,
            another_key_may=(Unauthorized,),
        )
    # 0.1 recorded only whether it was as written.
    return Readback(is_as_written=found, found=None) if isinstance(found, bool) else found


async def put_back(run: Run, before: state.State, step: Callable[[], Awaitable[None]]) -> bool:
    """Put the state from before back by `step`, and read it; false if Fivetran did not keep it.

    A running sync is waited for, as before the write. Raises `Conflict` if the state is somebody else's
    by then, and `SyncStillRunning`.
    """
    run.begin_roll_back()
    while True:
        try:
            await run.durably(lambda _: step(), another_key_may=(Unauthorized,))
            break
        except SyncRunning as error:
            if run.began_with_0_1:
                raise  # 0.1 recorded no step after this one but resume.
            if error.details.get("was_resumed"):
                run.still_paused = False  # From here on, a pause is not ours.
        await pausing.wait_for_the_sync(run)
        await pausing.quiesce(run)
        await run.tell("roll_back", "Putting the state from before back.")
    found = await readback(run, before)
    if found["is_as_written"]:
        await run.wrote(before, found.get("at"))
    return found["is_as_written"]


async def roll_back(
    run: Run,
    before: state.Document,
    target: state.State,
    kept: state.Document | None,
    now: state.Document | None,
) -> None:
    """Write the state from before again, over Fivetran's result of our write; always raises."""
    trouble = "Fivetran did not keep what was written"
    await run.tell("roll_back", f"{trouble}: putting the state from before back.")
    try:
        if isinstance(before, state.RawDocument):
            raise Conflict("the state from before is not one that can be written")
        kept_text = None if kept is None else await large.run(state.dump, kept)
        is_back = await put_back(run, before, lambda: run.steps.roll_back(before, kept_text))
        problem = "."
    except ConnectionNotFound:
        raise
    except (Conflict, FivetranError, SyncStillRunning) as error:
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
