"""Access tokens of an OAuth 2.1 issuer: JWTs, verified with the issuer's published keys.

The issuer's own metadata (RFC 8414, or else OpenID Connect's) leads to the keys, which are cached.
"""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import anyio
import httpx
import jwt
from pydantic import BaseModel

from fivetran_state import network
from fivetran_state.config import is_secure_url
from fivetran_state.errors import AuthenticationUnavailable, UnusableSettings

logger = logging.getLogger(__name__)

ALGORITHMS = {
    "RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "EC": ["ES256", "ES384", "ES512"],
    "OKP": ["EdDSA"],
}
"""By kind of key. Asymmetric only: a server that checks tokens must not be able to create them."""

KEYS_AGE = 600.0
"""Seconds after which the keys are fetched again, so that a withdrawn key stops working."""
MIN_FETCH_PAUSE = 10.0
"""Minimum seconds between two fetches for unknown keys, or while the issuer does not answer."""
LEEWAY = 30
"""Tolerance for the issuer's clock, in seconds."""
TIMEOUT = 5.0
"""Seconds for one fetch of everything."""
MAX_ANSWER_BYTES = 1024 * 1024
"""Maximum size of an answer in bytes; Google's two hundred keys would take a quarter of it."""

_ACCESS_TOKEN_TYPES = ("jwt", "at+jwt", "application/at+jwt")


class _Metadata(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    keys: list[dict[str, Any]]


class _Key(NamedTuple):
    key: Any
    algorithms: list[str]


class Issuer:
    """Verifies tokens that one issuer made for one audience."""

    def __init__(self, url: str, audience: str) -> None:
        self._url = url
        self._audiences = [audience.rstrip("/"), audience.rstrip("/") + "/"]
        self._keys: dict[str, _Key] = {}
        self._fetched_at: float | None = None
        self._not_before = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None

    async def claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a valid token, else None; raises `AuthenticationUnavailable`."""
        try:
            header = jwt.get_unverified_header(token)
            if str(header.get("typ", "jwt")).lower() not in _ACCESS_TOKEN_TYPES:
                return None
            key = await self._key(str(header.get("kid")))
            if key is None:
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                audience=self._audiences,
                issuer=self._url,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            logger.info("A token was refused: %s", type(error).__name__)
            return None
        return claims

    async def _key(self, key_id: str) -> _Key | None:
        key = self._keys.get(key_id)
        if key is not None:
            is_refreshed = self._refresh is None or self._refresh.done()
            if self._is_old and self._may_fetch and is_refreshed:
                # Do not wait: an issuer that does not answer would delay every caller.
                self._refresh = asyncio.create_task(self._fetch_once())
            return key
        if self._may_fetch:
            await self._fetch_once()
        if self._fetched_at is None:
            raise AuthenticationUnavailable(f"The keys of {self._url} cannot be fetched.")
        return self._keys.get(key_id)

    @property
    def _is_old(self) -> bool:
        return self._fetched_at is None or time.monotonic() > self._fetched_at + KEYS_AGE

    @property
    def _may_fetch(self) -> bool:
        return time.monotonic() >= self._not_before

    async def _fetch_once(self) -> None:
        """Fetch the keys once for all callers that ask at the same time."""
        before = self._fetched_at
        async with self._one_at_a_time:
            if self._fetched_at == before and self._may_fetch:
                await self._fetch()

    async def _fetch(self) -> None:
        """Fetch the keys. The known keys stay valid while the issuer does not answer."""
        is_first = self._fetched_at is None
        try:
            # httpx limits each read, so an issuer that sends slowly would never reach its limit.
            with anyio.fail_after(TIMEOUT):
                found = await self._published()
        except (
            TimeoutError,
            httpx.HTTPError,
            httpx.InvalidURL,
            ValueError,
            UnusableSettings,
        ) as error:
            is_ours = isinstance(error, _Unusable | UnusableSettings)
            why = str(error) if is_ours else type(error).__name__
            logger.warning("The keys of %s cannot be fetched: %s", self._url, why)
            self._not_before = time.monotonic() + MIN_FETCH_PAUSE
            return
        self._keys = found
        self._fetched_at = time.monotonic()
        # Allow an immediate fetch for a new key after the first fetch.
        self._not_before = 0.0 if is_first else self._fetched_at + MIN_FETCH_PAUSE

    async def _published(self) -> dict[str, _Key]:
        async with network.client(self._url, timeout=TIMEOUT) as client:
            metadata = await self._metadata(client)
        # The keys may be on another host, which NO_PROXY may name.
        async with network.client(metadata.jwks_uri, timeout=TIMEOUT) as client:
            key_set = _KeySet.model_validate_json(await _get(client, metadata.jwks_uri))
        keys = {}
        for description in key_set.keys:
            possible = ALGORITHMS.get(description.get("kty", ""), [])
            stated = description.get("alg")
            algorithms = [each for each in possible if stated in (None, each)]
            if algorithms and description.get("use", "sig") == "sig" and "kid" in description:
                with suppress(jwt.PyJWTError):  # The curve is unknown.
                    key = jwt.PyJWK(description).key
                    keys[str(description["kid"])] = _Key(key, algorithms)
        return keys

    async def _metadata(self, client: httpx.AsyncClient) -> _Metadata:
        parts, base = urlsplit(self._url), self._url.rstrip("/")
        path = parts.path.rstrip("/")
        try:
            answer = await _get(
                client,
                f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
            )
        except httpx.HTTPStatusError:
            answer = await _get(client, f"{base}/.well-known/openid-configuration")
        metadata = _Metadata.model_validate_json(answer)
        if metadata.issuer != self._url:
            raise _Unusable("its metadata names another issuer")
        if not is_secure_url(metadata.jwks_uri):
            raise _Unusable("it does not publish its keys over https")
        return metadata


class _Unusable(ValueError):
    """The issuer's metadata or keys cannot be used; the message quotes nothing from the issuer."""


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """The content at the URL, without redirects or compression, and up to `MAX_ANSWER_BYTES`.

    Raises `_Unusable`, and `httpx.HTTPStatusError`, also for a redirect.
    """
    async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer:
        answer.raise_for_status()
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise _Unusable("its answer is compressed, although the request did not allow it")
        found = bytearray()
        async for part in answer.aiter_raw():
            found += part
            if len(found) > MAX_ANSWER_BYTES:
                raise _Unusable(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        return bytes(found)
