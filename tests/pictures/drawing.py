"""Text as an SVG that looks like a window. It follows the reader's light or dark mode, and needs no
external font."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

_COLUMNS = 88
_EM = 14
_LINE = 21
_MARGIN = 24
_BAR = 36
_WIDTH = round(_COLUMNS * 0.602 * _EM) + 2 * _MARGIN

_STYLE = """
    .window { fill: #f6f8fa; stroke: #d0d7de }
    .dim { fill: #59636e }
    .plain { fill: #1f2328 }
    .change { fill: #0550ae }
    .done { fill: #1a7f37 }
    text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
    @media (prefers-color-scheme: dark) {
      .window { fill: #151b23; stroke: #3d444d }
      .dim { fill: #9198a1 }
      .plain { fill: #f0f6fc }
      .change { fill: #79c0ff }
      .done { fill: #3fb950 }
    }
  """


@dataclass(frozen=True)
class Paragraph:
    text: str
    kind: Literal["plain", "dim", "change", "done"] = "plain"


def svg(title: str, description: str, paragraphs: Sequence[Paragraph]) -> str:
    """A window with the title above; long paragraphs are wrapped, an empty one is an empty line."""
    lines = [
        Paragraph(line, paragraph.kind)
        for paragraph in paragraphs
        for line in textwrap.wrap(paragraph.text, _COLUMNS) or [""]
    ]
    height = _BAR + len(lines) * _LINE + _MARGIN
    drawn = "\n".join(
        f'  <text class="{line.kind}" x="{_MARGIN}" y="{_BAR + (number + 1) * _LINE}">'
        f"{escape(line.text, quote=False)}</text>"
        for number, line in enumerate(lines)
        if line.text
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" aria-labelledby="title description">
  <title id="title">{escape(title, quote=False)}</title>
  <desc id="description">{escape(description, quote=False)}</desc>
  <style>{_STYLE}</style>
  <rect class="window" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>
  <text class="dim" x="{_MARGIN}" y="26">{escape(title, quote=False)}</text>
{drawn}
</svg>
"""
