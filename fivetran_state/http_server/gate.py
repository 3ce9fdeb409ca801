"""Authentication and authorization: every request gets a principal with scopes, or is refused.

REST and MCP share it. The principal is the MCP SDK's own. So nobody else can use a session, or a
confirmation that a client keeps between two rounds.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, cast

import anyio
from fastapi import Depends
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend
from mcp.server.auth.provider import AccessToken, TokenVerifier, principal_components
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivetran_state import access, turns
from fivetran_state.access import READ, WITHOUT_TOKEN, Principal
from fivetran_state.errors import (
    AuthenticationUnavailable,
    InsufficientScope,
)
from fivetran_state.events import Events
from fivetran_state.http_server.authority import Authority, principal_of
from fivetran_state.http_server.negotiation import prefers_html
from fivetran_state.http_server.paths import (
    ERRORS,
    METRICS,
    SCRIPT,
    SIGN_IN,
    SIGN_IN_CALLBACK,
    STYLE,
)
from fivetran_state.http_server.problems import problem, problem_of_http
from fivetran_state.http_server.rate_limit import Buckets, network
from fivetran_state.http_server.sessions import SESSION, Sessions
from fivetran_state.http_server.sign_in import (
    Attempts,
    is_attempt,
    to_sign_in,
)
from fivetran_state.http_server.visit import Visit

logger = logging.getLogger(__name__)
MAX_OPEN_REQUESTS = 500
"""Open requests of one principal: waiting calls, and streams."""
PAGE = "/docs"
DOCUMENTATION = (
    PAGE,
    ERRORS,
    "/openapi.json",
    STYLE,
    SCRIPT,
)
"""These pages need no token, but the rate limit applies."""
LINKED = (*DOCUMENTATION, SIGN_IN, SIGN_IN_CALLBACK)
"""Any page may link to these. The issuer sends people to the last one."""
_OAUTH_ENDPOINTS = ("/register", "/authorize", "/token")


_SCRAPER = AccessToken(token="", client_id="metrics", scopes=[READ])
"""What the token for `/metrics` allows, there alone."""


def _looks_for_oauth(path: str) -> bool:
    """True for paths where clients look for an authorization server of ours.

    We have none. Clients stop at 404; after 401 they would try to register.
    """
    return "/.well-known/" in path or path in _OAUTH_ENDPOINTS


def _is_shown_to_all(path: str) -> bool:
    return path in LINKED or _looks_for_oauth(path)


def requires(scope: access.Scope) -> Any:
    """The dependency of a route that needs this scope: `dependencies=[requires("write")]`."""

    async def check(request: Request) -> None:
        demand(scope, request)

    return Depends(check)


def demand(scope: access.Scope, request: Request) -> None:
    """Raises `InsufficientScope` unless the request has this scope."""
    events: Events = request.app.state.events
    with events.refusing():
        access.demand(scope, request.auth.scopes, f"{request.method} {request.url.path}")


@dataclass
class _Caller:
    """A principal's open requests, and the places for requests that are worked on."""

    open: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(turns.AT_ONCE))


