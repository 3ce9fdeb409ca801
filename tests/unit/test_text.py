import json
import sys
import unicodedata

import pytest

from fivetran_state.text import HIDDEN, literal, quoted, shown, visible

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
            # Characters without a visible shape: a joiner, a filler, a selector, or unassigned.
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


@pytest.mark.parametrize(
    "word",
    ["orders", "/orders/0/cursor", "a_b-c", "2026-01-01", "v1.2", "data/part-1.csv", "/", "a"],
)
def test_a_plain_word_is_not_quoted(word: str) -> None:
    assert quoted(word) == word


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T10:30:00.123+02:00",
        "eyJhIjoxfQ==",
        "abc_def, x__y",
        "Bad data, again.",
        "größe",
        "łódź",
        "Tiếng Việt",
        "заказы",
        "ξένος λόγος",
        "顧客サーバー",
        "고객",
        "",
    ],
)
def test_honest_text_is_only_quoted(text: str) -> None:
    assert quoted(text) == f'"{text}"'


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("p\u0430ypal", r"p\u0430ypal"),  # Latin and Cyrillic
        ("größ\u0435", r"gr\u00f6\u00df\u0435"),
        ("\u0430\u0441\u0435", r"\u0430\u0441\u0435"),  # All of it looks Latin.
        ("\u041e\u0420\u0414\u0415\u0420", r"\u041e\u0420\u0414\u0415\u0420"),
        ("\u0391\u0392", r"\u0391\u0392"),
        ("\u13aa\u13b3", r"\u13aa\u13b3"),  # Cherokee
        ("\uff41", r"\uff41"),
        ("\U0001d41a", r"\ud835\udc1a"),
        ("\u0131\u0251\u0261\u212e\u217c", r"\u0131\u0251\u0261\u212e\u217c"),
        ("e\u0301", r"e\u0301"),
        ("\u0661", r"\u0661"),
        ("\u05d0\u05d1", r"\u05d0\u05d1"),  # From right to left
        ("\u4eba\u53e3", "\u4eba" + r"\u53e3"),
    ],
)
def test_look_alikes_are_code_points(text: str, escaped: str) -> None:
    assert literal(text) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ('"\\', r"\u0022\u005c"),
        ("<!--", r"\u003c\u0021\u002d\u002d"),
        ("![x](y)", r"!\u005bx\u005d\u0028y\u0029"),
        ("&lt;", r"\u0026lt;"),
        ("_x_ x_y", r"\u005fx\u005f x_y"),
        ("x==y", r"x\u003d\u003dy"),
        ("https://x.io", r"https\u003a/\u002fx\u002eio"),
        ("www.1.csv", r"www\u002e1.csv"),
        ("public.events", r"public\u002eevents"),
        (":100: 1:100", r"\u003a100\u003a 1\u003a100"),
        ("a   b", r"a \u0020\u0020b"),
        ("/x: from 1", r"/x\u003a from 1"),
    ],
)
def test_markup_is_code_points(text: str, escaped: str) -> None:
    assert literal(text) == escaped


def test_only_distinct_letters_stay() -> None:
    for character in map(chr, range(0x80, 0x40000)):
        inside = literal(character)
        assert inside == character or inside.isascii()
        if inside == character:
            assert unicodedata.category(character).startswith("L")
            assert unicodedata.bidirectional(character) == "L"
            assert unicodedata.normalize("NFKC", character) == character


def test_literal_text_is_json() -> None:
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)]))
    assert json.loads(f'"{literal(text)}"') == text
    assert json.loads(quoted(text)) == text
