"""Several connections, changed in each of the ways that there are. `scripts/bench compared` runs it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from benchmarks.account import client_of, sandbox_of, update_by_hand, variables
from benchmarks.figures import Figure, Line, Table
from fivetran_state.models import Mode
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.calls import ROOT
from tests.support.grouped import changed, name
from tests.support.http_server import http_running

COUNTS = (20, 100)
BEFORE = '{"cursor":"2026"}'
NEW_STATE = {"cursor": "2020"}
"""What `tests.support.grouped` writes."""


@dataclass(frozen=True)
class Account:
    """The connections to change, and a folder for what changes them."""

    names: list[str]
    url: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | variables(self.url, str(self.folder / "data"))


def by_hand(account: Account) -> float:
    async def all_of_them() -> float:
        async with client_of(account.url) as http:
            return sum([(await update_by_hand(http, each, NEW_STATE))[0] for each in account.names])

    return anyio.run(all_of_them)


def by_the_original(account: Account) -> float:
    output = subprocess.check_output(
        [sys.executable, "-m", "benchmarks.original", json.dumps(NEW_STATE), *account.names],
        env=account.environment | {"PYTHONPATH": str(ROOT)},
        cwd=account.folder,
    )
    return float(output)


def one_by_one(account: Account) -> float:
    async def all_of_them() -> float:
        async with http_running(account.environment, account.folder) as server:
            (await server.client.get(f"/connections/{account.names[0]}/state")).raise_for_status()
            start = time.perf_counter()
            for each in account.names:
                change = {"connection_id": each, "merge_patch": NEW_STATE, "expected_version": "*"}
                (await server.client.post("/state/update", json=change)).raise_for_status()
            return time.perf_counter() - start

    return anyio.run(all_of_them)


def as_a_group(account: Account, mode: Mode) -> float:
    told = changed(account.environment, account.folder, len(account.names), mode)
    return float(told["seconds"])


WAYS: dict[str, Callable[[Account], float]] = {
    "the six calls by hand, one after the other": by_hand,
    "the original tool, one after the other": by_the_original,
    "`POST /state/update`, one after the other": one_by_one,
    "a group, independent": partial(as_a_group, mode="independent"),
    "a group, all or nothing": partial(as_a_group, mode="all_or_nothing"),
}


def lines_of(count: int) -> dict[str, Line]:
    return {way: Line(way, "s", case=f"{count} connections") for way in WAYS}


def seconds(way: str, count: int) -> float:
    """The seconds that all of them took."""
    names = [name(number) for number in range(count)]
    sandbox = sandbox_of(names, BEFORE)
    with SandboxServer(sandbox) as fivetran, tempfile.TemporaryDirectory() as folder:
        taken = WAYS[way](Account(names, fivetran.url, Path(folder)))
    assert all(is_changed(sandbox, each) for each in names), way
    return taken


def is_changed(sandbox: Sandbox, name: str) -> bool:
    connection = sandbox.connection(name)
    return json.loads(connection.state or "{}") == NEW_STATE and not connection.paused


def measure(rounds: int) -> Iterator[Figure]:
    for count in COUNTS:
        taken = [{way: seconds(way, count) for way in WAYS} for _ in range(rounds)]
        for way, line in lines_of(count).items():
            yield Figure(line, tuple(each[way] for each in taken))


TABLE = Table(
    "compared",
    "Several connections",
    "way",
    tuple(line for count in COUNTS for line in lines_of(count).values()),
    measure,
    rounds=3,
)
