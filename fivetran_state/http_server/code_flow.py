"""The authorization code flow with PKCE: the issuer signs a person in, and gives us an access token.

The requests are Authlib's. They go out within the same limits as those for the issuer's keys.
"""

import logging
import secrets
import time
from collections.abc import Mapping

import anyio
from authlib.oauth2.client import OAuth2Client
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from pydantic import BaseModel

from fivetran_state import network
from fivetran_state.access import SCOPES
from fivetran_state.config import Settings, is_secure_url
from fivetran_state.errors import AuthenticationUnavailable, SignInFailed
from fivetran_state.http_server import oauth
from fivetran_state.http_server.oauth import FAILURES, Issuer, Unusable, reason
from fivetran_state.http_server.paths import SIGN_IN_CALLBACK

logger = logging.getLogger(__name__)

OPENID = "openid"
_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/x-www-form-urlencoded",
}
_ERRORS = {
    "access_denied": "{host} refused to sign you in.",
    "invalid_scope": "{host} does not give you the scopes that this server asks for.",
    "invalid_target": "{host} does not know this server.",
    "invalid_client": "{host} does not know this server, or refuses its secret.",
    "invalid_grant": "{host} did not sign you in.",
    "unauthorized_client": "{host} does not let this server sign people in.",
    "server_error": "{host} had an error.",
    "temporarily_unavailable": "{host} is overloaded.",
}
"""What to tell people of an error (RFC 6749, RFC 8707). Logs name these alone."""


class Flow(BaseModel, frozen=True):
    """One attempt to sign in at the issuer. Only the browser that began it keeps it, sealed."""

    issuer: str
    state: str
    nonce: str
    verifier: str
    next: str
    """The path on this server to go to then."""
    began: float
    """Seconds since 1970."""


class _Metadata(BaseModel):
    authorization_endpoint: str
    token_endpoint: str
    scopes_supported: list[str] | None = None
    code_challenge_methods_supported: list[str] | None = None
    token_endpoint_auth_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False

    @property
    def scopes(self) -> list[str]:
        """What to ask for. Issuers need not list every scope, so ours count as listed if none is."""
        listed = self.scopes_supported or []
        ours = [each for each in SCOPES if each in listed] or SCOPES
        return [*([OPENID] if OPENID in listed else []), *ours]


class _Tokens(BaseModel):
    access_token: str
    token_type: str
    id_token: str | None = None


class _Error(BaseModel):
    error: str


