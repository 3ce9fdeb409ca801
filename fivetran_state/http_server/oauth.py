"""Tokens of an OAuth 2.1 issuer: JWTs, verified with the issuer's published keys.

The issuer's own metadata (RFC 8414, or else OpenID Connect's) leads to the keys, which are cached.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
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
_ID_TOKEN_TYPES = ("jwt",)


class _Metadata(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    keys: list[dict[str, Any]]


class _Key(NamedTuple):
    key: Any
    algorithms: list[str]


class Unusable(ValueError):
    """The issuer's answer cannot be used; the message quotes nothing from the issuer."""


FAILURES = (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ValueError, UnusableSettings)
"""What a call of an issuer may raise."""


def reason(failure: Exception) -> str:
    """Why a call of the issuer failed, for the log. It quotes nothing from the issuer."""
    is_ours = isinstance(failure, Unusable | UnusableSettings)
    return str(failure) if is_ours else type(failure).__name__


class Issuer:
    """Verifies tokens that one issuer made for one audience."""

    def __init__(self, url: str, audience: str) -> None:
        self.url = url
        self._published: bytes | None = None
        self._audiences = [audience.rstrip("/"), audience.rstrip("/") + "/"]
        self._keys: dict[str, _Key] = {}
        self._fetched_at: float | None = None
        self._not_before = 0.0
        self._one_at_a_time = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None

    @property
    def host(self) -> str:
        """The issuer's name for people."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    async def claims(self, token: str) -> dict[str, Any] | None:
        """The claims of a valid access token, else None; raises `AuthenticationUnavailable`."""
        return await self._verified(token, _ACCESS_TOKEN_TYPES, self._audiences)

    async def identity(self, id_token: str, client_id: str) -> dict[str, Any] | None:
        """The claims of a valid ID token for this client, else None.

        Raises `AuthenticationUnavailable`.
        """
        claims = await self._verified(id_token, _ID_TOKEN_TYPES, [client_id])
        if claims is None or claims.get("azp", client_id) != client_id:
            return None
        return claims

    async def has_key(self, key_id: str) -> bool:
        """True if the issuer publishes this key; raises `AuthenticationUnavailable`."""
        return await self._key(key_id) is not None

    async def metadata(self) -> bytes:
        """The issuer's metadata as JSON; raises `AuthenticationUnavailable`."""
        if self._published is not None:
            self._refresh_if_old()
        elif self._may_fetch:
            await self._fetch_once()
        if self._published is None:
            raise AuthenticationUnavailable(f"{self.host} does not answer.")
        return self._published

    async def _verified(
        self, token: str, types: Collection[str], audiences: list[str]
    ) -> dict[str, Any] | None:
        try:
            header = jwt.get_unverified_header(token)
            if str(header.get("typ", "jwt")).lower() not in types:
                return None
            key = await self._key(str(header.get("kid")))
            if key is None:
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                audience=audiences,
                issuer=self.url,
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
            self._refresh_if_old()
            return key
        if self._may_fetch:
            await self._fetch_once()
        if self._fetched_at is None:
            raise AuthenticationUnavailable(f"The keys of {self.url} cannot be fetched.")
        return self._keys.get(key_id)

    def _refresh_if_old(self) -> None:
        is_refreshed = self._refresh is None or self._refresh.done()
        if self._is_old and self._may_fetch and is_refreshed:
            # Do not wait: an issuer that does not answer would delay every caller.
            self._refresh = asyncio.create_task(self._fetch_once())

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
                metadata, keys = await self._fetched()
        except FAILURES as error:
            logger.warning("The keys of %s cannot be fetched: %s", self.url, reason(error))
            self._not_before = time.monotonic() + MIN_FETCH_PAUSE
            return
        self._published, self._keys = metadata, keys
        self._fetched_at = time.monotonic()
        # Allow an immediate fetch for a new key after the first fetch.
        self._not_before = 0.0 if is_first else self._fetched_at + MIN_FETCH_PAUSE

    async def _fetched(self) -> tuple[bytes, dict[str, _Key]]:
        """The metadata and the keys."""
        async with network.client(self.url, timeout=TIMEOUT) as client:
            published = await self._metadata(client)
        metadata = _Metadata.model_validate_json(published)
        if metadata.issuer != self.url:
            raise Unusable("its metadata names another issuer")
        if not is_secure_url(metadata.jwks_uri):
            raise Unusable("it does not publish its keys over https")
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
        return published, keys

    async def _metadata(self, client: httpx.AsyncClient) -> bytes:
        parts, base = urlsplit(self.url), self.url.rstrip("/")
        path = parts.path.rstrip("/")
        try:
            return await _get(
                client,
                f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
            )
        except httpx.HTTPStatusError:
            return await _get(client, f"{base}/.well-known/openid-configuration")


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """The content at the URL; raises `Unusable`, and `httpx.HTTPStatusError` for a redirect too."""
    return (await call(client, "GET", url)).raise_for_status().content


async def call(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> httpx.Response:
    """The issuer's answer, without compression, and up to `MAX_ANSWER_BYTES`; raises `Unusable`.

    The client must not follow redirects: the issuer could send it anywhere.
    """
    sent = {**(headers or {}), "Accept-Encoding": "identity"}
    async with client.stream(method, url, headers=sent, content=body) as answer:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            answer.raise_for_status()
            raise Unusable("its answer is compressed, although the request did not allow it")
        found = bytearray()
        async for part in answer.aiter_raw():
            found += part
            if len(found) > MAX_ANSWER_BYTES:
                raise Unusable(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        return httpx.Response(answer.status_code, content=bytes(found), request=answer.request)
