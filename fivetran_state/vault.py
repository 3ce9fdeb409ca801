"""What is stored is encrypted: the key, and the DBOS serializer that uses it.

Everything that DBOS stores for us is JSON, compressed, then sealed with AES-256-GCM. No pickle:
who can write to the database must not be able to run code by it.
"""

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fivetran_state.errors import FivetranStateError, InternalError

_NONCE_BYTES = 12
_ERROR = "$error"


def load_or_make_key(path: Path) -> bytes:
    """The 32 bytes of the key file, made with mode 0600 on first use.

    The caller holds the data directory's lock, so that two first starts agree on one key.
    """
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.urlsafe_b64encode(os.urandom(32)))
    return base64.urlsafe_b64decode(path.read_bytes())


class SealingSerializer:
    """A DBOS serializer: JSON values and this project's errors in, opaque text out."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def name(self) -> str:
        return "fivetran_state_sealed_v1"

    def serialize(self, data: Any) -> str:
        plain = zlib.compress(json.dumps(data, default=_encode_error).encode())
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._aead.encrypt(nonce, plain, None)).decode()

    def deserialize(self, serialized_data: str) -> Any:
        sealed = base64.b64decode(serialized_data)
        try:
            plain = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        except InvalidTag as error:
            raise InternalError("A stored value was sealed with another key.") from error
        return json.loads(zlib.decompress(plain), object_hook=_decode_error)


def _encode_error(value: object) -> dict[str, Any]:
    if isinstance(value, FivetranStateError):
        return {_ERROR: value.to_json()}
    if isinstance(value, Exception):
        # Its text may quote anything; the log on stderr has it.
        return {_ERROR: InternalError(f"Unexpected {type(value).__name__}.").to_json()}
    raise TypeError(f"{type(value).__name__} cannot be stored")


def _decode_error(value: dict[str, Any]) -> Any:
    if value.keys() == {_ERROR}:
        return FivetranStateError.from_json(value[_ERROR])
    return value
