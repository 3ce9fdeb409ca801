"""The keys that encrypt stored values, and the DBOS serializer that uses them.

DBOS stores all our values as JSON, compressed and sealed with AES-256-GCM. Pickle is never used:
somebody with write access to the database must not be able to run code.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fivetran_state import private
from fivetran_state.config import Settings
from fivetran_state.errors import (
    DatabaseUnavailable,
    FivetranStateError,
    InternalError,
    UnusableKey,
)

logger = logging.getLogger(__name__)

KEY_FILE = "key"
SETUP_LOCK = "setup.lock"
"""Two processes that start at once agree on one key, and on one database, by this lock."""
MIN_KEY_LENGTH = 16
"""Minimum length of a key from the environment; 32 random bytes as base64 are better."""

_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_ERROR, _PLACE, _VALUE = "$error", "$place", "$value"


def keys(settings: Settings) -> list[bytes]:
    """The configured keys: the first seals, all of them open. Raises `UnusableKey`.

    Empty on a very first start with SQLite, until `key_from_file` makes one.
    """
    setting, key_file = settings.secret_key, settings.home / KEY_FILE
    found = [] if setting is None else keys_from_environment(setting.get_secret_value())
    if setting is None and settings.database_url is not None:
        raise UnusableKey("With Postgres, every process needs the same FIVETRAN_STATE_SECRET_KEY.")
    # Values sealed before this variable was set stay readable.
    return [*found, key_from_file(key_file)] if os.path.lexists(key_file) else found


def made_keys(settings: Settings) -> list[bytes]:
    """Like `keys`, but makes the key file on a very first start. May wait for the engine's start.

    Raises `UnusableKey` or `OSError`.
    """
    private.make_directories(settings.data_dir, settings.home)
    with private.lock(settings.home / SETUP_LOCK):
        return keys_under_lock(settings)


def keys_under_lock(settings: Settings) -> list[bytes]:
    """`made_keys` for a caller who holds the lock `SETUP_LOCK`."""
    return keys(settings) or [key_from_file(settings.home / KEY_FILE)]


def keys_from_environment(setting: str) -> list[bytes]:
    """The keys of `FIVETRAN_STATE_SECRET_KEY`: the first seals; all of them, separated by commas,
    open.

    A key may be any text: 32 bytes are derived from it. Raises `UnusableKey`.
    """
    keys = [key.strip() for key in setting.split(",")]
    if any(len(key) < MIN_KEY_LENGTH for key in keys):
        raise UnusableKey(
            f"FIVETRAN_STATE_SECRET_KEY must have at least {MIN_KEY_LENGTH} "
            "characters. Separate several keys by commas."
        )
    return [hashlib.sha256(b"fivetran-state\n" + key.encode()).digest() for key in keys]


def key_from_file(path: Path) -> bytes:
    """The 32 bytes of the key file, which is created with mode 0600 on first use.

    The caller holds the data directory's lock, so two first starts agree on one key.
    """
    if not os.path.lexists(path):
        private.write(path, base64.urlsafe_b64encode(os.urandom(32)).decode())
    try:
        key = base64.urlsafe_b64decode(private.read(path))
        AESGCM(key)
    except ValueError as error:
        raise UnusableKey(f"The key file {path} does not contain a key.") from error
    return key


@dataclass(frozen=True)
class Bound:
    """A value and the place in the database that it belongs to (see `binding`)."""

    place: str
    value: Any


class Sealer:
    """JSON values in, opaque text out, for one purpose of one account.

    The first key seals; all keys open. Text sealed for another purpose or account is refused.
    """

    def __init__(self, keys: Sequence[bytes], purpose: str) -> None:
        self._keys = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: AESGCM(key) for key in keys}
        self._sealing_id = next(iter(self._keys))
        self._purpose = purpose.encode()

    def serialize(self, data: Any) -> str:
        plain = zlib.compress(json.dumps(data, default=_encode).encode())
        nonce = os.urandom(_NONCE_BYTES)
        key_id = self._sealing_id
        sealed = self._keys[key_id].encrypt(nonce, plain, key_id + self._purpose)
        return base64.b64encode(key_id + nonce + sealed).decode()

    def deserialize(self, serialized_data: str) -> Any:
        """The value; raises `UnusableKey` if none of the keys sealed it for this purpose and
        account."""
        stored = base64.b64decode(serialized_data)
        key_id, rest = stored[:_KEY_ID_BYTES], stored[_KEY_ID_BYTES:]
        nonce, sealed = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        try:
            plain = self._keys[key_id].decrypt(nonce, sealed, key_id + self._purpose)
        except (KeyError, InvalidTag, ValueError) as error:
            raise UnusableKey("A stored value was sealed with another key.") from error
        return json.loads(zlib.decompress(plain), object_hook=_decode)


class Texts(Sealer):
    """Seals what leaves the database, or lies in a request by itself, as URL-safe text."""

    def __init__(self, keys: Sequence[bytes], application: str) -> None:
        super().__init__(keys, f"text of {application}")

    def seal(self, value: object) -> str:
        return self.serialize(value).replace("+", "-").replace("/", "_")

    def unseal(self, text: str) -> object:
        """The sealed value; raises `UnusableKey` if the text was not sealed with one of the keys."""
        try:
            return self.deserialize(text.replace("-", "+").replace("_", "/"))
        except ValueError as error:
            raise UnusableKey("This was not sealed here.") from error


class SealingSerializer(Sealer):
    """The DBOS serializer. It also stores this project's errors and `Bound` values."""

    def __init__(self, keys: Sequence[bytes], application: str) -> None:
        super().__init__(keys, f"stored by {application}")
        self._digest_key = hashlib.sha256(b"digest\n" + keys[0]).digest()

    def name(self) -> str:
        return "fivetran_state_sealed_v2"

    def digest(self, text: str) -> str:
        """A keyed digest: only a reader with the key can compare texts by it."""
        return hmac.new(self._digest_key, text.encode(), hashlib.sha256).hexdigest()[:32]


class FirstSerializer(Sealer):
    """Reads values of 0.1, which have no place. Only `migration` uses it."""

    NAME = "fivetran_state_sealed_v1"

    def __init__(self, keys: Sequence[bytes]) -> None:
        super().__init__(keys, "")


def _encode(value: object) -> dict[str, Any]:
    from sqlalchemy.exc import SQLAlchemyError  # The caller has already imported this.

    if isinstance(value, Bound):
        return {_PLACE: value.place, _VALUE: value.value}
    if isinstance(value, SQLAlchemyError | DatabaseUnavailable):
        # DBOS takes this error for the workflow's outcome when it could not record the real one.
        # Break the workflow off, so that the engine runs it again from its last checkpoint.
        logger.error("The database failed", exc_info=value)
        raise asyncio.CancelledError from value
    if isinstance(value, Exception):
        error: Exception = value
        if not isinstance(error, FivetranStateError):
            # The error's text may quote anything, so only stderr gets it.
            error = InternalError(f"Unexpected {type(value).__name__}.")
        return {_ERROR: error.to_json(), _PLACE: getattr(value, "place", None)}
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _decode(value: dict[str, Any]) -> Any:
    if value.keys() == {_PLACE, _VALUE}:
        return Bound(value[_PLACE], value[_VALUE])
    if value.keys() in ({_ERROR}, {_ERROR, _PLACE}):
        error = FivetranStateError.from_json(value[_ERROR])
        error.place = value.get(_PLACE)
        return error
    return value
