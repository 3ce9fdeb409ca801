"""What updates need of their process: built once, at start, and handed to constructors."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from fivetran_state.events import Events
from fivetran_state.fivetran import Fivetran
from fivetran_state.history.recorder import Recorder
from fivetran_state.updates.decisions import Decisions
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.updates.running import Running
from fivetran_state.updates.slots import Slots
from fivetran_state.updates.store import Store


class Accounts(Protocol):
    """The Fivetran accounts whose connections this process updates."""

    def client_for(
        self, request: UpdateRequest, workflow_id: str
    ) -> AbstractAsyncContextManager[Fivetran]:
        """A client of the request's account, for as long as its update runs.

        Raises `MissingCredentials`.
        """


class Lease(Protocol):
    """This process's right to go on with its updates."""

    async def prove(self, workflow_id: str) -> None:
        """Return if the workflow is still this process's to run, and never otherwise.

        Await it before each call that changes something.
        """

    async def release(self, workflow_id: str) -> None:
        """Let other processes take the workflow over: Fivetran refuses this one's key."""


@dataclass(frozen=True)
class Runtime:
    """What the updates of this process work with."""

    application: str
    """The DBOS application: one for each Fivetran account."""
    accounts: Accounts
    lease: Lease
    running: Running
    store: Store
    slots: Slots
    """For the members of groups."""
    decisions: Decisions
    recorder: Recorder
    """Remembers the states that updates find and leave."""
    events: Events
