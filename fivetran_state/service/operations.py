"""Operators' commands: check the server, finish updates, list what is left paused."""

from fivetran_state.config import WATCH_INTERVAL, Settings
from fivetran_state.runtime.engine import Engine
from fivetran_state.service.diagnosis import Doctor
from fivetran_state.service.unfinished import Finding, left_paused
from fivetran_state.watch.look import Looked


class Operations:
    """Commands for the whole server, not for one account."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine

    async def check_ready(self) -> None:
        """Raise the error that keeps updates from being made, or the database from being read."""
        launched = await self._engine.up()
        await launched.updates.unfinished.ids()

    async def finish(self, after: str | None = None) -> dict[str, str]:
        """Wait until no update is left that this process, or a dead one, has to finish.

        Returns the connections that updates have left paused, with the update's id.
        """
        await self._engine.finish(after)
        return await self.left_paused()

    async def look(self) -> Looked:
        """Look once for states that syncs have moved; raises `MissingCredentials`."""
        launched = await self._engine.up()
        launched.accounts.own()  # Raises.
        return await launched.watcher.look()

    async def watch(self) -> None:
        """Look again and again; never returns. Raises `MissingCredentials`."""
        launched = await self._engine.up()
        launched.accounts.own()  # Raises.
        await launched.watcher.watch(self._settings.watch_interval or WATCH_INTERVAL)

    async def left_paused(self) -> dict[str, str]:
        """Connection id → workflow id of each connection that an update has left paused at Fivetran.

        A guest's connection is named behind its account. Without an answer of Fivetran's within
        `PATIENCE`, as when a guest's credentials are erased, a connection counts as paused.
        """
        return await left_paused(await self._engine.up())

    async def diagnose(self) -> list[Finding]:
        """The findings of `fivetran-state doctor`. It does not need the engine to be started."""
        return await Doctor(self._settings).examine()
