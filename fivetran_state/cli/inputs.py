"""What a person gives a command: text, files, stdin, an editor."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fivetran_state.errors import InvalidRequest


def text_of(given: str, option: str) -> str:
    """The text itself, or that of `@FILE`, or of stdin for `-`; raises `InvalidRequest`."""
    if given == "-":
        return _decoded(sys.stdin.buffer.read(), f"{option}: stdin")
    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        return _decoded(path.read_bytes(), f"{option}: {path}")
    except OSError as error:
        raise InvalidRequest(
            f"{option}: the file {path} cannot be read: {error.strerror}."
        ) from error


def texts_of(given: Mapping[str, str | None]) -> dict[str, str | None]:
    """The texts of a command's changes, each of which may be named as for `text_of`, by kind."""
    return {
        kind: None if value is None else text_of(value, f"--{kind.replace('_', '-')}")
        for kind, value in given.items()
    }


def edited(path: Path) -> None:
    """Let the person edit the file with `$VISUAL` or `$EDITOR`; raises `InvalidRequest`."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _usual_editor()
    try:
        ended = subprocess.run([*shlex.split(editor), str(path)], check=False)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"The editor {editor!r} does not start. Set EDITOR to the command of yours."
        ) from error
    if ended.returncode:
        raise InvalidRequest(
            f"The editor ended with exit code {ended.returncode}; nothing was written."
        )


def _usual_editor() -> str:
    return "notepad" if os.name == "nt" else "vi"


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{what} is not UTF-8 text.") from error
