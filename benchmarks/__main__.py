"""Measures everything side by side, and writes the tables of docs/performance.md: `scripts/bench`."""

import argparse

from benchmarks import compared, footprint, groups, growth, page, servers, sizes, speed, views
from benchmarks.figures import Figure, Table, number


def tables(*, million: bool = False) -> tuple[Table, ...]:
    """All of them, in the order of the page."""
    return (
        compared.TABLE,
        speed.TABLE,
        sizes.TABLE,
        groups.TABLE,
        servers.TABLE,
        growth.table(million=million),
        views.TABLE,
        footprint.TABLE,
    )


def printed(figure: Figure) -> str:
    line = figure.line
    least, most = (number(each) for each in figure.spread)
    of_target = "" if line.target is None else f"   target ≤ {line.target:g}"
    missed = "   MISSED" if figure.is_missed else ""
    reference = f" / {line.reference}" if line.reference else ""
    return (
        f"  {f'{line.what}, {line.case}':70} {number(figure.measured):>9} {line.unit}{reference} "
        f"({least} to {most}){of_target}{missed}"
    )


def main() -> None:
    names = [table.name for table in tables()]
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--quick", action="store_true", help="only the tables that take a few minutes"
    )
    parser.add_argument("--rounds", type=int, help="of every table, in place of its own number")
    parser.add_argument("--million", action="store_true", help="up to 1,000,000 past updates")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(names)}")
    every = tables(million=arguments.million)
    for table in every:
        if arguments.names and table.name not in arguments.names:
            continue
        if arguments.quick and not table.is_quick:
            continue
        print(f"{table.name}: {table.title}", flush=True)
        figures = []
        for figure in table.measure(arguments.rounds or table.rounds):
            print(printed(figure), flush=True)
            figures.append(figure)
            # Store each one at once: a later one may fail after an hour.
            page.store(table, figures)
            page.write(every)


if __name__ == "__main__":
    main()
