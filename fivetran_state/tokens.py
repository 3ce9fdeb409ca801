"""Bearer tokens that the operator creates. The file stores only their hashes."""

import hashlib
import hmac
import logging
import os
import secrets
from datetime import datetime, timedelta, timezone

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from fivetran_state import private
from fivetran_state.access import Scope
from fivetran_state.config import Settings
from fivetran_state.errors import AuthenticationUnavailable

logger = logging.getLogger(__name__)

PREFIX = "fst"
"""The beginning of every token, so that secret scanners and people recognize it."""


class Token(BaseModel):
    """One token in the file. It is valid until `expires`, or until it is removed."""

    id: str
    name: str | None
    scope: Scope
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: AwareDatetime
    expires: AwareDatetime | None

    @property
    def has_expired(self) -> bool:
        return self.expires is not None and self.expires <= _now()


class _Content(BaseModel):
    tokens: list[Token] = []


class TokenFile:
    """The tokens in the file, which any process may change.

    While the file exists, callers need a token, even if no token in it is valid any more.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = settings.tokens_path
        self._directories = (
            [self.path.parent] if settings.tokens_file else [settings.data_dir, settings.home]
        )
        self._seen: tuple[int, int, int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def exists(self) -> bool:
        return os.path.lexists(self.path)

    def tokens(self) -> dict[str, Token]:
        """The tokens by id. Raises `AuthenticationUnavailable` if the file cannot be read."""
        try:
            found = self.path.lstat()
            now = (found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino)
            if now != self._seen:
                content = _Content.model_validate_json(private.read(self.path))
                self._tokens = {token.id: token for token in content.tokens}
                self._seen = now
        except FileNotFoundError:
            self._tokens, self._seen = {}, None
        except (OSError, ValidationError) as error:
            # Do not name the path: anybody may read the answer.
            why = error if isinstance(error, private.NotPrivate) else type(error).__name__
            logger.error("%s cannot be read: %s", self.path, why)
            raise AuthenticationUnavailable(
                f"The token file cannot be read ({type(error).__name__})."
            ) from None
        return self._tokens

    def find(self, presented: str) -> Token | None:
        """The valid token with this text, or None."""
        prefix, _, rest = presented.partition("_")
        if prefix != PREFIX:
            return None
        return self.find_by_hash(rest.partition("_")[0], _hash(presented))

    def find_by_hash(self, token_id: str, sha256: str) -> Token | None:
        """The valid token with this id, if this is still its hash, or None."""
        token = self.tokens().get(token_id)
        if token is None or token.has_expired:
            return None
        return token if hmac.compare_digest(token.sha256, sha256) else None

    def create(self, scope: Scope, name: str | None, days: float | None) -> tuple[str, Token]:
        """A new token: its text, which is not stored anywhere, and its entry in the file."""
        token_id = secrets.token_hex(4)
        text = f"{PREFIX}_{token_id}_{secrets.token_urlsafe(32)}"
        now = _now()
        token = Token(
            id=token_id,
            name=name,
            scope=scope,
            sha256=_hash(text),
            created=now,
            expires=None if days is None else now + timedelta(days=days),
        )
        with self._lock():
            self._write([*self.tokens().values(), token])
        return text, token

    def revoke(self, token_id: str) -> bool:
        """Remove a token; false if there is no such token."""
        with self._lock():
            left = dict(self.tokens())
            if left.pop(token_id, None) is None:
                return False
            self._write(list(left.values()))
        return True

    def _lock(self) -> FileLock:
        for directory in self._directories:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return private.lock(self.path.with_name(f"{self.path.name}.lock"))

    def _write(self, tokens: list[Token]) -> None:
        private.write(self.path, _Content(tokens=tokens).model_dump_json(indent=1))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> datetime:
    return datetime.now(timezone.utc)
