"""What moved from each version to the next."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote

from fivetran_state import models, state
from fivetran_state.history.versions import Entry, Version


@dataclass(frozen=True)
class Move:
    """A version, and how it differs from the one before.

    `changes` are the first `models.SHOWN_CHANGES` of `total`, each cut to a preview. Nothing is known
    of the oldest version that is kept: `is_oldest` is true, and `total` is 0.
    """

    version: Version
    changes: list[models.Change]
    total: int
    is_oldest: bool


def moves(
    entries: Iterable[Entry], read: Callable[[Version], str], path: str | None = None
) -> list[Move]:
    """What moved in each version of a page, in its order; `read` returns a version's JSON text.

    With `path`, a JSON Pointer, only the versions in which the value there moved, and only what
    moved there. No more than two states are held at once, so a page of large ones is fine. Raises
    `state.NotThere` if the pointer is malformed.
    """
    if path is not None:
        state.part_of({}, path)  # Raises if it is malformed.
    held: dict[str, state.Document] = {}

    def document_of(version: Version) -> state.Document:
        if version.content_id not in held:
            while len(held) > 1:
                del held[next(iter(held))]
            held[version.content_id] = state.document(read(version))
        return held[version.content_id]

    found = []
    for entry in entries:
        if entry.before is None:
            if path is None:
                found.append(Move(entry.version, [], 0, is_oldest=True))
            continue
        # The later one first: the earlier one is the later one of the next entry.
        after = document_of(entry.version)
        changes, total = between(document_of(entry.before), after, path)
        if total or path is None:
            found.append(Move(entry.version, changes, total, is_oldest=False))
    return found


def between(
    before: state.Document, after: state.Document, path: str | None = None
) -> tuple[list[models.Change], int]:
    """The first differences, or those at or below the path, and how many there are."""
    if path is None:
        return models.changes_between(before, after)
    pointer = unquote(path[1:], errors="surrogatepass") if path.startswith("#") else path
    return models.changes_between(_alone(before, pointer), _alone(after, pointer))


def _alone(document: state.Document, pointer: str) -> state.Document:
    """A state in which the value at the pointer, if it is there, is the only one, at its place."""
    if pointer == "":
        return document
    *parents, last = (
        token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]
    )
    alone: state.State = {}
    if not isinstance(document, state.RawDocument):
        with suppress(state.NotThere):
            alone[last] = state.at(document, pointer)
    for token in reversed(parents):
        alone = {token: alone}
    return alone
