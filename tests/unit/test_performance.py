"""docs/performance.md has every figure that `scripts/bench` measures."""

import re
from xml.etree import ElementTree

from benchmarks import page
from benchmarks.__main__ import tables

SVG = "{http://www.w3.org/2000/svg}"


def test_the_page_has_every_line_that_the_benchmarks_measure() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for table in tables():
        section = text.partition(f"<!-- {table.name}: ")[2].partition("<!-- end of ")[0]
        for line in table.lines:
            assert f"\n| {line.what} | {line.unit} |" in section, line
            assert f"| {line.case} |" in section, line


def test_every_stored_figure_is_one_that_the_benchmarks_measure() -> None:
    """If this fails, run scripts/bench with the names of the tables that changed."""
    lines = {line for table in tables(million=True) for line in table.lines}

    for measured in page.stored().values():
        assert {figure.line for figure in measured.figures} <= lines


def test_the_tables_and_the_chart_show_the_stored_figures() -> None:
    text, found = page.PAGE.read_text(encoding="utf-8"), page.stored()

    assert page.with_tables(text, tables(), found) == text
    assert page.CHART.read_text(encoding="utf-8") == page.drawn(tables(), found)


def test_the_chart_loads_nothing_and_can_be_read_aloud_in_light_or_dark() -> None:
    text = page.CHART.read_text(encoding="utf-8")
    picture = ElementTree.fromstring(text)

    # The XML namespace is not a link.
    assert re.findall(r"https?:|url\(|@import|@font-face|href", text) == ["http:"]
    assert picture.get("role") == "img"
    assert picture.findtext(f"{SVG}title")
    assert picture.findtext(f"{SVG}desc")
    assert "prefers-color-scheme: dark" in text
