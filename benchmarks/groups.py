"""How long a group of updates takes, against what Fivetran's latency alone would take.

    .venv/bin/python -m benchmarks.groups [--connections 20 100 500] [--postgres] [--limit 2000]

`scripts/bench groups` writes the ratios into docs/performance.md; this prints more of each run, and can
limit the calls a minute that the simulated Fivetran allows.

Each run is a process of its own in front of a simulated Fivetran, which takes 50 ms for each call. The
ratio is the wall time from the request to the end, the plan included, over (calls x latency /
concurrency): what a program without any cost of its own would take. Afterwards every state and every
paused flag is compared with what the group should have left.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.account import DATABASES, LATENCY, new_database, postgres_for, variables
from benchmarks.figures import Figure, Line, Table
from fivetran_state.models import Mode
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.grouped import AFTER, changed, not_as, only_grouped
from tests.support.postgres import Postgres

CONCURRENCY = 20
TARGET = 1.15
COUNTS = (20, 100, 500)
MODES: tuple[Mode, ...] = ("independent", "all_or_nothing")
NO_LIMIT = 100_000_000


@dataclass(frozen=True)
class Run:
    """A group that has ended."""

    told: dict[str, Any]
    """What its process says: `seconds`, `planned`, `cpu`, `counts`."""
    calls: int
    refused: int
    wrong: list[str]
    """The connections that are not as they should be."""

    @property
    def ratio(self) -> float:
        return float(self.told["seconds"]) / (self.calls * LATENCY / CONCURRENCY)


def run(count: int, mode: Mode, postgres: Postgres | None, limit: int = NO_LIMIT) -> Run:
    """Changes so many connections; `limit` is calls a minute."""
    sandbox = Sandbox(seed=False)
    sandbox.api.requests_per_hour = limit
    sandbox.api.limit_window = 60.0
    with SandboxServer(sandbox) as server, tempfile.TemporaryDirectory() as folder:
        environment = os.environ | variables(server.url, f"{folder}/data") | new_database(postgres)
        environment["FIVETRAN_STATE_CONCURRENCY"] = str(CONCURRENCY)
        only_grouped(sandbox, count)
        sandbox.latency = LATENCY
        told = changed(environment, Path(folder), count, mode)
    log = sandbox.log
    refused = sum(each.status == 429 for each in log)
    return Run(told, len(log), refused, not_as(sandbox, AFTER))


def line_of(count: int, mode: Mode, database: str) -> Line:
    case = f"{mode.replace('_', ' ')}, {database}"
    reference = f"calls of 50 ms, {CONCURRENCY} at once"
    return Line(f"{count} connections", "ratio", reference, TARGET, case)


def measure(rounds: int) -> Iterator[Figure]:
    for database in DATABASES:
        with postgres_for(database) as postgres:
            for count in COUNTS:
                for mode in MODES:
                    runs = [run(count, mode, postgres) for _ in range(rounds)]
                    assert not any(each.wrong for each in runs), runs
                    yield Figure(line_of(count, mode, database), tuple(each.ratio for each in runs))


TABLE = Table(
    "groups",
    "Groups",
    "group",
    tuple(
        line_of(count, mode, database)
        for count in COUNTS
        for database in DATABASES
        for mode in MODES
    ),
    measure,
    rounds=3,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, nargs="*", default=COUNTS)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--limit", type=int, default=NO_LIMIT, help="calls a minute")
    arguments = parser.parse_args()
    with postgres_for("Postgres" if arguments.postgres else "SQLite") as postgres:
        for count in arguments.connections:
            for mode in MODES:
                made = run(count, mode, postgres, arguments.limit)
                told = made.told
                of_the_limit = ""
                if arguments.limit != NO_LIMIT:
                    share = told["seconds"] / (made.calls / arguments.limit * 60)
                    of_the_limit = f", {share:.2f} of the limit"
                print(
                    f"{count:5} {mode:14} {told['seconds']:6.1f} s (plan {told['planned']:.1f}), "
                    f"{made.calls} calls, {made.refused} refused, ratio {made.ratio:.2f}"
                    f"{of_the_limit}, CPU {told['cpu'] / count * 1000:.0f} ms each, "
                    f"{told['counts']}, {len(made.wrong)} wrong",
                    flush=True,
                )


if __name__ == "__main__":
    main()
