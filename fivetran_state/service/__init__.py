"""One asynchronous method for each capability; every surface calls these and nothing deeper."""

import asyncio
import copy
from contextlib import suppress

from fivetran_state.config import Settings
from fivetran_state.events import Events
from fivetran_state.runtime.accounts import Account
from fivetran_state.runtime.engine import Engine
from fivetran_state.service.by_id import ById
from fivetran_state.service.caller import Caller, SeenPaused
from fivetran_state.service.changes import Changes
from fivetran_state.service.connections import Connections
from fivetran_state.service.gauges import Gauges
from fivetran_state.service.groups import Groups
from fivetran_state.service.history import History
from fivetran_state.service.operations import Operations
from fivetran_state.service.pauses import Pauses
from fivetran_state.service.plans import Plans
from fivetran_state.service.proposals import Proposals
from fivetran_state.service.selection import Selection
from fivetran_state.service.sources import Sources
from fivetran_state.service.states import States
from fivetran_state.service.workflows import Workflows


class Service:
    """The capabilities of one account. Every method raises only `FivetranStateError`s."""

    def __init__(self, settings: Settings, events: Events | None = None) -> None:
        """`events`: if somebody listens to them."""
        self._settings = settings
        self.events = events or Events.of(settings)
        self._engine = Engine(settings, self.events)
        self._seen_paused = SeenPaused()
        self.operations = Operations(settings, self._engine)
        self.gauges = Gauges(self._engine)
        self._serve(None)

    def _serve(self, guest: Account | None) -> None:
        caller = Caller(self._settings, self._engine, self._seen_paused, self.events, guest)
        self.history = History(caller)
        sources = Sources(caller, self.history)
        self.check = caller.check
        self.connections = Connections(caller)
        self.states = States(caller, self.history)
        self.plans = Plans(caller, sources, self.history)
        self.changes = Changes(caller, sources, self.plans)
        self.selection = Selection(caller)
        self.groups = Groups(caller, sources, self.plans)
        self.pauses = Pauses(caller)
        self.workflows = Workflows(caller)
        self.proposals = Proposals(caller, self.plans, self.groups, self.workflows)
        self.by_id = ById(self.changes, self.groups, self.workflows, self.proposals)

    async def of(self, api_key: str, api_secret: str) -> "Service":
        """The same capabilities for the account of these credentials."""
        launched = await self._engine.up()
        service = copy.copy(self)
        service._serve(await launched.accounts.guest(api_key, api_secret))
        return service

    def start(self, watch_interval: float = 0) -> None:
        """Begin to come up in the background, on the event loop of all later calls.

        Then look for states that syncs have moved, every `watch_interval` seconds; 0 is never.
        """
        self._engine.start(watch_interval)

    async def close(self, patience: float = 0) -> None:
        """Stop. Updates that do not end within `patience` seconds are handed over to a new process."""
        if patience:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._engine.idle(), patience)
        await self._engine.close()

    async def leave(self) -> None:
        """Do only the part of `close` that matters when the process ends right afterwards."""
        await self._engine.leave()
