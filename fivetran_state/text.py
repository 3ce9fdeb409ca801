"""Text from outside, made fit to be shown: nothing in it that does not show, and no end to it.

A state, a name, a reason or an error message may hold escape sequences that move a terminal's
cursor, characters that turn the reading order round, and characters that a person does not see but
a model reads.
"""

import json
import re

_CONTROLS = "\x00-\x1f"
_NOT_SHOWN_BY_JSON = (
    "\x7f-\x9f"  # The rest of the controls (Cc), some of which terminals obey.
    # Format characters (Cf), and whatever else Unicode lets renderers ignore: soft hyphen, joiners,
    # marks and overrides of direction, fillers, variation selectors, tags.
    "\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\u2028\u2029"  # Ends of line and paragraph (Zl, Zp).
    "\ud800-\udfff"  # Halves of characters (Cs), which UTF-8 cannot carry.
    "\ue000-\uf8ff\U000f0000-\U0010ffff"  # Private use (Co), and what no character will ever be.
    "\ufdd0-\ufdef\ufffe\uffff"
)
HIDDEN = re.compile(f"[{_NOT_SHOWN_BY_JSON}]")
"""What does not show, but for the first 32 controls: those every JSON text writes as an escape."""

_UNFIT = re.compile(f"[{_CONTROLS}{_NOT_SHOWN_BY_JSON}]")

_WORD = re.compile(r"[\w/~.#%-]+")


def visible(text: str) -> str:
    """The text with each character that does not show written as JSON escapes it: `\\u202e`."""
    return _UNFIT.sub(lambda found: escape(found[0]), text)


def shown(text: str, limit: int = 60) -> str:
    """`visible`, and at most `limit` characters: for names, reasons and whatever a message quotes."""
    cut = visible(text[:limit])
    return cut if len(text) <= limit and len(cut) <= limit else f"{cut[: limit - 1]}…"


def quoted(text: str) -> str:
    """Visible text, as JSON text unless it is a plain word: so it cannot pass for its surroundings."""
    return text if _WORD.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def escape(character: str) -> str:
    """`\\u202e`; of a character beyond 16 bits, as in JSON, two of them."""
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
