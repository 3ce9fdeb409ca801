"""External text, made safe to show: every character is visible, and the length has a limit.

A state, a name, a reason or an error message may contain escape sequences that move a terminal's
cursor, characters that reverse the reading order, characters that a person does not see but a model
reads, markup, and letters that look like others.
"""

import re
import unicodedata

_CONTROLS = "\x00-\x1f"
_NOT_SHOWN_BY_JSON = (
    "\x7f-\x9f"  # The rest of the controls (Cc), some of which terminals obey.
    # Format characters (Cf), and others that Unicode lets renderers ignore: soft hyphen, joiners,
    # marks and overrides of direction, fillers, variation selectors, tags.
    "\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\u2028\u2029"  # Ends of line and paragraph (Zl, Zp).
    "\ud800-\udfff"  # Halves of characters (Cs), which UTF-8 cannot carry.
    "\ue000-\uf8ff\U000f0000-\U0010ffff"  # Private use (Co), and noncharacters.
    "\ufdd0-\ufdef\ufffe\uffff"
)
HIDDEN = re.compile(f"[{_NOT_SHOWN_BY_JSON}]")
"""Invisible characters, except the first 32 controls: JSON always escapes those."""

UNFIT = re.compile(f"[{_CONTROLS}{_NOT_SHOWN_BY_JSON}]")
"""Every invisible character: what `visible` escapes."""

_WORD = re.compile(r"[A-Za-z0-9/]([\w/.-]*[A-Za-z0-9/])?", re.ASCII)

# File name endings that are not top-level domains: renderers make "orders.io" a link, but not
# "orders.csv".
_FILE_ENDINGS = "avro|csv|gz|json|jsonl|log|orc|parquet|sql|tsv|txt|xml|yaml|yml"
_MARKUP = rf"""
    ["\\`*<>(){{}}|~^$&@#\[\]]      # Markdown, HTML, maths, mentions, and our own marks.
  | (?<![A-Za-z0-9_])_+ | _+(?![A-Za-z0-9_])    # Emphasis, but inside of a word.
  | (?<![0-9]): | :(?![0-9]{{2}}(?![0-9]))      # Schemes and :emoji:, but not 10:30:00.
  | (?<=/)/                                     # Addresses without a scheme.
  | (?<=[Ww])\. | \.(?=\.) | (?<=\.)\.          # Addresses like www.
  | \.(?=[^\W\d_])(?!({_FILE_ENDINGS})(?![\w.-]))       # Addresses like example.com.
  | [-+,!?]{{2,}}                               # Dashes and whatever else typographers join.
  | (?<![A-Za-z0-9])={{2,}} | ={{2,}}(?!=|\Z) | ={{3,}}  # Highlighting, but not the end of base64.
  | (?<=[ ])[ ]                                 # HTML shows several spaces as one.
"""
# Escape these: each looks like a sign, or like a letter of its own script that is not escaped.
_TWINS = "ÐĔĕ一丨丶丿亅乂二十口囗八力工卜夕千才曰へべぺ"
_NOT_LITERAL = re.compile(rf"(?P<word>[^\W\d_{_TWINS}]+) | {_MARKUP} | [^\x20-\x7e]", re.VERBOSE)

_SCRIPTS = {
    "Latin": "A-Za-z\u00c0-\u017f\u01a0\u01a1\u01af\u01b0\u1ea0-\u1ef9",
    "Greek": "\u0370-\u03ff",
    "Cyrillic": "\u0400-\u045f\u0490\u0491",
    "Japanese or Chinese": "\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff",
    "Korean": "\uac00-\ud7a3",
}
_ONE_SCRIPT = re.compile("|".join(f"[{letters}]+" for letters in _SCRIPTS.values()))
_LATIN = re.compile(f"[{_SCRIPTS['Latin']}]+")
_LIKE_LATIN = re.compile(f"[{_SCRIPTS['Greek']}{_SCRIPTS['Cyrillic']}]+")
# Latin letters without a decomposition that nobody takes for an ASCII letter.
_DISTINCT_LATIN = frozenset("ßæÆœŒøØðþÞđĐħĦłŁŋŊ")
# Greek and Cyrillic letters that nobody takes for a Latin letter or a digit.
_DISTINCT = frozenset("δζθλμξπςφψωΓΔΘΛΞΠΣΦΨΩджзийлпфцшщъыэюяґБГДЖИЙЛПФЦШЩЪЫЭЮЯҐ")


def visible(text: str) -> str:
    """The text with each invisible character as a JSON escape: `\\u202e`."""
    return UNFIT.sub(lambda found: escape(found[0]), text)


def shown(text: str, limit: int = 60) -> str:
    """`visible`, and at most `limit` characters: for names, reasons and everything that a message
    quotes."""
    cut = visible(text[:limit])
    return cut if len(text) <= limit and len(cut) <= limit else f"{cut[: limit - 1]}…"


def quoted(text: str) -> str:
    """A plain ASCII word as it is, any other text as a JSON string of `literal` text.

    So the text stays on one line, cannot imitate the words around it, and reads the same in plain
    text, Markdown and HTML. `json.loads` of the quoted form returns the text.
    """
    inside = literal(text)
    return text if inside == text and _WORD.fullmatch(text) else f'"{inside}"'


def caller(name: str) -> str:
    """The name of an `access.Principal`, such as shell:anna: `quoted`, but for the colon."""
    kind, colon, rest = name.partition(":")
    return f"{quoted(kind)}:{quoted(rest)}" if colon else quoted(kind)


def literal(text: str) -> str:
    """The inside of a JSON string that reads the same in plain text, Markdown and HTML.

    These are written by code point (`\\u0060`): quotation marks and backslashes, which Markdown
    would take for its own escapes; markup, links, emoji codes, and repeated spaces; characters that
    are neither ASCII nor a letter; and letters that look like others (see `_reads_as_itself`).
    """
    return _NOT_LITERAL.sub(_literal, text)


def escape(character: str) -> str:
    """`\\u202e`; as in JSON, a character beyond 16 bits has two escapes."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _literal(found: re.Match[str]) -> str:
    word = found["word"]
    if word is None:
        return "".join(map(escape, found[0]))
    if word.isascii() or _reads_as_itself(word):
        return word
    return "".join(each if each.isascii() else escape(each) for each in word)


def _reads_as_itself(word: str) -> bool:
    """True if no letter of the word looks like another: all letters are distinct and of one script.

    Only a few scripts qualify. The others have many look-alikes, need combining marks, which may
    cover the text around them, or are written from right to left, which moves the text next to
    them.
    """
    if not _ONE_SCRIPT.fullmatch(word) or unicodedata.normalize("NFKC", word) != word:
        return False
    if _LATIN.fullmatch(word):
        return all(_is_distinct_latin(letter) for letter in word)
    # One distinct letter among look-alikes is easy to overlook.
    return not _LIKE_LATIN.fullmatch(word) or sum(letter in _DISTINCT for letter in word) >= 2


def _is_distinct_latin(letter: str) -> bool:
    return letter in _DISTINCT_LATIN or unicodedata.normalize("NFD", letter)[0].isascii()
