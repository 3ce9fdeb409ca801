"""Reads and updates of states from 1 KB to 10 MB, as ratios against raw httpx making the same calls.

`scripts/bench sizes` runs it.
"""

from collections.abc import Iterator

import anyio

from benchmarks.account import client_of, read_by_hand, sandbox_of, update_by_hand
from benchmarks.figures import Figure, Line, Table, ratios
from benchmarks.speed import assistant, timed, update
from fivetran_state.sandbox.server import SandboxServer
from tests.support.calls import state_of, version_of

SIZES = {
    "1 KB": 1_000,
    "10 KB": 10_000,
    "100 KB": 100_000,
    "1 MB": 1_000_000,
    "10 MB": 9_990_000,  # The limit is below 10,000,000 bytes.
}
READS = {size: Line(size, "ratio", "raw calls", case="`get_state`") for size in SIZES}
UPDATES = {size: Line(size, "ratio", "raw calls", case="update") for size in SIZES}


def state_of_size(size: int) -> str:
    """A state with the cursors of many tables, up to that many bytes."""
    table = (
        '"public.table_{0:06}":{{"cursor":"2026-01-01T00:00:00.{0:06}Z","last_id":{0},'
        '"page_token":"{0:048x}","rows":{0}}}'
    )
    count = (size - len('{"cursor":0}')) // (len(table.format(999_999)) + 1)
    tables = "".join(f",{table.format(number)}" for number in range(count))
    return f'{{"cursor":0{tables}}}'


async def ratios_of(size: str, rounds: int) -> list[Figure]:
    sandbox = sandbox_of(["sized"], state_of_size(SIZES[size]))
    raw_reads, reads, raw_updates, updates = [], [], [], []
    with SandboxServer(sandbox) as fivetran:
        async with client_of(fivetran.url) as http, assistant(fivetran.url) as client:
            await version_of(client, "sized")  # The engine is up.
            for number in range(1, rounds + 1):
                raw_reads.append(await read_by_hand(http, "sized"))
                reads.append(await timed(lambda: version_of(client, "sized")))
                document = state_of(sandbox, "sized") | {"cursor": number}
                raw_updates.append((await update_by_hand(http, "sized", document))[0])
                updates.append(await update(client, "sized", {"cursor": -number}))
    return [
        Figure(READS[size], ratios(reads, raw_reads)),
        Figure(UPDATES[size], ratios(updates, raw_updates)),
    ]


def measure(rounds: int) -> Iterator[Figure]:
    for size in SIZES:
        yield from anyio.run(ratios_of, size, rounds)


TABLE = Table(
    "sizes",
    "Large states",
    "state",
    (*READS.values(), *UPDATES.values()),
    measure,
    rounds=5,
    is_quick=True,
)
