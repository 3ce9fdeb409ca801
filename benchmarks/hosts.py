"""Hosts end their stdio server in the middle of an update. How often does the connection stay
paused?

    .venv/bin/python -m benchmarks.hosts [--times 50] [--seed 7]

Each way in which a host can end its server (`tests/support/hosts.py`) is tried this many times, at
a random moment of an update. Every server has its own data directory, so only the process that it
hands over to can finish the update. A connection that is still paused 15 seconds later makes the
exit code 1.
"""

import argparse
import random
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fivetran_state.sandbox import Sandbox
from fivetran_state.sandbox.server import SandboxServer
from tests.support.calls import is_resume
from tests.support.hosts import TERMINAL, WAYS, host

LATENCY = 0.05
LATEST = 0.6
"""Seconds from the request until the update is about half done, or at its end."""
PATIENCE = 15.0


@dataclass
class Trial:
    """One server, and the connection that it updates."""

    connection_id: str
    ended_at: float
    was_paused: bool
    """True if the update held the connection paused when the host ended."""
    seconds_to_end: float
    """Seconds from the host's end to the server's end."""


def tried(sandbox: Sandbox, url: str, folder: Path, way: str, chance: random.Random) -> Trial:
    folder.mkdir()
    sandbox.add_connection(
        folder.name,
        state='{"cursor":"2026-01-01T00:00:00Z"}',
        sync_seconds=1000.0,
        drain_seconds=0.3,
    )
    if chance.random() < 0.3:
        sandbox.start_sync(folder.name)
    environment = {
        "FIVETRAN_API_KEY": "sandbox",
        "FIVETRAN_API_SECRET": "sandbox",
        "FIVETRAN_API_URL": url,
        "FIVETRAN_STATE_DATA_DIR": str(folder / "data"),
    }
    with host(environment, folder, terminal=way == TERMINAL) as ending:
        ending.start_update(folder.name)
        time.sleep(chance.uniform(0, LATEST))
        was_paused = sandbox.connection(folder.name).paused
        ended_at = time.time()
        with suppress(ProcessLookupError):  # The server had ended before the last signal.
            WAYS[way](ending)
        ending.is_left_within(PATIENCE)
        return Trial(folder.name, ended_at, was_paused, time.time() - ended_at)


def report(sandbox: Sandbox, way: str, trials: list[Trial]) -> bool:
    """Print the results for one way; True if a connection was left paused."""
    time.sleep(max(0.0, trials[-1].ended_at + PATIENCE - time.time()))
    left = [each for each in trials if sandbox.connection(each.connection_id).paused]
    resumed_at = {each.connection_id: each.time for each in sandbox.log if is_resume(each)}
    resumes = [
        resumed_at[each.connection_id] - each.ended_at
        for each in trials
        if resumed_at.get(each.connection_id, 0.0) > each.ended_at
    ]
    print(
        f"{way:44} {len(trials):6} {sum(each.was_paused for each in trials):7} {len(left):6} "
        f"{max(each.seconds_to_end for each in trials):11.1f} {max(resumes, default=0.0):12.1f}",
        flush=True,
    )
    return bool(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under nohup, the servers would ignore it too.
    chance = random.Random(arguments.seed)
    sandbox = Sandbox(seed=False, latency=LATENCY)
    sandbox.api.requests_per_hour = 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="fivetran-state-hosts-"))
    print(
        "the host ...                                  times  paused   left  s to end  s to resume"
    )
    try:
        with SandboxServer(sandbox) as server:
            is_wrong = [
                report(
                    sandbox,
                    way,
                    [
                        tried(sandbox, server.url, folder / f"{number}_{time_}", way, chance)
                        for time_ in range(arguments.times)
                    ],
                )
                for number, way in enumerate(WAYS)
            ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(any(is_wrong))


if __name__ == "__main__":
    main()
