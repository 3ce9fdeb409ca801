"""Search files for a text, in each encoding that may hide it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus


def files_under(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def spellings(text: str) -> set[bytes]:
    """The forms in which a file may contain a text."""
    plain = text.encode()
    spelt = {plain, json.dumps(text)[1:-1].encode(), plain.hex().encode()}
    spelt |= {quote(text, safe="").encode(), quote_plus(text).encode()}
    for shift in range(3):
        # In base64, the text has three forms, one for each alignment.
        encoded = base64.b64encode(b"?" * shift + plain)
        whole = encoded[-(-shift * 8 // 6) : (shift + len(plain)) * 8 // 6]
        spelt |= {whole, whole.translate(bytes.maketrans(b"+/", b"-_"))}
    return spelt


def where(texts: list[str], files: Iterator[Path]) -> list[tuple[str, bytes]]:
    wanted = {spelling for text in texts for spelling in spellings(text)}
    return [
        (path.name, spelling)
        for path in files
        for spelling in wanted
        if spelling in path.read_bytes()
    ]
