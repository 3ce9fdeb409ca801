"""Who may: every request has a principal and its scopes, or is refused.

REST and MCP share it. The principal is what the MCP SDK takes for one, so that a session, and a
confirmation that a client keeps between two rounds, serve no other.
"""

import asyncio
import ipaddress
import logging
import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
from fastapi import Depends
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend
from mcp.server.auth.provider import AccessToken, TokenVerifier, principal_components
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivetran_state import access, turns
from fivetran_state.access import EVERYTHING, READ
from fivetran_state.config import Settings, is_loopback
from fivetran_state.errors import (
    AuthenticationUnavailable,
    CannotServe,
    InsufficientScope,
)
from fivetran_state.http_server.oauth import Issuer
from fivetran_state.http_server.problems import problem
from fivetran_state.tokens import PREFIX, TokenFile

logger = logging.getLogger(__name__)

MOST_BUCKETS = 10_000
MOST_AT_ONCE = 500
"""Requests of one principal that are open at the same time: calls that wait, and streams."""
BETWEEN_LOOKS = 5.0
"""Seconds after which the token of a request that is still open is looked at again."""
LONGEST_GOODBYE = 1.0
"""Seconds that a request whose token has ended gets to notice that its caller has gone."""

HEALTH = ("/healthz", "/readyz")
PAGE = "/docs"
DOCUMENTATION = (PAGE, f"{PAGE}/swagger-ui-bundle.js", f"{PAGE}/swagger-ui.css", "/openapi.json")
"""What is shown to everybody, though not at any rate."""

_OAUTH_ENDPOINTS = ("/register", "/authorize", "/token")


def _looks_for_oauth(path: str) -> bool:
    """Whether clients ask there what an authorization server of our own would be.

    There is none. They stop asking at 404; after 401 they would try to register.
    """
    return "/.well-known/" in path or path in _OAUTH_ENDPOINTS


def _is_shown_to_all(path: str) -> bool:
    return path in DOCUMENTATION or _looks_for_oauth(path)


def requires(scope: access.Scope) -> Any:
    """What a route depends on that needs this scope: `dependencies=[requires("write")]`."""

    async def check(request: Request) -> None:
        demand(scope, request)

    return Depends(check)


def demand(scope: access.Scope, request: Request) -> None:
    """Raises `InsufficientScope` unless the request has this scope."""
    access.demand(scope, request.auth.scopes, f"{request.method} {request.url.path}")


def principal_of(scope: Scope) -> str | None:
    """A name of who sent this request, for logs: `token:<id>`, `oauth:<subject>`; None: nobody."""
    user = scope.get("user")
    if not isinstance(user, AuthenticatedUser):
        return None
    token = user.access_token
    return token.client_id if token.claims is None else f"oauth:{token.subject or token.client_id}"


class Authority:
    """How this server knows its callers. Raises `CannotServe` if it could not, and should."""

    def __init__(self, settings: Settings, host: str) -> None:
        self._tokens = TokenFile(settings)
        self._tokens.tokens()  # If it cannot be read, the server had better not start.
        self._issuer: Issuer | None = None
        self._metadata_url: str | None = None
        self.routes: list[Route] = []
        """The metadata by which OAuth clients find the issuer (RFC 9728)."""
        if settings.oauth_issuer is not None:
            self._trust(settings.oauth_issuer, settings.public_url)
        self.public_paths = {*HEALTH, *(route.path for route in self.routes)}
        self._is_required = self._issuer is not None
        exposure = _exposure(settings, host)
        if not self.is_required() and exposure:
            raise CannotServe(
                f"{exposure}, so that others can reach the server, and nothing says who may use "
                "it: make a token (fivetran-state token create --scope write), set "
                "FIVETRAN_STATE_OAUTH_ISSUER, or bind 127.0.0.1 only."
            )

    def _trust(self, issuer: str, audience: str | None) -> None:
        if audience is None:
            raise CannotServe(
                "FIVETRAN_STATE_OAUTH_ISSUER needs FIVETRAN_STATE_PUBLIC_URL: the audience that "
                "tokens have to be made for."
            )
        self._issuer = Issuer(issuer, audience)
        # Not for its checks, but because it keeps URLs as they are written.
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
            scopes_supported=list(EVERYTHING),
            resource_name="Fivetran state",
        )

    def is_required(self) -> bool:
        """Whether tokens are asked for, looked up at every request: once they are, it stays so
        until a restart, even if their file vanishes."""
        self._is_required = self._is_required or self._tokens.exists()
        return self._is_required

    def challenge(self, **parameters: str) -> dict[str, str]:
        """The header that tells a client what is missing, and where to get it."""
        if self._metadata_url is not None:
            parameters["resource_metadata"] = self._metadata_url
        listed = ", ".join(f'{name}="{value}"' for name, value in parameters.items())
        return {"WWW-Authenticate": f"Bearer {listed}".rstrip()}

    def insufficient_scope(self, error: InsufficientScope) -> Response:
        """The answer to whom the scope is missing."""
        headers = self.challenge(error=error.code, scope=error.details["required_scope"])
        return problem(403, error.code, error.message, error.hint, headers)

    async def verify_token(self, token: str) -> AccessToken | None:
        """As the SDK's `TokenVerifier`; the token itself is not kept in what it returns."""
        if token.startswith(f"{PREFIX}_"):
            found = self._tokens.find(token)
            if found is None:
                return None
            return AccessToken(
                token="", client_id=f"token:{found.id}", scopes=access.scopes_of([found.scope])
            )
        claims = None if self._issuer is None else await self._issuer.claims(token)
        return None if claims is None else _access_token(claims)