class Gate:
    """Lets a request in with its principal and scopes, or answers 401, 403, 429 or 503."""

    def __init__(
        self,
        app: ASGIApp,
        authority: Authority,
        sessions: Sessions,
        per_minute: int,
        bearer_only: Collection[str],
    ) -> None:
        self._app = app
        self._authority = authority
        self._sessions = sessions
        self._bearer_only = bearer_only
        self._attempts = Attempts(sessions)
        self._backend = BearerAuthBackend(cast("TokenVerifier", authority))
        self._buckets = Buckets(per_minute)
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
        elif _looks_for_oauth(scope["path"]):
            await problem_of_http(HTTPException(404))(scope, receive, send)
        elif is_attempt(scope):
            await self._app(scope, receive, send)
        elif _is_shown_to_all(scope["path"]):
            await self._app(scope, _without_body(receive), send)
        else:
            caller = self._callers[key]
            caller.open += 1
            principal = scope["principal"] = Principal(
                principal_of(scope) or "anonymous", tuple(scope["auth"].scopes)
            )
            try:
                with access.working_for(principal):
                    send = self._sessions.renewing(scope, send)
                    await self._while_welcome(scope, receive, send, caller.places)
            finally:
                caller.open -= 1
                if not caller.open:
                    del self._callers[key]

    async def _while_welcome(
        self, scope: Scope, receive: Receive, send: Send, places: asyncio.Semaphore
    ) -> None:
        """Serve the request in its turn, and only while its token is valid.

        After that the app sees a caller who hung up: streams end, and a waiting call is cancelled.
        """
        visit = Visit(receive, send, lambda: self._is_welcome(scope))
        with anyio.CancelScope() as serving:
            watching = asyncio.create_task(visit.watch(serving))
            try:
                async with turns.turn(places) as turn:
                    visit.on_stream = turn.leave
                    await self._app(scope, visit.receive, visit.send)
            finally:
                watching.cancel()
        if not visit.is_welcome and not visit.has_begun:
            # The caller is still there, but the app does not answer because it saw a disconnect.
            await self._unauthenticated(HTTPConnection(scope))(scope, receive, send)

    async def _authenticated(
        self, scope: Scope
    ) -> tuple[AuthCredentials, AuthenticatedUser] | None:
        """Who calls, by the bearer header, or without one by the cookie of a session."""
        request = HTTPConnection(scope)
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and presented:
            if scope["path"] == METRICS and self._authority.may_scrape(presented.strip()):
                return AuthCredentials([READ]), AuthenticatedUser(_SCRAPER)
            found = await self._backend.authenticate(request)
            return cast("tuple[AuthCredentials, AuthenticatedUser] | None", found)
        if scope["path"] in self._bearer_only:
            return None
        signed_in = await self._sessions.find(request)
        if signed_in is None:
            return None
        scope[SESSION], token = signed_in
        return AuthCredentials(token.scopes), AuthenticatedUser(token)

    async def _is_welcome(self, scope: Scope) -> bool:
        try:
            found = await self._authenticated(scope)
        except AuthenticationUnavailable:
            return True  # The token was valid when the request began.
        return found is not None or not self._authority.is_required()

    async def _admitted(self, scope: Scope) -> tuple[object, Response | None]:
        """The caller, and the answer if the request is refused."""
        if is_attempt(scope):
            return None, self._attempts.refusal(scope)
        request, is_required = HTTPConnection(scope), self._authority.is_required()
        try:
            found = await self._authenticated(scope)
        except AuthenticationUnavailable as error:
            if not _is_shown_to_all(scope["path"]):
                logger.error("Tokens cannot be checked: %s", error)
                headers = {"Retry-After": "10"}
                return None, problem(503, error.code, error.message, error.hint, headers)
            found = None  # There, people can sign in another way.
        key: object = network(request.client.host) if request.client else None
        if found is not None:
            scope["auth"], user = found
            scope["user"] = user
            key = principal_components(user.access_token)
        return key, self._refusal(scope, request, key, is_required and found is None)

    def _refusal(
        self, scope: Scope, request: HTTPConnection, key: object, is_unknown: bool
    ) -> Response | None:
        is_shown = _is_shown_to_all(scope["path"])
        # Count the documentation apart: any page can make a browser load it.
        wait = self._buckets.take((key, "documentation") if is_shown else key)
        if wait:
            return problem(
                429,
                "too_many_requests",
                "This principal has used up its requests for this minute.",
                "Wait for the seconds in Retry-After, then send it again.",
                {"Retry-After": str(math.ceil(wait))},
            )
        if is_shown:
            return None
        if is_unknown:
            return self._unauthenticated(request)
        if "auth" not in scope:
            scope["auth"], scope["user"] = AuthCredentials(WITHOUT_TOKEN), UnauthenticatedUser()
        try:
            access.demand(READ, scope["auth"].scopes, "This server")
        except InsufficientScope as error:
            return self._authority.insufficient_scope(error)
        if key in self._callers and self._callers[key].open >= MAX_OPEN_REQUESTS:
            return problem(
                429,
                "too_many_at_once",
                f"This principal has {MAX_OPEN_REQUESTS} open requests already.",
                "Wait until some have ended, or cancel some.",
                {"Retry-After": "1"},
            )
        return None

    def _unauthenticated(self, request: HTTPConnection) -> Response:
        if "authorization" in request.headers:
            return problem(
                401,
                "invalid_token",
                "The token is unknown, expired, revoked or made for another server.",
                "Get a new token.",
                self._authority.challenge(error="invalid_token"),
            )
        if prefers_html(request.headers) and request.scope["path"] not in self._bearer_only:
            return to_sign_in(request.scope)
        return problem(
            401,
            "authentication_required",
            "This server needs a bearer token.",
            "Send it as 'Authorization: Bearer ...'. The operator can create one with "
            "fivetran-state token create.",
            self._authority.challenge(),
        )


def _without_body(receive: Receive) -> Receive:
    """Drop the body: requests that need no token have no body."""
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
