"""JSON Pointers (RFC 6901): what is at a place, and how a place is shown."""

import re
from collections.abc import Iterable
from itertools import islice
from urllib.parse import quote, unquote

from fivetran_state.state.values import JsonValue, with_article
from fivetran_state.state.writing import dump
from fivetran_state.text import shown, visible

MAX_PATH_LENGTH = 1000
"""The most characters of a JSON Pointer that are shown."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


class NotThere(LookupError):
    """A JSON Pointer points to nothing; the message names the nearest parent that exists."""


def at(value: JsonValue, pointer: str) -> JsonValue:
    """The value at a JSON Pointer (RFC 6901), or at its form with a #. Raises NotThere."""
    return at_tokens(value, tokens_of(pointer))


def shown_path(pointer: str) -> str:
    """The pointer as it is shown. `at` and JSON patches understand it unless it had to be cut.

    A pointer with invisible characters is shown as a URI fragment (RFC 6901, 6): `#/a%E2%80%8B`.
    """
    usable = usable_form(pointer)
    return shown(pointer, MAX_PATH_LENGTH) if usable is None else usable


def usable_form(pointer: str) -> str | None:
    """The pointer in a form without invisible characters; None if that would be too long."""
    if len(pointer) <= MAX_PATH_LENGTH and visible(pointer) != pointer:
        pointer = "#" + "".join(
            quote(character, errors="surrogatepass")
            if character == "%" or visible(character) != character
            else character
            for character in pointer
        )
    return pointer if len(pointer) <= MAX_PATH_LENGTH else None


def without_fragment(pointer: str) -> str:
    """The pointer, if this is its form with a #. Raises NotThere if its escapes are not UTF-8."""
    if not pointer.startswith("#"):
        return pointer
    try:
        return unquote(pointer[1:], errors="surrogatepass")
    except UnicodeError:
        raise NotThere(
            f"{shown(pointer)} is not a JSON Pointer; its % escapes must be UTF-8"
        ) from None


def tokens_of(pointer: str) -> list[str]:
    """The keys and indexes on the way. Raises NotThere if it is not a JSON Pointer."""
    text = without_fragment(pointer)
    if (text and not text.startswith("/")) or re.search("~(?![01])", text):
        raise NotThere(
            f"{shown(pointer)} is not a JSON Pointer; start it with /, and write ~ as ~0, / as ~1"
        )
    return [unescaped(token) for token in text.split("/")[1:]]


def unescaped(token: str) -> str:
    """The key that a token of a pointer stands for."""
    return token.replace("~1", "/").replace("~0", "~")


def index_of(token: str) -> int | None:
    """The index of an item in an array, if the token is one."""
    return int(token) if _INDEX.fullmatch(token) else None


def at_tokens(value: JsonValue, tokens: list[str]) -> JsonValue:
    """`at`, for a pointer that was taken apart."""
    for depth, token in enumerate(tokens):
        index = index_of(token) if isinstance(value, list) else None
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and index is not None and index < len(value):
            value = value[index]
        else:
            raise NotThere(
                f"nothing at {shown(pointer_of(tokens))}; "
                f"the nearest is {place_of(tokens[:depth])}, {_describe(value)}"
            )
    return value


def pointer_of(path: Iterable[str | int]) -> str:
    """The JSON Pointer of keys and indexes."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in path)


def place_of(path: Iterable[str | int]) -> str:
    """The pointer for a sentence."""
    return shown(pointer_of(path)) or "the top"


def _describe(value: JsonValue) -> str:
    if isinstance(value, dict) and value:
        keys = ", ".join(shown(dump(key), 30) for key in islice(value, 5))
        size = "1 key" if len(value) == 1 else f"{len(value)} keys"
        return f"an object with {size}: {keys}{', …' if len(value) > 5 else ''}"
    return f"an array of {len(value)}" if isinstance(value, list) else with_article(value)
