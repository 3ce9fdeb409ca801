"""How long a group of updates takes, against what Fivetran's latency alone would take.

    .venv/bin/python -m benchmarks.groups [--connections 20 100 500] [--postgres] [--limit 2000]

Each run is a process of its own in front of a simulated Fivetran, which takes 50 ms for each call. The
ratio is the wall time from the request to the end, the plan included, over (calls x latency /
concurrency): what a program without any cost of its own would take. Afterwards every state and every
paused flag is compared with what the group should have left.

`--limit`: calls a minute that the simulated Fivetran allows.
"""

import argparse
import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from fivetran_state.models import Mode
from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.calls import API_KEY, API_SECRET
from tests.support.grouped import AFTER, changing, not_as, only_grouped
from tests.support.postgres import SECRET_KEY, Postgres

LATENCY = 0.05
CONCURRENCY = 20
TARGET = 1.15
MODES: tuple[Mode, ...] = ("independent", "all_or_nothing")


def _measure(
    sandbox: Sandbox,
    environment: dict[str, str],
    folder: Path,
    count: int,
    mode: Mode,
    limit: int | None,
) -> None:
    only_grouped(sandbox, count)
    sandbox.latency = LATENCY
    begin = len(sandbox.log)
    output, _ = changing(os.environ | environment, folder, count, mode).communicate()
    sandbox.latency = 0
    found = json.loads(output)
    log = sandbox.log[begin:]
    calls = len(log)
    refused = sum(each.status == 429 for each in log)
    ideal = calls * LATENCY / CONCURRENCY
    wrong = not_as(sandbox, AFTER)
    ratio = found["seconds"] / ideal
    allowed = (
        "" if limit is None else f", {found['seconds'] / (calls / limit * 60):.2f} of the limit"
    )
    print(
        f"{count:5} {mode:14} {found['seconds']:6.1f} s (plan {found['planned']:.1f}), "
        f"{calls} calls, {refused} refused, ratio {ratio:.2f} (target {TARGET}){allowed}, "
        f"CPU {found['cpu'] / count * 1000:.0f} ms each, {found['counts']}, {len(wrong)} wrong",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, nargs="*", default=[20, 100, 500])
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sandbox = Sandbox(api_key=API_KEY, api_secret=API_SECRET)
        sandbox.api.requests_per_hour = 10_000_000
        if arguments.limit is not None:
            sandbox.api.requests_per_hour = arguments.limit
            sandbox.api.limit_window = 60.0
        server = stack.enter_context(SandboxServer(sandbox))
        environment = {
            "FIVETRAN_API_KEY": API_KEY,
            "FIVETRAN_API_SECRET": API_SECRET,
            "FIVETRAN_API_URL": server.url,
            "FIVETRAN_STATE_CONCURRENCY": str(CONCURRENCY),
        }
        postgres = Postgres() if arguments.postgres else None
        for count in arguments.connections:
            for mode in MODES:
                environment["FIVETRAN_STATE_DATA_DIR"] = str(folder / f"{count}-{mode}")
                if postgres is not None:
                    environment["DBOS_SYSTEM_DATABASE_URL"] = postgres.new_database()
                    environment["FIVETRAN_STATE_SECRET_KEY"] = SECRET_KEY
                _measure(sandbox, environment, folder, count, mode, arguments.limit)
        if postgres is not None:
            postgres.close()


if __name__ == "__main__":
    main()
