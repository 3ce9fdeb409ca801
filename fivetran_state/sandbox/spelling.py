"""Split and reformat JSON text without parsing its numbers, so that they stay exact."""

import json
import re
from collections.abc import Iterator

_SPACE = re.compile(r"[ \t\n\r]*")
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_ESCAPED = re.compile("[^ -~]|[<>&='\x7f]")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)


def members(document: bytes) -> dict[str, str]:
    """The members of a JSON object, each value as its original text.

    Raises `ValueError` if the document is not a JSON object.
    """
    text = document.decode()
    found: dict[str, str] = {}
    position = _after(text, 0, "{")
    while text[position : position + 1] != "}":
        if found:
            position = _after(text, position, ",")
        name, end = _decoded(text, position)
        if not isinstance(name, str) or text[position] != '"':
            raise ValueError(f"no name at position {position}")
        start = _after(text, _skipped(text, end), ":")
        _, end = _decoded(text, start)
        found[name] = text[start:end]
        position = _skipped(text, end)
    if _skipped(text, position + 1) != len(text):
        raise ValueError("there is more after the object")
    return found


def _decoded(text: str, position: int) -> tuple[object, int]:
    try:
        value, end = _DECODER.raw_decode(text, position)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value, end


def _after(text: str, position: int, character: str) -> int:
    position = _skipped(text, position)
    if text[position : position + 1] != character:
        raise ValueError(f"no {character} at position {position}")
    return _skipped(text, position + 1)


def _skipped(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def pretty(document: str) -> str:
    r"""The same JSON with indentation, and with `\u` escapes where some of Java's serializers use
    them: for characters that are not ASCII, and for `<`, `>`, `&`, `=` and `'`."""
    return "".join(_pretty(document))


def _pretty(document: str) -> Iterator[str]:
    depth, before = 0, ""
    for part in _PART.findall(document):
        opened, closes = before in ("{", "["), part in ("}", "]")
        depth -= closes
        if before == "," or opened != closes:
            yield "\n" + "  " * depth
        depth += part in ("{", "[")
        yield _ESCAPED.sub(_escape, part) if part[0] == '"' else part
        if part == ":":
            yield " "
        before = part


def _escape(character: re.Match[str]) -> str:
    units = character[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