def _exposure(settings: Settings, host: str) -> str | None:
    """What lets others than this machine reach the server, if anything does."""
    if not is_loopback(host):
        return f"It would be bound to {host}"
    # Whoever forwards to this machine may do so under any Host header.
    if settings.public_url is not None:
        return "FIVETRAN_STATE_PUBLIC_URL is set"
    if settings.trusted_proxies:
        return "FIVETRAN_STATE_TRUSTED_PROXIES is set"
    return None


def _access_token(claims: dict[str, Any]) -> AccessToken | None:
    """The token of these claims, whose types are the issuer's; None if it is nobody's."""
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
    """What it lists, as text or as a list of texts; what is anything else grants nothing."""
    if isinstance(claim, str):
        return claim.split()
    if isinstance(claim, list) and all(isinstance(each, str) for each in claim):
        return claim
    return []


@dataclass
class _Caller:
    """A principal with requests that are open, and the places for those that are worked on."""

    open: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(turns.AT_ONCE))


class Gate:
    """Lets a request in with its principal and scopes, or answers 401, 403, 429 or 503."""

    def __init__(self, app: ASGIApp, authority: Authority, per_minute: int) -> None:
        self._app = app
        self._authority = authority
        self._backend = BearerAuthBackend(cast("TokenVerifier", authority))
        self._buckets = _Buckets(per_minute)
        self._callers: defaultdict[object, _Caller] = defaultdict(_Caller)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_public = scope["path"] in self._authority.public_paths
        if is_public:
            await self._app(scope, _without_body(receive), send)
            return
        key, refusal = await self._admitted(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif _is_shown_to_all(scope["path"]):
            await self._app(scope, _without_body(receive), send)
        else:
            caller = self._callers[key]
            caller.open += 1
            try:
                await self._while_welcome(scope, receive, send, caller.places)
            finally:
                caller.open -= 1
                if not caller.open:
                    del self._callers[key]

    async def _while_welcome(
        self, scope: Scope, receive: Receive, send: Send, places: asyncio.Semaphore
    ) -> None:
        """Serve the request in its turn, while its token is valid: then nothing more is answered.

        First it is as if the caller hung up, which ends streams; what waits is broken off.
        """
        visit = _Visit(receive, send, lambda: self._is_welcome(scope))
        with anyio.CancelScope() as serving:
            watching = asyncio.create_task(visit.watch(serving))
            try:
                async with turns.turn(places) as turn:
                    visit.on_stream = turn.leave
                    await self._app(scope, visit.receive, visit.send)
            finally:
                watching.cancel()
        if not visit.is_welcome and not visit.has_begun:
            # The caller is still there, and the app has nothing to say to who seems to have gone.
            await self._unauthenticated(HTTPConnection(scope))(scope, receive, send)

    async def _is_welcome(self, scope: Scope) -> bool:
        try:
            found = await self._backend.authenticate(HTTPConnection(scope))
        except AuthenticationUnavailable:
            return True  # It was when it came.
        return found is not None or not self._authority.is_required()

    async def _admitted(self, scope: Scope) -> tuple[object, Response | None]:
        """Who asks, and the answer if it is refused."""
        request, is_required = HTTPConnection(scope), self._authority.is_required()
        try:
            found = await self._backend.authenticate(request)
        except AuthenticationUnavailable as error:
            logger.error("Tokens cannot be checked: %s", error)
            headers = {"Retry-After": "10"}
            return None, problem(503, error.code, error.message, error.hint, headers)
        key: object = _network(request.client.host) if request.client else None
        if found is not None:
            scope["auth"], user = found
            scope["user"] = user
            key = principal_components(user.access_token)
        return key, self._refusal(scope, request, key, is_required and found is None)

    def _refusal(
        self, scope: Scope, request: HTTPConnection, key: object, is_unknown: bool
    ) -> Response | None:
        is_shown = _is_shown_to_all(scope["path"])
        # Any page may have a browser load the documentation: that is counted apart.
        wait = self._buckets.take((key, "documentation") if is_shown else key)
        if wait:
            return problem(
                429,
                "too_many_requests",
                "This principal has made more requests than it may in a minute.",
                "Wait for as many seconds as Retry-After says.",
                {"Retry-After": str(math.ceil(wait))},
            )
        if is_shown:
            return None
        if is_unknown:
            return self._unauthenticated(request)
        if "auth" not in scope:
            scope["auth"], scope["user"] = AuthCredentials(EVERYTHING), UnauthenticatedUser()
        try:
            access.demand(READ, scope["auth"].scopes, "This server")
        except InsufficientScope as error:
            return self._authority.insufficient_scope(error)
        if key in self._callers and self._callers[key].open >= MOST_AT_ONCE:
            return problem(
                429,
                "too_many_at_once",
                f"This principal has {MOST_AT_ONCE} requests open.",
                "Wait for the end of some, or break them off.",
                {"Retry-After": "1"},
            )
        return None

    def _unauthenticated(self, request: HTTPConnection) -> Response:
        if "authorization" in request.headers:
            return problem(
                401,
                "invalid_token",
                "The token is unknown, expired, revoked or made for another server.",
                "Get a new one.",
                self._authority.challenge(error="invalid_token"),
            )
        return problem(
            401,
            "authentication_required",
            "This server wants a bearer token.",
            "Send it as 'Authorization: Bearer ...'; the operator makes one with "
            "fivetran-state token create.",
            self._authority.challenge(),
        )


class _Visit:
    """One request, from when its token was found valid until that has ended."""

    def __init__(self, receive: Receive, send: Send, look: Callable[[], Awaitable[bool]]) -> None:
        self._receive = receive
        self._send = send
        self._look = look
        self._receiving: set[anyio.CancelScope] = set()
        self._is_stream = False
        self.on_stream: Callable[[], None] = lambda: None
        self.is_welcome = True
        self.has_begun = False

    async def watch(self, serving: anyio.CancelScope) -> None:
        """End the request soon after its token."""
        while True:
            await asyncio.sleep(BETWEEN_LOOKS)
            if not await self._is_still_welcome():
                break
        await asyncio.sleep(LONGEST_GOODBYE)
        serving.cancel()

    async def receive(self) -> Message:
        if self.is_welcome:
            with anyio.CancelScope() as receiving:
                self._receiving.add(receiving)
                try:
                    return await self._receive()
                finally:
                    self._receiving.discard(receiving)
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not await self._is_still_welcome():
                return
            self.has_begun = True
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            self._is_stream = content_type.startswith("text/event-stream")
            if self._is_stream:
                self.on_stream()
        elif not self.has_begun:
            return
        elif self._is_stream and not await self._is_still_welcome():
            message = {**message, "body": b""}
        await self._send(message)

    async def _is_still_welcome(self) -> bool:
        self.is_welcome = self.is_welcome and await self._look()
        if not self.is_welcome:
            for receiving in self._receiving:
                receiving.cancel()
        return self.is_welcome


def _network(address: str) -> str:
    """Whom an address stands for: of IPv6, whoever has one has its whole /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((parsed, 64), strict=False))


def _without_body(receive: Receive) -> Receive:
    """What needs no token wants no body: none is waited for, and what comes is dropped."""
    has_been_asked = False

    async def receive_nothing() -> Message:
        nonlocal has_been_asked
        if not has_been_asked:
            has_been_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    return receive_nothing


class _Buckets:
    """A bucket of a minute's requests for each key, which fills up again all the time."""

    def __init__(self, per_minute: int) -> None:
        self._capacity = float(per_minute)
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def take(self, key: object) -> float:
        """Zero, or the seconds after which there is room for this request."""
        if not self._capacity:
            return 0.0
        a_second = self._capacity / 60
        now = time.monotonic()
        left, at = self._left.pop(key, (self._capacity, now))
        left = min(self._capacity, left + (now - at) * a_second)
        wait = max(0.0, (1 - left) / a_second)
        self._left[key] = (left if wait else left - 1, now)
        if len(self._left) > MOST_BUCKETS:
            self._left.popitem(last=False)
        return wait
