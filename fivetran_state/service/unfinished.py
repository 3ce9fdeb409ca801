"""Findings about updates that have not ended, and about connections that were left paused."""

import asyncio
import re
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fivetran_state.config import Settings
from fivetran_state.errors import (
    ConnectionNotFound,
    FivetranStateError,
    Forbidden,
    MissingCredentials,
    Unauthorized,
    WorkflowNotFound,
)
from fivetran_state.ids import UpdateId
from fivetran_state.runtime.accounts import Accounts
from fivetran_state.runtime.launch import Launched
from fivetran_state.runtime.survey import Survey
from fivetran_state.text import caller, quoted
from fivetran_state.updates import records
from fivetran_state.updates.records import GROUP, NAME, STARTED, Update, UpdateRequest

MAX_WELL = 20
"""Updates that run well and are listed. Those that do not are all listed."""
AT_ONCE = 10
"""Connections that Fivetran is asked about at the same time. Each update may have megabytes."""
PATIENCE = 5.0
"""Seconds to wait for Fivetran to say whether a connection is still paused."""

_PROCESS = re.compile("([0-9]+)-[0-9a-f]{32}")


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    what: str
    is_well: bool | None
    """None: it could not be found out, for a reason that another finding names."""
    detail: str
    next: str | None = None
    """What to do."""
    update: dict[str, Any] | None = None
    """The facts of an update that has not ended, as JSON values."""


class Unfinished:
    """Judges the updates of one account by what a survey reads."""

    def __init__(self, settings: Settings, survey: Survey, clients: Accounts) -> None:
        self._settings = settings
        self._survey = survey
        self._clients = clients

    async def findings(self) -> list[Finding]:
        """One for each update that has not ended, and for each connection that one has left paused."""
        found = self._survey
        rows = [
            row
            for row in await asyncio.to_thread(found.unfinished.rows)
            if row.name in (NAME, GROUP)
            and not (
                row.was_ended_from_outside
                and await asyncio.to_thread(found.unfinished.is_superseded, row)
            )
        ]
        held = await found.unfinished.left_paused()
        findings: list[Finding] = []
        for row in rows:
            findings += await self._running(row, held.values())
        running = {row.workflow_id for row in rows}
        for owner, workflow_id in held.items():
            if workflow_id not in running:
                findings += await self._left_paused(owner, workflow_id)
        well = [finding for finding in findings if finding.is_well]
        stuck = [finding for finding in findings if not finding.is_well]
        told = [*well[:MAX_WELL], *stuck]
        if well or not stuck:
            none = "" if stuck else ", no connection is left paused"
            told.insert(0, Finding("updates", True, f"{len(well)} running well{none}"))
        return told

    async def _running(self, row: records.Unfinished, held: Collection[str]) -> list[Finding]:
        """How the update is, and who runs it; nothing if it has just ended."""
        found = self._survey
        what = f"update {row.workflow_id}" if row.name == NAME else f"group {row.workflow_id}"
        is_alive = await asyncio.to_thread(found.is_alive, row.executor_id)
        facts: dict[str, Any] = {"workflow_id": row.workflow_id, "process": row.executor_id}
        told, pause = f"it is run by {_process(row.executor_id)}", None
        if row.name == NAME:
            try:
                update = await found.store.get(row.workflow_id)
            except FivetranStateError as error:
                return [Finding(what, False, error.message, error.hint, facts)]
            if update.status != "running":
                return []
            progress = update.progress or STARTED
            seconds = time.time() - update.created_at / 1000
            if row.workflow_id in held:
                pause = time.time() - await found.store.paused_since(update)
            asked_by = update.request.get("asked_by")
            facts |= {
                "asked_by": asked_by,
                "phase": progress["phase"],
                "seconds": round(seconds, 1),
                "paused_seconds": None if pause is None else round(pause, 1),
            }
            told = _told(row, update, seconds, pause)
        elif not await found.store.is_running(row.workflow_id):
            return []
        problem, next_ = self._problem(row, is_alive=is_alive, pause=pause)
        if problem is None:
            return [Finding(what, True, told, update=facts)]
        return [Finding(what, False, f"{problem} {told}", next_, facts)]

    def _problem(
        self, row: records.Unfinished, *, is_alive: bool, pause: float | None
    ) -> tuple[str | None, str | None]:
        """What is wrong with an update that has not ended, and what to do."""
        if row.was_ended_from_outside:
            problem = "Somebody has ended it in the database."
        elif row.is_released:
            problem = "Fivetran has refused the API key of the process that ran it."
        elif not is_alive:
            problem = "The process that ran it has ended."
        elif pause is not None and 0 < self._settings.alert_minutes * 60 < pause:
            return (
                "It has held its connection paused for longer than FIVETRAN_STATE_ALERT_MINUTES.",
                f"Look what it waits for: fivetran-state status {row.workflow_id}",
            )
        else:
            return None, None
        finish = "A server goes on with it within seconds. If none runs: fivetran-state finish"
        if self._may_go_on(row):
            return problem, finish
        return problem, (
            f"{finish}. FIVETRAN_STATE_READ_ONLY and FIVETRAN_STATE_ALLOWED_CONNECTIONS must allow it; "
            "those that are set here do not."
        )

    def _may_go_on(self, row: records.Unfinished) -> bool:
        """True if a process with these settings goes on with the update. Nobody asks for each group."""
        settings = self._settings
        if settings.read_only:
            return False
        if settings.allowed_connections == "*" or row.name == GROUP:
            return settings.allowed_connections == "*"
        return settings.allows(UpdateId.parse(row.workflow_id).connection_id)

    async def _left_paused(self, owner: str, workflow_id: str) -> list[Finding]:
        """The connection, unless somebody has resumed or deleted it since."""
        try:
            update = await self._survey.store.get(workflow_id)
            with suppress(ConnectionNotFound):
                if await is_paused(self._clients, update.request, workflow_id):
                    return [_paused_connection(owner, update)]
            return []
        except FivetranStateError as error:
            return [Finding(f"connection {owner}", False, error.message, error.hint)]


