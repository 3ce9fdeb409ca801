"""The pictures in the documentation show the program's own words."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.pictures import page
from tests.pictures.__main__ import PICTURES, drawn
from tests.pictures.story import tell
from tests.support.calls import ROOT

SVG = "{http://www.w3.org/2000/svg}"
FILES = sorted(PICTURES.glob("*.svg"))


async def test_the_pictures_are_what_the_program_says(tmp_path: Path) -> None:
    """If this fails, run scripts/pictures."""
    now = drawn(await tell(tmp_path / "data"))

    assert {path.name: path.read_text(encoding="utf-8") for path in FILES} == now


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_picture_loads_nothing_and_can_be_read_aloud_in_light_or_dark(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    picture = ElementTree.fromstring(text)

    # The XML namespace is not a link.
    assert re.findall(r"https?:|url\(|@import|@font-face|href", text) == ["http:"]
    assert picture.get("role") == "img"
    assert picture.findtext(f"{SVG}title")
    assert picture.findtext(f"{SVG}desc")
    assert "prefers-color-scheme: dark" in text


def test_every_screenshot_is_there_and_shown() -> None:
    shown = (ROOT / "docs/how-to/page.md").read_text(encoding="utf-8")

    assert sorted(path.name for path in PICTURES.glob("*.png")) == sorted(page.NAMES)
    assert sorted(re.findall(r"\.\./pictures/([\w-]+\.png)", shown)) == sorted(page.NAMES)
