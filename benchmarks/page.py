"""docs/performance.md and its chart, written from the figures in `measured.json`."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import chart
from benchmarks.figures import Figure, Line, Table, number
from tests.support.calls import ROOT

PAGE = ROOT / "docs/performance.md"
CHART = ROOT / "docs/performance.svg"
STORED = Path(__file__).parent / "measured.json"
DRAWN = ("compared", "sizes", "servers")
"""The tables in the chart."""


@dataclass(frozen=True)
class Measured:
    """The figures of a table, and where they come from."""

    origin: str
    figures: list[Figure]


def stored() -> dict[str, Measured]:
    """The latest figures, by the name of their table."""
    if not STORED.exists():
        return {}
    found = json.loads(STORED.read_text(encoding="utf-8"))
    return {
        name: Measured(
            each["origin"],
            [Figure(Line(**one["line"]), tuple(one["rounds"])) for one in each["figures"]],
        )
        for name, each in found.items()
    }


def store(table: Table, figures: list[Figure]) -> None:
    """Replaces all figures of the table."""
    found = stored() | {table.name: Measured(_origin(), figures)}
    text = json.dumps({name: asdict(each) for name, each in found.items()}, indent=1)
    STORED.write_text(f"{text}\n", encoding="utf-8")


def _origin() -> str:
    today = datetime.now(timezone.utc).date().isoformat()
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {today}"


def write(tables: tuple[Table, ...]) -> None:
    """Writes the page's tables and the chart again."""
    found = stored()
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_tables(text, tables, found), encoding="utf-8")
    CHART.write_text(drawn(tables, found), encoding="utf-8")


def with_tables(text: str, tables: tuple[Table, ...], found: dict[str, Measured]) -> str:
    """The page with the figures between each table's two comments."""
    for table in tables:
        begin = f"<!-- {table.name}: scripts/bench writes this -->"
        end = f"<!-- end of {table.name} -->"
        before, _, rest = text.partition(begin)
        _, ending, after = rest.partition(end)
        assert ending, f"{PAGE.name} has no comments for the table {table.name}"
        measured = found.get(table.name, Measured("Not measured yet", []))
        text = f"{before}{begin}\n{markdown(table, measured)}\n{end}{after}"
    return text


def drawn(tables: tuple[Table, ...], found: dict[str, Measured]) -> str:
    """The chart."""
    shown = [
        (table, found[table.name].figures)
        for table in tables
        if table.name in DRAWN and table.name in found and found[table.name].figures
    ]
    return chart.svg("The performance of fivetran-state", shown)


def markdown(table: Table, measured: Measured) -> str:
    """One row for each line, one column for each case; a cell without a figure says so."""
    cells = {(each.line.what, each.line.case): each for each in measured.figures}
    every = [*table.lines, *(each.line for each in measured.figures)]
    lines = {line.what: line for line in every}
    cases = list(dict.fromkeys(line.case for line in every))
    has_targets = any(line.target is not None for line in lines.values())
    has_references = any(line.reference for line in lines.values())
    columns = [table.first_column, "unit", *cases]
    columns += ["target"] * has_targets + ["compared with"] * has_references
    rows = [columns, ["---"] * len(columns)]
    for what, line in lines.items():
        row = [what, line.unit, *(_cell(cells.get((what, case))) for case in cases)]
        if has_targets:
            row.append("" if line.target is None else f"≤ {line.target:,g}")
        if has_references:
            row.append(line.reference)
        rows.append(row)
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    rounds = max((len(each.rounds) for each in measured.figures), default=0)
    counted = f"; the median of {rounds}, the smallest and the largest" if rounds > 1 else ""
    return f"\n{text}\n\n{measured.origin}{counted}.\n"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "not measured"
    text = number(figure.measured)
    if figure.is_missed:
        text = f"**{text}**"
    if len(figure.rounds) == 1:
        return text
    least, most = figure.spread
    return f"{text} ({number(least)} to {number(most)})"