async def left_paused(launched: Launched, *, is_ended: bool = False) -> dict[str, str]:
    """Connection id → workflow id of each connection that an update has left paused at Fivetran.

    It counts until Fivetran says that somebody has resumed or deleted it. `is_ended`: without
    those of running updates.
    """
    few = asyncio.Semaphore(AT_ONCE)

    async def may_be_paused(workflow_id: str) -> bool:
        async with few:
            return await _may_be_paused(launched, workflow_id)

    held = await launched.updates.unfinished.left_paused(is_ended=is_ended)
    may_be = await asyncio.gather(*map(may_be_paused, held.values()))
    return {owner: id_ for (owner, id_), counts in zip(held.items(), may_be, strict=True) if counts}


async def _may_be_paused(launched: Launched, workflow_id: str) -> bool:
    try:
        request = (await launched.updates.store.get(workflow_id)).request
        asking = is_paused(launched.accounts, request, workflow_id)
        return await asyncio.wait_for(asking, PATIENCE)
    except (ConnectionNotFound, WorkflowNotFound):
        return False
    except (FivetranStateError, asyncio.TimeoutError):
        return True


async def is_paused(clients: Accounts, request: UpdateRequest, workflow_id: str) -> bool:
    """True as well if Fivetran does not show the connection with the credentials that there are."""
    try:
        async with clients.client_for(request, workflow_id) as fivetran:
            return (await fivetran.get_connection(request["connection_id"])).paused
    except (MissingCredentials, Unauthorized, Forbidden):
        return True


def _paused_connection(owner: str, update: Update) -> Finding:
    why = "" if update.error is None else f": {update.error.message}"
    resume = (
        "Resume it in Fivetran; its account is a guest's."
        if "/" in owner
        else f"Correct what kept it paused, then: fivetran-state resume {owner}"
    )
    return Finding(
        f"connection {owner}", False, f"left paused by the update {update.workflow_id}{why}", resume
    )


def _told(row: records.Unfinished, update: Update, seconds: float, pause: float | None) -> str:
    progress = update.progress or STARTED
    asked_by = update.request.get("asked_by")
    sentences = [
        f"asked for by {'an unknown caller' if asked_by is None else caller(asked_by)}, run by "
        f"{_process(row.executor_id)} for {seconds:,.0f} s, now in the phase {progress['phase']}: "
        f"{progress['message']}"
    ]
    if pause is not None:
        sentences.append(f"It has held the connection paused for {pause:,.0f} s.")
    return " ".join(sentences)


def _process(executor_id: str | None) -> str:
    found = _PROCESS.fullmatch(executor_id or "")
    return f"process {found[1]}" if found else f"the executor {quoted(executor_id or 'unknown')}"
