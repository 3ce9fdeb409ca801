"""`/sign-in` and `/sign-out`: a token typed once becomes the cookie of a session."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.background import BackgroundTask
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from fivetran_state.errors import FivetranStateError
from fivetran_state.http_server import forms
from fivetran_state.http_server.authority import Authority, FileToken, IssuerToken
from fivetran_state.http_server.origins import ELSEWHERE
from fivetran_state.http_server.paths import SIGN_IN, SIGN_IN_AT_ISSUER
from fivetran_state.http_server.problems import STATUS, problem
from fivetran_state.http_server.rate_limit import Buckets, network
from fivetran_state.http_server.sessions import SESSION, Session, Sessions

if TYPE_CHECKING:
    from fivetran_state.http_server.page.rendering import Pages

SIGN_OUT = "/sign-out"
ATTEMPTS_A_MINUTE = 10
"""Attempts to sign in from one address."""
MAX_BODY_BYTES = 8192
"""Of the form to sign in, which anybody may send."""
MAX_NEXT_LENGTH = 2000
FIELD, NEXT = "token", "next"
"""The names of the form's fields."""
# Browsers ignore control characters in addresses, and take a backslash for a slash. A header has no
# character outside of ASCII.
_LOCAL_PATH = re.compile(r"/(?!/)[\x21-\x5b\x5d-\x7e]*")


def local_path(next_: str) -> str:
    """The path on this server; `/` for anything that could lead elsewhere."""
    is_local = len(next_) <= MAX_NEXT_LENGTH and _LOCAL_PATH.fullmatch(next_)
    return next_ if is_local else "/"


def is_attempt(scope: Scope) -> bool:
    """True for a request that signs in with a token, or at the issuer."""
    return scope["path"] in (SIGN_IN, SIGN_IN_AT_ISSUER) and scope["method"] == "POST"


def to_sign_in(scope: Scope) -> Response:
    """The answer to a browser that has to sign in first; to a form, that nothing was done."""
    prefix = scope["app"].state.prefix
    if scope["method"] not in ("GET", "HEAD"):
        return page(
            scope,
            "/",
            problem="You are not signed in, so nothing was changed. Sign in, and try again.",
            status=401,
            headers={"WWW-Authenticate": "Bearer"},
        )
    query = scope["query_string"].decode("latin-1")
    asked = local_path(quote(scope["path"]) + (f"?{query}" if query else ""))
    return _redirect(f"{prefix}{SIGN_IN}?{urlencode({NEXT: asked})}")


class Attempts:
    """Limits attempts to sign in, before anything of them is read."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._buckets = Buckets(ATTEMPTS_A_MINUTE)

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to an attempt that is not looked at."""
        request = HTTPConnection(scope)
        if not self._sessions.is_from_own_page(request):
            # A page elsewhere could sign its visitor in with its own token.
            return problem(
                403,
                "foreign_origin",
                "Only this server's own page may sign in.",
                "A program sends its token as 'Authorization: Bearer ...'.",
            )
        length = request.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return problem(
                413, "body_too_large", f"The form must have at most {MAX_BODY_BYTES} bytes."
            )
        wait = self._buckets.take(network(request.client.host) if request.client else None)
        if not wait:
            return None
        seconds = math.ceil(wait)
        return page(
            scope,
            "/",
            problem=f"There were too many attempts. Try again in {seconds} s.",
            status=429,
            headers={"Retry-After": str(seconds)},
        )


class SignIn:
    """The routes for people who sign in and out."""

    def __init__(self, sessions: Sessions, authority: Authority, prefix: str) -> None:
        self._sessions = sessions
        self._authority = authority
        self._prefix = prefix

    def routes(self) -> list[Route]:
        return [
            Route(SIGN_IN, self._show),
            Route(SIGN_IN, self._sign_in, methods=["POST"]),
            Route(SIGN_OUT, self._sign_out, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        next_ = local_path(request.query_params.get(NEXT, "/"))
        address = self._prefix + next_
        # Browsers keep the cookie back while the user follows a link from elsewhere.
        is_linked = request.headers.get("sec-fetch-site") in ELSEWHERE
        if self._authority.is_required():
            return page(request.scope, next_, to_next=address if is_linked else None)
        if not is_linked:
            return _redirect(address)
        # Someone follows a link on another site to a server without tokens.
        return pages_of(request.scope).answer("way_on.html", to_next=address)

    async def _sign_in(self, request: Request) -> Response:
        next_ = "/"
        try:
            fields = await forms.read_unbound(request)
            next_ = local_path(fields.get(NEXT, "/"))
            token = self._authority.find_token(fields.get(FIELD, "").strip())
            if token is None:
                return page(
                    request.scope,
                    next_,
                    problem="The token is unknown, expired or revoked.",
                    is_token_wrong=True,
                    status=401,
                    headers=self._authority.challenge(),
                )
            cookie = await self._sessions.begin(token, request)
            await note_user(request, self._authority, token)
        except FivetranStateError as error:
            return failure_page(request.scope, next_, error)
        return _redirect(self._prefix + next_, cookie)

    async def _sign_out(self, request: Request) -> Response:
        await forms.read(request)
        answer = _redirect(self._prefix + SIGN_IN, self._sessions.no_cookie(request))
        session: Session | None = request.scope.get(SESSION)
        if session is not None:
            # The gate answers no request whose session has ended, so the answer goes first.
            answer.background = BackgroundTask(self._sessions.end, session)
        return answer


async def note_user(request: Request, authority: Authority, token: FileToken | IssuerToken) -> None:
    """Name the person who has just signed in, in the request's log line."""
    access = await authority.access(token)
    if access is not None:
        request.scope["user"] = AuthenticatedUser(access)


def failure_page(
    scope: Scope,
    next_: str,
    error: FivetranStateError,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The page to sign in, after an attempt that has failed."""
    told = f"{error.message} {error.hint}"
    return page(scope, next_, problem=told, status=STATUS[error.code], headers=headers)


def page(
    scope: Scope,
    next_: str,
    *,
    to_next: str | None = None,
    problem: str | None = None,
    is_token_wrong: bool = False,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The page to sign in; `to_next` is the address of a link for people who are signed in already."""
    state = scope["app"].state
    issuer: str | None = state.issuer_host
    authority: Authority = state.authority
    return pages_of(scope).answer(
        "sign_in.html",
        status,
        headers,
        next=next_,
        to_next=to_next,
        problem=problem,
        is_token_wrong=is_token_wrong,
        issuer=issuer,
        takes_tokens=issuer is None or authority.has_tokens(),
    )


def pages_of(scope: Scope) -> "Pages":
    """The pages of the application that answers."""
    pages: Pages = scope["app"].state.pages
    return pages


def _redirect(path: str, cookie: str | None = None) -> Response:
    headers = {"Location": path} if cookie is None else {"Location": path, "Set-Cookie": cookie}
    return Response(status_code=303, headers=headers)
