"""Operators' commands: check the server, finish updates, list what is left paused."""

import asyncio
import platform
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata

from fivetran_state import __version__, database
from fivetran_state.config import WATCH_INTERVAL, Settings
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranStateError,
    Forbidden,
    LeftPaused,
    MissingCredentials,
    NotAllowed,
    Unauthorized,
)
from fivetran_state.runtime.accounts import Accounts
from fivetran_state.runtime.engine import Engine
from fivetran_state.updates.records import UpdateRequest
from fivetran_state.watch.look import Looked


@dataclass(frozen=True)
class Finding:
    """One line of `fivetran-state doctor`."""

    what: str
    is_well: bool
    detail: str


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

        A guest's connection is named behind its account. A connection that Fivetran does not show,
        because it refuses the key or a guest's credentials are erased, counts as paused.
        """
        launched = await self._engine.up()
        updates = launched.updates
        found = {}
        for owner, workflow_id in (await updates.unfinished.left_paused()).items():
            request = (await updates.store.get(workflow_id)).request
            with suppress(ConnectionNotFound):
                if await is_paused(launched.accounts, request, workflow_id):
                    found[owner] = workflow_id
        return found

    async def diagnose(self) -> list[Finding]:
        """The findings of `fivetran-state doctor`."""
        findings = [Finding("versions", True, _versions())]

        async def check(what: str, look: Awaitable[str]) -> None:
            try:
                findings.append(Finding(what, True, await look))
            except FivetranStateError as error:
                told = f"{error.message} {error.hint}"
                is_new = all(finding.detail != told for finding in findings)
                findings.append(Finding(what, False, told if is_new else "for the same reason"))

        await check("database, key, lock", self._database_answers())
        await check("Fivetran", self._fivetran_answers())
        await check("updates", self._updates_are_well())
        await check("recovery", self._nothing_is_left_to_others())
        return findings

    async def _database_answers(self) -> str:
        await self._engine.up()
        return database.where(self._settings)

    async def _fivetran_answers(self) -> str:
        launched = await self._engine.up()
        if self._settings.takes_guests and self._settings.api_key is None:
            return "no account of the server's own; requests bring theirs"
        fivetran = launched.accounts.own().fivetran
        connections, cursor = await fivetran.list_connections(limit=1000)
        keeping = sum(connection.keeps_state for connection in connections)
        more = " or more" if cursor else ""
        return f"{len(connections)}{more} connections, {keeping} of which keep a state"

    async def _updates_are_well(self) -> str:
        paused = await self.left_paused()
        if paused:
            listed = ", ".join(f"{name} (by {update})" for name, update in paused.items())
            raise LeftPaused(f"Still paused: {listed}.")
        updates = (await self._engine.up()).updates
        return f"{len(await updates.unfinished.ids())} running, no connection is left paused"

    async def _nothing_is_left_to_others(self) -> str:
        launched = await self._engine.up()
        left = await asyncio.to_thread(launched.recovery.left_to_others)
        if left:
            raise NotAllowed(
                f"{', '.join(left)}: the process that ran it has ended, and this one may not go on "
                "with it. Start a server, or run finish, with settings that allow it."
            )
        if self._settings.read_only:
            return "left to others: this server may not change anything"
        if self._settings.allowed_connections != "*":
            return "of the connections that this server may change; others are left to others"
        return "of every update whose process ends"


async def is_paused(accounts: Accounts, request: UpdateRequest, workflow_id: str) -> bool:
    """True if the connection of the update is paused, or if Fivetran refuses to tell."""
    try:
        async with accounts.client_for(request, workflow_id) as fivetran:
            return (await fivetran.get_connection(request["connection_id"])).paused
    except (MissingCredentials, Unauthorized, Forbidden):
        return True


def _versions() -> str:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("dbos", "mcp", "httpx"))
    return f"fivetran-state {__version__}, {packages}, Python {platform.python_version()}"
