"""The phases of an update and the steps that DBOS records, in one table."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal[
    "inspect",
    "pause",
    "drain",
    "snapshot",
    "write",
    "verify",
    "hold",
    "roll_back",
    "resume",
    "wait",
]
"""The names that a caller sees."""


@dataclass(frozen=True)
class Entry:
    """One name: of a phase, of a recorded step, or of both."""

    name: Phase | Literal["undo", "sync"]
    is_step: bool = True
    is_usual: bool = False
    """Every update that changes something passes it, in the order of the table."""
    then: tuple[Phase, str] | None = None
    """The progress once the step is recorded: the phase that follows, and a sentence."""


TABLE = (
    Entry("inspect", is_usual=True),
    Entry("pause", is_usual=True),
    Entry("drain", is_usual=True),
    Entry("snapshot", is_usual=True, then=("write", "Writing the new state.")),
    Entry("write", is_usual=True, then=("verify", "Reading the state back.")),
    Entry("verify", is_usual=True, then=("resume", "Putting the connection back as it was.")),
    Entry("hold", is_step=False),
    Entry("roll_back"),
    Entry("undo"),
    Entry("resume", is_usual=True, then=("resume", "The connection is back as it was.")),
    Entry("sync"),
    Entry("wait", is_step=False),
)

STEPS: tuple[str, ...] = tuple(entry.name for entry in TABLE if entry.is_step)
USUAL: tuple[str, ...] = tuple(entry.name for entry in TABLE if entry.is_usual)
AFTER: dict[str, tuple[Phase, str]] = {e.name: e.then for e in TABLE if e.then is not None}
"""By step, the progress once it is recorded."""
