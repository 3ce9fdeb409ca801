"""How many mistakes in a state the plan warns of, and how often it warns of an ordinary change.

    .venv/bin/python -m benchmarks.warnings [--mistakes 300] [--ordinary 500]

Connections with states shaped like those of the public Connector SDK examples
(`tests/support/connector_states.py`) sync 20 to 40 times, and somebody sets a cursor back now and then.
Then each connection changes once (`tests/support/mistakes.py`):

- by a mistake of each kind: a time in the future, a lost zone, another unit of time, another type, a key
  that was always there removed, and further back than anything remembered. A mistake counts as caught
  if one warning names its kind and its place, and there is no other warning;
- or as is ordinary: by a sync, by cursors set back to a time that the history covers, by the whole state
  as it once was, by a reset of a table that is usual for the connection. Any warning is a false alarm.

The targets are 95 % caught and 2 % false alarms. The exit code is 1 if one is missed. The changes are
the same in each run.
"""

import argparse
import sys
from collections import Counter

from fivetran_state.history.warnings import Kind
from tests.support.mistakes import ORDINARY, mistaken, ordinary

CAUGHT = 0.95
FALSE = 0.02


def missed(count: int) -> tuple[Counter[str], Counter[str]]:
    """The mistakes of each kind that are not caught, by kind and by connector."""
    by_kind: Counter[str] = Counter()
    where: Counter[str] = Counter()
    for kind in Kind:
        wrong = [trial for trial in mistaken(kind, count) if not trial.is_named]
        by_kind[kind.value] = len(wrong)
        where.update(f"{kind.value}: {trial.connector}" for trial in wrong)
    return by_kind, where


def false_alarms(count: int) -> tuple[Counter[str], Counter[str]]:
    """The ordinary changes of each kind that raise a warning, by kind and by connector."""
    by_kind: Counter[str] = Counter()
    where: Counter[str] = Counter()
    for kind in ORDINARY:
        alarms = [
            (trial.connector, found.first[0].kind.value)
            for trial in ordinary(kind, count)
            if (found := trial.warnings()).total
        ]
        by_kind[kind] = len(alarms)
        where.update(f"{kind}: {connector}, {oddity}" for connector, oddity in alarms)
    return by_kind, where


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mistakes", type=int, default=300, help="of each kind")
    parser.add_argument("--ordinary", type=int, default=500, help="of each kind")
    arguments = parser.parse_args()

    by_kind, where = missed(arguments.mistakes)
    caught = 1 - by_kind.total() / (arguments.mistakes * len(Kind))
    for kind, number in by_kind.items():
        print(f"{kind:45}{1 - number / arguments.mistakes:8.1%} of {arguments.mistakes} caught")
    print(f"{'all mistakes':45}{caught:8.1%}")
    _print_where("not caught", where)

    by_kind, where = false_alarms(arguments.ordinary)
    alarms = by_kind.total() / (arguments.ordinary * len(ORDINARY))
    for kind, number in by_kind.items():
        print(f"{kind:45}{number / arguments.ordinary:8.1%} of {arguments.ordinary} warned of")
    print(f"{'all ordinary changes':45}{alarms:8.1%}")
    _print_where("warned of", where)
    sys.exit(caught < CAUGHT or alarms > FALSE)


def _print_where(what: str, where: Counter[str]) -> None:
    for place, number in where.most_common():
        print(f"  {what}: {number} of {place}")


if __name__ == "__main__":
    main()
