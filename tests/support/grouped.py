"""Many connections that a process of its own changes as a group.

    python -m tests.support.grouped COUNT MODE

It prints how that went, as JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fivetran_state import state
from fivetran_state.changes import Change, GroupOptions, Inline, for_each
from fivetran_state.config import Settings
from fivetran_state.errors import FivetranStateError
from fivetran_state.models import Mode, UpdatesView
from fivetran_state.sandbox import Sandbox
from fivetran_state.service import Service
from tests.support.calls import ROOT
from tests.support.commands import background

BEFORE = '{"cursor":"2026","exact":1.10}'
AFTER = '{"cursor":"2020","exact":1.10}'
PATIENCE = 3600.0
PAUSED_EVERY = 5
"""Of so many connections, one is paused before."""


def name(number: int) -> str:
    return f"grouped_{number:04}"


def is_paused_before(number: int) -> bool:
    return number % PAUSED_EVERY == PAUSED_EVERY - 2


def only_grouped(sandbox: Sandbox, count: int) -> None:
    """Replaces the sandbox's connections by these."""
    with sandbox.world.transaction():
        for connection in sandbox.world.connections():
            sandbox.delete_connection(connection.id)
        for number in range(count):
            sandbox.add_connection(name(number), state=BEFORE, paused=is_paused_before(number))


def not_as(sandbox: Sandbox, expected: str) -> list[str]:
    """The connections with another state than this, or another paused flag than before."""
    return [
        connection.id
        for number, connection in enumerate(sandbox.world.connections())
        if connection.state != expected or connection.paused != is_paused_before(number)
    ]


def changing(
    environment: dict[str, str], folder: Path, count: int, mode: Mode
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """The process that changes them, until it ends or is killed."""
    programs = environment | {"PYTHONPATH": str(ROOT)}
    return background(programs, folder, "tests.support.grouped", str(count), mode)


def changed(environment: dict[str, str], folder: Path, count: int, mode: Mode) -> dict[str, Any]:
    """What a process says that has changed them."""
    with changing(environment, folder, count, mode) as process:
        output, _ = process.communicate()
    told: dict[str, Any] = json.loads(output)
    return told


async def group_of(
    service: Service,
    wanted: Mapping[str, Change],
    options: GroupOptions,
    *,
    wait_seconds: float = 0,
) -> UpdatesView:
    """The group that makes these changes."""
    view = await service.groups.update_states(wanted, options, wait_seconds=wait_seconds)
    assert isinstance(view, UpdatesView)
    return view


async def _change(count: int, mode: Mode) -> None:
    service = Service(Settings())
    service.start()
    await service.operations.left_paused()  # It is up.
    change = Inline(state.Change("merge_patch", {"cursor": "2020"}))
    wanted = for_each([name(number) for number in range(count)], change)
    begin, cpu = time.monotonic(), time.process_time()
    plan = await service.groups.plan_updates(wanted, GroupOptions(mode))
    planned = time.monotonic() - begin
    options = GroupOptions(mode, expected_version=plan.version)
    try:
        view = await group_of(service, wanted, options, wait_seconds=PATIENCE)
        status, counts = view.status, view.counts
    except FivetranStateError as error:
        status, counts = "failed", {error.code: 1}
    told = {
        "seconds": time.monotonic() - begin,
        "planned": planned,
        "cpu": time.process_time() - cpu,
        "status": status,
        "counts": counts,
    }
    sys.stdout.write(json.dumps(told))
    await service.close()


if __name__ == "__main__":
    asyncio.run(_change(int(sys.argv[1]), sys.argv[2]))  # type: ignore[arg-type]
