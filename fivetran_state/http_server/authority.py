"""Authentication: the principal and the scopes of a token from the file or from an OAuth issuer."""

import time
from typing import Any

import jwt
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from fivetran_state import access
from fivetran_state.access import SCOPES
from fivetran_state.config import Settings, is_loopback
from fivetran_state.errors import (
    CannotServe,
    InsufficientScope,
)
from fivetran_state.http_server.oauth import Issuer
from fivetran_state.http_server.problems import problem
from fivetran_state.tokens import PREFIX, Token, TokenFile

HEALTH = ("/healthz", "/readyz")


def principal_of(scope: Scope) -> str | None:
    """The request's principal for logs: `token:<id>`, `oauth:<subject>`, or None if anonymous."""
    user = scope.get("user")
    if not isinstance(user, AuthenticatedUser):
        return None
    token = user.access_token
    return token.client_id if token.claims is None else f"oauth:{token.subject or token.client_id}"


class FileToken(BaseModel, frozen=True):
    """A token of the file, without its text."""

    id: str
    sha256: str


class IssuerToken(BaseModel, frozen=True):
    """What a valid token of the issuer allows, without its text."""

    issuer: str
    key_id: str
    client_id: str
    subject: str | None
    scopes: list[str]
    expires: float
    """Seconds since 1970."""


class Authority:
    """Authenticates callers. Raises `CannotServe` if it needs tokens and cannot check them."""

    def __init__(self, settings: Settings, host: str) -> None:
        self._tokens = TokenFile(settings)
        self._tokens.tokens()  # Do not start with a file that cannot be read.
        self.issuer: Issuer | None = None
        self._metadata_url: str | None = None
        self.routes: list[Route] = []
        """The metadata that leads OAuth clients to the issuer (RFC 9728)."""
        if settings.oauth_issuer is not None:
            self._trust(settings.oauth_issuer, settings.public_url)
        self.public_paths = {*HEALTH, *(route.path for route in self.routes)}
        self._is_required = self.issuer is not None
        exposure = _exposure(settings, host)
        if not self.is_required() and exposure:
            raise CannotServe(
                f"{exposure}, so others can reach the server, but it has no tokens and "
                "no OAuth issuer. Create a token (fivetran-state token create --scope "
                "write), set FIVETRAN_STATE_OAUTH_ISSUER, or bind 127.0.0.1 only."
            )

    def _trust(self, issuer: str, audience: str | None) -> None:
        if audience is None:
            raise CannotServe(
                "FIVETRAN_STATE_OAUTH_ISSUER needs FIVETRAN_STATE_PUBLIC_URL, the "
                "required audience of tokens."
            )
        self.issuer = Issuer(issuer, audience)
        # This keeps URLs as they are written; the SDK's checks are not needed.
        urls = AuthSettings.model_validate(
            {
                "issuer_url": issuer,
                "resource_server_url": audience,
                "validate_token_resource": False,
            }
        )
        assert urls.resource_server_url is not None
        self._metadata_url = str(build_resource_metadata_url(urls.resource_server_url))
        self.routes = create_protected_resource_routes(
            urls.resource_server_url,
            [urls.issuer_url],
            scopes_supported=list(SCOPES),
            resource_name="Fivetran state",
        )

    def is_required(self) -> bool:
        """True if callers need a token. Once true, it stays true until a restart, even if the token
        file disappears."""
        self._is_required = self._is_required or self._tokens.exists()
        return self._is_required

    def has_tokens(self) -> bool:
        """True if there is a token file."""
        return self._tokens.exists()

    def challenge(self, **parameters: str) -> dict[str, str]:
        """The header that tells a client what is missing, and where to get it."""
        if self._metadata_url is not None:
            parameters["resource_metadata"] = self._metadata_url
        listed = ", ".join(f'{name}="{value}"' for name, value in parameters.items())
        return {"WWW-Authenticate": f"Bearer {listed}".rstrip()}

    def insufficient_scope(self, error: InsufficientScope) -> Response:
        """The answer to a caller without the scope."""
        headers = self.challenge(error=error.code, scope=error.details["required_scope"])
        return problem(403, error.code, error.message, error.hint, headers)

    async def verify_token(self, token: str) -> AccessToken | None:
        """See the SDK's `TokenVerifier`. The result does not contain the token itself."""
        if token.startswith(f"{PREFIX}_"):
            found = self._tokens.find(token)
            return None if found is None else _access_of(found)
        claims = None if self.issuer is None else await self.issuer.claims(token)
        return None if claims is None else _access_token(claims)

    def find_token(self, presented: str) -> FileToken | None:
        """The valid token of the file with this text, or None."""
        found = self._tokens.find(presented)
        return None if found is None else FileToken(id=found.id, sha256=found.sha256)

    async def find_issuers(self, presented: str) -> IssuerToken | None:
        """The valid token of the issuer with this text, or None.

        Raises `AuthenticationUnavailable`.
        """
        claims = None if self.issuer is None else await self.issuer.claims(presented)
        access = None if claims is None else _access_token(claims)
        if claims is None or access is None or float(claims["exp"]) <= time.time():
            return None
        return IssuerToken(
            issuer=claims["iss"],
            key_id=str(jwt.get_unverified_header(presented)["kid"]),
            client_id=access.client_id,
            subject=access.subject,
            scopes=access.scopes,
            expires=float(claims["exp"]),
        )

    async def access(self, token: FileToken | IssuerToken) -> AccessToken | None:
        """What a token allows now; None if it was revoked or replaced, or its key was withdrawn.

        Raises `AuthenticationUnavailable`.
        """
        if isinstance(token, FileToken):
            found = self._tokens.find_by_hash(token.id, token.sha256)
            return None if found is None else _access_of(found)
        if self.issuer is None or token.issuer != self.issuer.url:
            return None
        if not await self.issuer.has_key(token.key_id):
            return None
        return AccessToken(
            token="",
            client_id=token.client_id,
            subject=token.subject,
            claims={"iss": token.issuer},
            scopes=token.scopes,
        )


def _access_of(token: Token) -> AccessToken:
    return AccessToken(
        token="", client_id=f"token:{token.id}", scopes=access.scopes_of([token.scope])
    )


def _exposure(settings: Settings, host: str) -> str | None:
    """The reason why other machines can reach the server; None if they cannot."""
    if not is_loopback(host):
        return f"It would be bound to {host}"
    # A proxy may forward any Host header to this machine.
    if settings.public_url is not None:
        return "FIVETRAN_STATE_PUBLIC_URL is set"
    if settings.trusted_proxies:
        return "FIVETRAN_STATE_TRUSTED_PROXIES is set"
    return None


def _access_token(claims: dict[str, Any]) -> AccessToken | None:
    """The token with these claims; None if they name no principal. Claims may have any type."""
    client = _first_text(claims, "client_id", "azp", "cid")
    subject = _first_text(claims, "sub")
    if client is None and subject is None:
        return None
    return AccessToken(
        token="",
        client_id=client or "",
        subject=subject,
        claims={"iss": claims["iss"]},
        scopes=access.scopes_of(_granted(claims.get("scope", claims.get("scp")))),
    )


def _first_text(claims: dict[str, Any], *names: str) -> str | None:
    found = (claims.get(name) for name in names)
    return next((value for value in found if value and isinstance(value, str)), None)


def _granted(claim: object) -> list[str]:
    """The scopes of a claim: a text or a list of texts. Anything else grants nothing."""
    if isinstance(claim, str):
        return claim.split()
    if isinstance(claim, list) and all(isinstance(each, str) for each in claim):
        return claim
    return []
