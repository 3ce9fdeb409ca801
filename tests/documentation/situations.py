"""What has happened before the session of a page begins."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from fivetran_state import vault
from fivetran_state.history.versions import SeenBy
from fivetran_state.sandbox import Sandbox
from tests.support.calls import IDLE, PAUSED, SYNCING, sync_until_paused
from tests.support.commands import run
from tests.support.history import engine_of, remember, store_of
from tests.support.updates import refuse_resumes

Situation = Callable[[Sandbox, dict[str, str], Path], None]


def begin(page: str, sandbox: Sandbox, environment: dict[str, str], folder: Path) -> None:
    """Make the situation of a page: a sync of SYNCING runs, and what the page needs."""
    sync_until_paused(sandbox)
    sandbox.world.change(SYNCING, lambda there, _: replace(there, drain_seconds=0))
    if page in _OF:
        _OF[page](sandbox, environment, folder)


def _states_of_november(_: Sandbox, environment: dict[str, str], folder: Path) -> None:
    """The watcher has seen the states of some days."""
    run(environment, folder, "connections")  # Makes the database and its key.
    home = Path(environment["FIVETRAN_STATE_DATA_DIR"])
    (account,) = (path.read_text() for path in (home / "accounts").iterdir())
    engine = engine_of(f"sqlite:///{home / 'state.db'}")
    key = vault.key_from_file(home / "key")
    store = store_of(engine, f"fivetran-state-{account}", keys=[key])

    async def look() -> None:
        for day in (23, 24, 25):
            at = datetime(2026, 11, day, 6, 0, tzinfo=timezone.utc)
            text = f'{{"cursor":"2026-11-{day}T05:58:00Z"}}'
            await remember(store, text, int(at.timestamp() * 1000), SeenBy.SYNC, owner=IDLE)

    asyncio.run(look())
    engine.dispose()


def _left_paused(sandbox: Sandbox, environment: dict[str, str], folder: Path) -> None:
    """An update could not resume its connection, because Fivetran's limit was used up."""
    sandbox.set_paused(PAUSED, False)
    refuse_resumes(sandbox, PAUSED)
    person = environment | {"LOGNAME": "bob"}
    version = run(person, folder, "get", PAUSED).stderr.split()[-1]
    rewind = ("--merge-patch", '{"last_sync": "2026-11-01T00:00:00Z"}')
    reason = ("--reason", "A bad deploy on Monday.")
    run(person, folder, "update", PAUSED, *rewind, *reason, "--expected-version", version)


def _proposed(_: Sandbox, environment: dict[str, str], folder: Path) -> None:
    """Bob proposes what the page shows."""
    rewind = ("--merge-patch", '{"orders": {"cursor": "2026-01-01T00:00:00Z"}}')
    reason = ("--propose", "--reason", "bad data since January")
    run(environment | {"LOGNAME": "bob"}, folder, "update", "twin_harvest", *rewind, *reason)


_OF: dict[str, Situation] = {
    "docs/how-to/approve.md": _proposed,
    "docs/how-to/go-back.md": _states_of_november,
    "docs/how-to/on-call.md": _left_paused,
}