class CodeFlow:
    """Signs people in at one issuer, as the client that the operator registered there."""

    def __init__(self, issuer: Issuer, client_id: str, settings: Settings) -> None:
        assert settings.public_url is not None  # `Settings` demands it with the client's id.
        secret = settings.oauth_client_secret
        self.issuer = issuer
        self._client_id = client_id
        self._client_secret = None if secret is None else secret.get_secret_value()
        self._resource = settings.public_url
        self._redirect_uri = settings.public_url.rstrip("/") + SIGN_IN_CALLBACK

    async def begin(self, next_: str) -> tuple[str, Flow]:
        """The issuer's address for a new attempt; raises `AuthenticationUnavailable`."""
        metadata = await self._metadata()
        flow = Flow(
            issuer=self.issuer.url,
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            next=next_,
            began=time.time(),
        )
        address, _ = self._client(metadata).create_authorization_url(
            metadata.authorization_endpoint,
            state=flow.state,
            code_verifier=flow.verifier,
            nonce=flow.nonce if OPENID in metadata.scopes else None,
            resource=self._resource,
        )
        return str(address), flow

    async def finish(self, flow: Flow, answer: Mapping[str, str]) -> str:
        """The access token for the answer that the browser has brought to the flow it began.

        Raises `SignInFailed` and `AuthenticationUnavailable`.
        """
        metadata = await self._metadata()
        self._check_sender(flow, answer, metadata)
        if "error" in answer:
            raise self._refused(answer["error"])
        if not answer.get("code"):
            raise SignInFailed(f"{self.issuer.host} sent no code.")
        tokens = await self._exchanged(answer["code"], flow, metadata)
        if tokens.token_type.lower() != "bearer":
            raise SignInFailed(f"{self.issuer.host} sent a token that is not a bearer token.")
        if OPENID in metadata.scopes:
            await self._check_identity(tokens.id_token, flow)
        return tokens.access_token

    def _check_sender(self, flow: Flow, answer: Mapping[str, str], metadata: _Metadata) -> None:
        """Another issuer may not answer in place of ours (RFC 9207)."""
        must_name_itself = metadata.authorization_response_iss_parameter_supported
        named = answer.get("iss", None if must_name_itself else self.issuer.url)
        if named != self.issuer.url or flow.issuer != self.issuer.url:
            raise SignInFailed(f"The answer does not come from {self.issuer.host}.")

    async def _check_identity(self, id_token: str | None, flow: Flow) -> None:
        """The ID token ties the code to this flow, even if the issuer ignores PKCE."""
        claims = await self.issuer.identity(id_token or "", self._client_id)
        if claims is None or claims.get("nonce") != flow.nonce:
            raise SignInFailed(f"{self.issuer.host} sent no ID token for this attempt.")

    async def _exchanged(self, code: str, flow: Flow, metadata: _Metadata) -> _Tokens:
        asked = prepare_token_request(
            "authorization_code",
            redirect_uri=self._redirect_uri,
            code=code,
            code_verifier=flow.verifier,
            resource=self._resource,
        )
        client_auth = self._client(metadata).client_auth(self._authentication(metadata))
        url, headers, body = client_auth.prepare(
            "POST", metadata.token_endpoint, dict(_HEADERS), asked
        )
        try:
            with anyio.fail_after(oauth.TIMEOUT):
                async with network.client(url, timeout=oauth.TIMEOUT) as client:
                    answer = await oauth.call(client, "POST", url, headers, body)
            if answer.is_client_error:
                raise self._refused(_Error.model_validate_json(answer.content).error)
            return _Tokens.model_validate_json(answer.raise_for_status().content)
        except FAILURES as failure:
            raise self._unavailable(failure) from None

    async def _metadata(self) -> _Metadata:
        published = await self.issuer.metadata()
        try:
            found = _Metadata.model_validate_json(published)
            for endpoint in (found.authorization_endpoint, found.token_endpoint):
                if not is_secure_url(endpoint):
                    raise Unusable("it does not sign people in over https")
            if "S256" not in (found.code_challenge_methods_supported or ["S256"]):
                raise Unusable("it does not support PKCE with S256")
        except ValueError as failure:
            raise self._unavailable(failure) from None
        return found

    def _client(self, metadata: _Metadata) -> OAuth2Client:
        return OAuth2Client(
            session=None,
            client_id=self._client_id,
            client_secret=self._client_secret,
            scope=metadata.scopes,
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
        )

    def _authentication(self, metadata: _Metadata) -> str:
        if self._client_secret is None:
            return "none"
        supported = metadata.token_endpoint_auth_methods_supported or ["client_secret_basic"]
        is_basic = "client_secret_basic" in supported
        return "client_secret_basic" if is_basic else "client_secret_post"

    def _refused(self, error: str) -> SignInFailed:
        """What the issuer said, in our words: a page elsewhere may have written it."""
        host = self.issuer.host
        logger.warning(
            "%s signed nobody in: %s", host, error if error in _ERRORS else "another error"
        )
        return SignInFailed(_ERRORS.get(error, "{host} did not sign you in.").format(host=host))

    def _unavailable(self, failure: Exception) -> AuthenticationUnavailable:
        host = self.issuer.host
        logger.warning("%s cannot sign people in: %s", host, reason(failure))
        return AuthenticationUnavailable(f"{host} cannot sign you in at the moment.")
