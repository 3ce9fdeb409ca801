"""Messages between a group and its members."""

from enum import Enum

from dbos import DBOS

from fivetran_state.updates import binding
from fivetran_state.updates.records import UNFINISHED

VERDICT = "verdict"
"""The event of a group that tells its decision. In 0.1, the topic of a message to each member."""
NEWS = "news"
"""The topic of members' messages: their owner, and `DONE` or the code of an error.

In 0.1, each member's message had its owner as the topic. A cancel of the group is a message with no owner.
"""


class Signal(str, Enum):
    """In place of `DONE` a member that failed sends the code of its error."""

    DONE = "done"
    """From a member: it has written and verified, or found nothing to change."""
    KEEP = "keep"
    UNDO = "undo"


async def wait(topic: str, sender: str, seconds: float) -> str:
    """The next message under this topic; `UNDO` if the sender has ended without one."""
    while True:
        message = await binding.receive(topic, seconds)
        if message is None and await has_ended(sender):
            # It has said so before it ended, or somebody else has ended it.
            message = await binding.receive(topic, 0) or Signal.UNDO.value
        if message is not None:
            return str(message)


@binding.step("has_ended")
async def has_ended(workflow_id: str) -> bool:
    """True if another workflow has ended."""
    status = await DBOS.get_workflow_status_async(workflow_id)
    return status is None or status.status not in UNFINISHED
