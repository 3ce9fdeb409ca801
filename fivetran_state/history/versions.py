"""The versions of a connection's state, and how each one is sealed."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Protocol

from fivetran_state.errors import Tampered, UnusableKey
from fivetran_state.text import shown
from fivetran_state.vault import Bound


class SeenBy(str, Enum):
    """How a version came about, as far as it is known. The values are stored."""

    SYNC = "sync"
    UPDATE = "update"
    OTHERS = "others"
    FIRST_LOOK = "first look"
    """Nobody had looked before, so anybody may have made it."""


@dataclass(frozen=True)
class Version:
    """One state that a connection had. Times are milliseconds since 1970."""

    owner: str
    """The connection's id; for a guest, the account's id and a slash come first."""
    ordinal: int
    """Tells the versions of a connection apart. Not their order, which is that of `first_seen`."""
    version: str
    """The `state.version` of its content."""
    first_seen: int
    last_seen: int
    seen_by: SeenBy
    workflow_id: str | None
    """The update that wrote it."""
    content_id: str
    mark: str
    """Random, so that the next version can name this one and no other."""
    previous: str | None
    """The mark of the version before; None for the oldest."""

    @property
    def position(self) -> tuple[int, int]:
        """What the versions of a connection are ordered by."""
        return self.first_seen, self.ordinal


_SEALED = [field.name for field in fields(Version) if field.name not in ("owner", "ordinal")]


@dataclass(frozen=True)
class Entry:
    """A version, and the one before it: None if it is the oldest that is kept."""

    version: Version
    before: Version | None


@dataclass(frozen=True)
class Page:
    """Versions, newest first. `next_cursor` is None on the last page."""

    entries: list[Entry]
    next_cursor: str | None


@dataclass(frozen=True)
class AtMoment:
    """The version that was there at a moment, and how sure that is.

    It was seen from `version.first_seen` until `version.last_seen`. Another version was first seen at
    `next_seen` (None: not yet). Between `last_seen` and `next_seen`, the change came at some time,
    and other versions may have come and gone.
    """

    moment: int
    version: Version
    next_seen: int | None

    @property
    def is_certain(self) -> bool:
        """True if the version was seen before the moment, or at it, and again after it or at it."""
        return self.version.first_seen <= self.moment <= self.version.last_seen


class Sealer(Protocol):
    """`vault.Sealer`."""

    def serialize(self, data: Any) -> str: ...

    def deserialize(self, serialized_data: str) -> Any: ...


class Seals:
    """Seals versions and contents together with the account, connection and row they belong to."""

    def __init__(self, sealer: Sealer, digest: Callable[[str], str], account: str) -> None:
        self._sealer = sealer
        self._digest = digest
        self._account = account

    def content_id(self, owner: str, text: str) -> str:
        """The same for equal texts of one connection; only for a reader with the key."""
        return self._digest(f"history\n{self._account}\n{owner}\n{text}")

    def sealed_version(self, version: Version) -> str:
        sealed = {name: getattr(version, name) for name in _SEALED}
        place = self._version_place(version.owner, version.ordinal)
        return self._sealer.serialize(Bound(place, sealed))

    def opened_version(self, owner: str, ordinal: int, first_seen: int, sealed: str) -> Version:
        """The version in a row. Raises `Tampered` if it belongs elsewhere, or `UnusableKey`."""
        found = self._opened(sealed, self._version_place(owner, ordinal), owner)
        # A later version of this program may have sealed more.
        known = {name: found[name] for name in _SEALED}
        version = Version(owner, ordinal, **known | {"seen_by": SeenBy(found["seen_by"])})
        if version.first_seen != first_seen:
            raise tampered(owner)
        return version

    def sealed_content(self, owner: str, content_id: str, text: str) -> str:
        return self._sealer.serialize(Bound(self._content_place(owner, content_id), text))

    def opened_content(self, version: Version, sealed: str) -> str:
        """The JSON text. Raises `Tampered` if it belongs elsewhere, or `UnusableKey`."""
        place = self._content_place(version.owner, version.content_id)
        text: str = self._opened(sealed, place, version.owner)
        return text

    def _opened(self, sealed: str, place: str, owner: str) -> Any:
        try:
            found = self._sealer.deserialize(sealed)
        except (UnusableKey, ValueError, zlib.error):
            raise UnusableKey(
                f"The state history of {shown(owner)} was sealed with another key, or someone has "
                "changed the database."
            ) from None
        if not isinstance(found, Bound) or found.place != place:
            raise tampered(owner)
        return found.value

    def _version_place(self, owner: str, ordinal: int) -> str:
        return f"history of {self._account}\n{owner}\nversion {ordinal}"

    def _content_place(self, owner: str, content_id: str) -> str:
        return f"history of {self._account}\n{owner}\ncontent {content_id}"


def check_link(version: Version, before: Version | None) -> None:
    """Raise `Tampered` if another version than this one was remembered before it."""
    if version.previous != (None if before is None else before.mark):
        raise tampered(version.owner)


def tampered(owner: str) -> Tampered:
    return Tampered(
        f"The state history of {shown(owner)} is not what this program stored: someone has changed "
        "the database."
    )
