import sys
import unicodedata

import pytest

from fivetran_state.text import HIDDEN, shown, visible

NOT_SHOWN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


def test_what_unicode_says_does_not_show_is_made_visible_and_nothing_that_shows() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        category = unicodedata.category(character)
        is_hidden = HIDDEN.match(character) is not None
        if category in NOT_SHOWN:
            assert is_hidden == (character >= " "), hex(ord(character))
            assert visible(character).isascii()
            assert visible(character).isprintable()
        elif is_hidden:
            # Without a shape of its own: a joiner, a filler, a selector, or unassigned.
            assert category in ("Cn", "Mn", "Lo"), hex(ord(character))
            assert category != "Lo" or "FILLER" in unicodedata.name(character)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\x1b[31m", r"a\u001b[31m"),
        ("a\nb\x00", r"a\u000ab\u0000"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\U000e0041", r"\udb40\udc41"),
        ("\ud800", r"\ud800"),
        ("Zürich 漢字 😀 \u00a0|", "Zürich 漢字 😀 \u00a0|"),
    ],
)
def test_what_does_not_show_is_written_as_in_json(text: str, escaped: str) -> None:
    assert visible(text) == escaped


@pytest.mark.parametrize("text", ["x" * 100, "\x00" * 100, "😀" * 100, "x" * 59 + "\x00"])
def test_a_text_that_is_shown_has_an_end(text: str) -> None:
    assert len(shown(text)) <= 60
    assert shown(text).endswith("…")
    assert shown(shown(text)) == shown(text)
    assert shown("x" * 60) == "x" * 60
