"""Tables as an SVG of bars. It follows the reader's light or dark mode, and needs no external font."""

from collections.abc import Iterable, Sequence
from html import escape

from benchmarks.figures import Figure, Table, number

WIDTH = 860
MARGIN = 24
LABELS = 340
"""Where the bars begin."""
BAR, GAP = 16, 10
VALUES = 170
"""Space for the text behind the longest bar."""

STYLE = """
    .paper { fill: #ffffff; stroke: #d0d7de }
    .title { fill: #1f2328; font-weight: 600 }
    .label { fill: #1f2328 }
    .value { fill: #59636e }
    .bar0 { fill: #0969da }
    .bar1 { fill: #8250df }
    text { font: 14px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; stroke: #3d444d }
      .title, .label { fill: #f0f6fc }
      .value { fill: #9198a1 }
      .bar0 { fill: #4493f8 }
      .bar1 { fill: #ab7df8 }
    }
  """


def svg(title: str, tables: Iterable[tuple[Table, Sequence[Figure]]]) -> str:
    """One group of bars for each line of each table, one bar for each of its cases."""
    drawn: list[str] = []
    told: list[str] = []
    y = MARGIN
    for table, figures in tables:
        unit = figures[0].line.unit
        heading = f"{table.title} ({unit})"
        drawn.append(_text("title", MARGIN, y + 14, heading))
        told.append(f"{heading}:")
        y += 34
        largest = max(figure.measured for figure in figures)
        cases = list(dict.fromkeys(figure.line.case for figure in figures))
        for what in dict.fromkeys(figure.line.what for figure in figures):
            label = what.replace("`", "")
            drawn.append(_text("label", MARGIN, y + 13, label))
            for figure in (each for each in figures if each.line.what == what):
                case = figure.line.case.replace("`", "")
                width = figure.measured / largest * (WIDTH - LABELS - VALUES - MARGIN)
                colour = f"bar{cases.index(figure.line.case)}"
                drawn.append(
                    f'  <rect class="{colour}" x="{LABELS}" y="{y}" width="{max(width, 1):.0f}" '
                    f'height="{BAR}" rx="2"/>'
                )
                value = f"{number(figure.measured)}, {case}"
                drawn.append(_text("value", LABELS + round(width) + 8, y + 13, value))
                told.append(f"{label}: {value};")
                y += BAR + 2
            y += GAP
        y += GAP
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" aria-labelledby="title description">
  <title id="title">{escape(title, quote=False)}</title>
  <desc id="description">{escape(" ".join(told), quote=False)}</desc>
  <style>{STYLE}</style>
  <rect class="paper" x="0.5" y="0.5" width="{WIDTH - 1}" height="{y - 1}" rx="8"/>
{chr(10).join(drawn)}
</svg>
"""


def _text(kind: str, x: int, y: int, text: str) -> str:
    return f'  <text class="{kind}" x="{x}" y="{y}">{escape(text, quote=False)}</text>'
