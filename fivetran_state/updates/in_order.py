"""Groups as 0.1 began them: one update after the other, each told by a message whether it stays."""

from contextlib import suppress

from fivetran_state.errors import FivetranStateError
from fivetran_state.updates import binding, signals
from fivetran_state.updates.members import Members
from fivetran_state.updates.records import UpdateRequest, owner
from fivetran_state.updates.run import MAX_RETRY_PAUSE
from fivetran_state.updates.signals import VERDICT, Signal
from fivetran_state.updates.start import Handle


async def complete(
    members: Members, requests: list[UpdateRequest]
) -> tuple[list[str], FivetranStateError | None]:
    """The ids of the updates that were started, and why the next one could not be."""
    started: list[Handle] = []
    failure: FivetranStateError | None = None
    verdict = Signal.KEEP
    for request in requests:
        try:
            started.append(await members.start(request))
        except FivetranStateError as error:
            failure, verdict = error, Signal.UNDO
            break
        member = started[-1].workflow_id
        if await signals.wait(owner(request), member, MAX_RETRY_PAUSE) != Signal.DONE:
            verdict = Signal.UNDO
            break
    for update in started:
        await binding.send(update.workflow_id, verdict.value, VERDICT)
    for update in started:
        with suppress(FivetranStateError):  # The update's own row has its error.
            await update.get_result()
    return [update.workflow_id for update in started], failure
