"""A member of a group reports, then waits for the decision whether its change stays."""

from contextlib import suppress

from dbos import error as dbos_error

from fivetran_state import state
from fivetran_state.errors import (
    Conflict,
    ConnectionNotFound,
    FivetranStateError,
    InternalError,
    RollbackFailed,
    Tampered,
    Undone,
)
from fivetran_state.updates import binding, signals, verification
from fivetran_state.updates.records import is_held, owner
from fivetran_state.updates.run import MAX_RETRY_PAUSE, Run
from fivetran_state.updates.signals import Signal


async def report(run: Run, how: str) -> None:
    """Tell the group once that this update is done, or how it failed.

    If the group's workflow is gone, this update goes on by itself.
    """
    if not is_held(run.request) or run.has_reported:
        return
    run.has_reported = True
    me = owner(run.request)
    # On replay, DBOS raises the second instead of the first.
    with suppress(dbos_error.DBOSNonExistentWorkflowError, InternalError):
        if "mode" in run.request:
            await binding.send(run.request["part_of"], [me, how], signals.NEWS)
        else:
            await binding.send(run.request["part_of"], how, me)


async def wait_for_the_others(run: Run) -> None:
    """Wait, still paused, for the other connections of the group.

    Raises `Undone`, with the state from before back in place, if one of them has failed or the group
    was cancelled.
    """
    await run.tell("hold", "Done; waiting for the connections that are changed with it.")
    group = run.request["part_of"]
    if "mode" in run.request:
        verdict: str = await run.steps.verdict(group, run.slot)
    else:
        async with run.slot.given_back():
            verdict = await signals.wait(signals.VERDICT, group, MAX_RETRY_PAUSE)
    if verdict == Signal.KEEP:
        return
    await run.tell("roll_back", "Putting the state from before back.")
    trouble = "Fivetran did not keep it."
    try:
        if isinstance(run.before, state.RawDocument):
            raise Conflict("What was there before is not a state that can be written.")
        before, after = run.before, run.after
        is_back = await verification.put_back(run, before, lambda: run.steps.undo(before, after))
    except (ConnectionNotFound, Tampered):
        raise
    except FivetranStateError as error:
        is_back, trouble = False, error.message
    if not is_back:
        raise RollbackFailed(
            "The group was called off, and the state from before could not be put back here: "
            f"{trouble}"
        )
    raise Undone("The group was called off; the state from before is back.")
