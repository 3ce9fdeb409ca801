"""The disk under the SQLite database is full, before and during an update."""

import resource
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from fivetran_state.sandbox import Sandbox
from tests.conftest import Connect
from tests.support.calls import (
    IDLE,
    PAUSED,
    Watch,
    arrival,
    call,
    is_pause,
    refused,
    until,
    version_of,
)
from tests.support.processes import Server, ended, running

PATCH = {"cursor": "2020", "filling": secrets.token_hex(200_000)}
"""More than the room that is left, even if it is compressed."""


def change(version: str, connection_id: str = IDLE) -> dict[str, Any]:
    return {"connection_id": connection_id, "merge_patch": PATCH, "expected_version": version}


class Disk:
    """The disk as SQLite sees it: the file may not grow, so SQLite says "database or disk is full"."""

    def __init__(self) -> None:
        self._pages = 2**32 - 2

    def is_full(self) -> None:
        self._pages = 1  # SQLite raises this to the file's pages.

    def has_space(self) -> None:
        self._pages = 2**32 - 2

    def apply(self, connection: Any, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {self._pages}")


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    event.listen(Pool, "checkout", disk.apply)
    yield disk
    event.remove(Pool, "checkout", disk.apply)


async def test_an_update_that_the_full_disk_does_not_let_start_is_told_so_and_can_be_made_later(
    connect: Connect, sandbox: Sandbox, disk: Disk
) -> None:
    async with connect() as client:
        version = await version_of(client, IDLE)
        watch = Watch(sandbox, IDLE)
        disk.is_full()
        error = await refused(client, "update_state", **change(version))
        assert watch.requests("PATCH", state=False) == []

        disk.has_space()
        updated = await call(client, "update_state", **change(version), wait_seconds=50)

    assert error["code"] == "database_unavailable"
    assert "database or disk is full" in error["message"]
    assert "FIVETRAN_STATE_DATA_DIR" in error["message"]
    assert updated["status"] == "updated"
    watch.ended_with(watch.old | PATCH)


@pytest.mark.slow
async def test_an_update_that_the_disk_stops_goes_on_when_there_is_space_again(
    environment: dict[str, str], sandbox: Sandbox, tmp_path: Path
) -> None:
    database = Path(environment["FIVETRAN_STATE_DATA_DIR"]) / "state.db"
    async with running(environment, tmp_path) as server:
        version = await version_of(server.client, IDLE)
        watch = Watch(sandbox, IDLE)
        of_another = change(await version_of(server.client, PAUSED), PAUSED)
        pause = sandbox.fault("apply_then_hang", method="PATCH")
        started = await call(server.client, "update_state", **change(version), wait_seconds=0)
        workflow_id = started["workflow_id"]
        await arrival(sandbox, is_pause)

        await until(lambda: anyio.to_thread.run_sync(is_emptied, database))
        with room_for(server, ROOM):
            pause.release()
            await until(lambda: anyio.to_thread.run_sync(has_failed, tmp_path / "stderr.txt"))
            meanwhile = await call(server.client, "workflow_status", workflow_id=workflow_id)
            error = await refused(server.client, "update_state", **of_another)
        status = await ended(server.client, workflow_id)

    assert (meanwhile["status"], meanwhile["paused_by_update"]) == ("running", True)
    assert error["code"] == "database_unavailable"
    assert "FIVETRAN_STATE_DATA_DIR" in error["message"]
    assert (status["status"], status["paused_by_update"]) == ("updated", False)
    watch.ended_with(watch.old | PATCH)


ROOM = 32 * 1024
"""Size of a file in bytes: enough for a few pages of the database, and the log on stderr."""


@contextmanager
def room_for(server: Server, size: int) -> Iterator[None]:
    """No file of the server may grow beyond this size, as if the disk were full."""
    unlimited = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, unlimited)


def is_emptied(database: Path) -> bool:
    """True if SQLite's log is empty; then its next write starts at the beginning of the file."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return database.with_name("state.db-wal").stat().st_size == 0


def has_failed(stderr: Path) -> bool:
    return "The database failed" in stderr.read_text()
