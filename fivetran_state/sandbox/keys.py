"""The API keys of the simulated account."""

import base64
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class ApiKey:
    """One key and its permissions."""

    key: str
    secret: str
    is_system: bool = False
    """A system key belongs to the account, not to a user."""
    may_write: bool = True
    connections: frozenset[str] | None = None
    """Ids of the connections that it may touch; None: all."""

    @property
    def authorization(self) -> str:
        """The `Authorization` header for this key."""
        return f"Basic {base64.b64encode(f'{self.key}:{self.secret}'.encode()).decode()}"

    def may_touch(self, connection_id: str) -> bool:
        return self.connections is None or connection_id in self.connections


class Keys:
    """The system keys, and the revoked keys of any kind; may be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._added: dict[str, ApiKey] = {}
        self._revoked: set[str] = set()

    def add(self, key: ApiKey) -> None:
        """Makes the key valid, even if it was revoked."""
        with self._lock:
            self._revoked.discard(key.key)
            self._added[key.key] = key

    def revoke(self, key: str) -> None:
        """The key is refused from now on."""
        with self._lock:
            self._revoked.add(key)

    def find(self, authorization: str | None, user_key: ApiKey) -> ApiKey | None:
        """The valid key in this header: a system key or `user_key`."""
        with self._lock:
            return next(
                (
                    key
                    for key in (user_key, *self._added.values())
                    if key.authorization == authorization and key.key not in self._revoked
                ),
                None,
            )
