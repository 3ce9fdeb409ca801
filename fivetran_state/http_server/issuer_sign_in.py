"""`/sign-in/issuer` and `/sign-in/callback`: people sign in at the OAuth issuer.

The browser leaves by a page, not by a redirect: the policy of our pages lets no form lead elsewhere.
It also comes back to a page, from which it goes on by itself: browsers send the session's cookie
only where our own page leads them.
"""

import hmac
import time
from collections import OrderedDict

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fivetran_state.access import READ
from fivetran_state.config import Settings
from fivetran_state.errors import FivetranStateError, SignInFailed, UnusableKey
from fivetran_state.http_server import forms
from fivetran_state.http_server.authority import Authority, IssuerToken
from fivetran_state.http_server.code_flow import CodeFlow, Flow
from fivetran_state.http_server.cookies import Cookie
from fivetran_state.http_server.paths import SIGN_IN_AT_ISSUER, SIGN_IN_CALLBACK
from fivetran_state.http_server.sessions import COOKIE, Sessions
from fivetran_state.http_server.sign_in import NEXT, failure_page, local_path, note_user, pages_of

VALID_SECONDS = 600
"""Seconds that a person may take at the issuer."""
MAX_USED = 10_000
_PURPOSE = "sign-in at the issuer"


class IssuerSignIn:
    """The routes for people who sign in at the issuer."""

    def __init__(
        self,
        flow: CodeFlow,
        sessions: Sessions,
        authority: Authority,
        prefix: str,
        settings: Settings,
    ) -> None:
        self._flow = flow
        self._sessions = sessions
        self._authority = authority
        self._prefix = prefix
        # Browsers must send it when the issuer sends the user back.
        self._cookie = Cookie(f"{COOKIE}-sign-in", "Lax", settings)
        self._used: OrderedDict[str, None] = OrderedDict()

    def routes(self) -> list[Route]:
        return [
            Route(SIGN_IN_AT_ISSUER, self._begin, methods=["POST"]),
            Route(SIGN_IN_CALLBACK, self._finish),
        ]

    async def _begin(self, request: Request) -> Response:
        next_ = "/"
        try:
            fields = await forms.read_unbound(request)
            next_ = local_path(fields.get(NEXT, "/"))
            address, flow = await self._flow.begin(next_)
            texts = await self._sessions.texts(_PURPOSE)
        except FivetranStateError as error:
            return failure_page(request.scope, next_, error)
        kept = self._cookie.keep(request, texts.seal(flow.model_dump()), VALID_SECONDS)
        return _going_on(request, "Sign in", address, self._flow.issuer.host, kept)

    async def _finish(self, request: Request) -> Response:
        try:
            flow = await self._flow_of(request)
        except FivetranStateError as error:
            return failure_page(request.scope, "/", error)
        forgotten = self._cookie.remove(request)
        try:
            token = await self._token(flow, request)
            session = await self._sessions.begin(token, request)
            await note_user(request, self._authority, token)
        except FivetranStateError as error:
            headers = {"Set-Cookie": forgotten}
            return failure_page(request.scope, flow.next, error, headers)
        address = self._prefix + flow.next
        return _going_on(request, "Signed in", address, "the page", forgotten, session)

    async def _flow_of(self, request: Request) -> Flow:
        """The flow that this browser began and the answer is for; each counts once."""
        texts = await self._sessions.texts(_PURPOSE)
        try:
            flow = Flow.model_validate(texts.unseal(self._cookie.of(request) or ""))
        except (UnusableKey, ValidationError):
            raise SignInFailed("This browser did not begin to sign in, or took too long.") from None
        state = request.query_params.get("state", "")
        if not hmac.compare_digest(state.encode(), flow.state.encode()):
            raise SignInFailed("The answer is for another attempt to sign in.")
        if time.time() - flow.began > VALID_SECONDS or flow.state in self._used:
            raise SignInFailed("This attempt to sign in has ended.")
        self._used[flow.state] = None
        if len(self._used) > MAX_USED:
            self._used.popitem(last=False)
        return flow

    async def _token(self, flow: Flow, request: Request) -> IssuerToken:
        host = self._flow.issuer.host
        answer = dict(request.query_params)
        if len(answer) != len(request.query_params.multi_items()):
            raise SignInFailed(f"The answer of {host} names something twice.")
        token = await self._authority.find_issuers(await self._flow.finish(flow, answer))
        if token is None:
            raise SignInFailed(f"{host} issued a token that is not valid for this server.")
        if READ not in token.scopes:
            raise SignInFailed(f"{host} does not allow you to use this server.")
        return token


def _going_on(request: Request, title: str, address: str, where: str, *cookies: str) -> Response:
    """A page from which the browser goes on by itself, and tells no page where it was."""
    answer = pages_of(request.scope).answer(
        "going_on.html",
        headers={"Referrer-Policy": "no-referrer"},
        title=title,
        address=address,
        where=where,
    )
    for cookie in cookies:
        answer.headers.append("Set-Cookie", cookie)
    return answer
