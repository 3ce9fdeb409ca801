"""Sessions of people who signed in on the page: a sealed cookie in place of the bearer header.

The cookie has the id and hash of a token of the file, or what a token of the issuer allows, never
the token. It ends with the token. No process stores it, so any process with the same key and tokens
accepts it.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

from mcp.server.auth.provider import AccessToken
from pydantic import BaseModel, ValidationError
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import Message, Scope, Send

from fivetran_state import vault
from fivetran_state.config import Settings
from fivetran_state.errors import AuthenticationUnavailable, UnusableKey
from fivetran_state.http_server.authority import Authority, FileToken, IssuerToken
from fivetran_state.http_server.cookies import Cookie
from fivetran_state.http_server.origins import is_same

VALID_SECONDS = 8 * 3600
"""Seconds that a cookie is valid, if it is not renewed."""
LONGEST_SECONDS = 24 * 3600
"""Seconds from signing in until renewing ends."""
RENEWED_AFTER = 3600
"""A request with a cookie that is older than this, in seconds, gets a new one."""
MAX_ENDED = 10_000
COOKIE = "fivetran-state"
SESSION: Final = "session"
"""The key of the request's session in its ASGI scope; missing if it has none."""


class Session(BaseModel, frozen=True):
    """What the cookie holds. The id and `began` stay when the cookie is renewed."""

    id: str
    token: FileToken | IssuerToken
    began: float
    issued: float
    """Seconds since 1970, as is `began`."""

    @property
    def left(self) -> int:
        """Seconds until the cookie ends; zero or less if it has ended."""
        ends = min(self.issued + VALID_SECONDS, self.began + LONGEST_SECONDS)
        if isinstance(self.token, IssuerToken):
            ends = min(ends, self.token.expires)
        return int(ends - time.time())


class Sessions:
    """Makes cookies, reads them, and says which requests may be authenticated by one."""

    def __init__(self, settings: Settings, authority: Authority) -> None:
        self._settings = settings
        self._authority = authority
        self._kept = Cookie(COOKIE, "Strict", settings)
        public = urlsplit(settings.public_url or "")
        self._is_secure = public.scheme == "https"
        self._public_host = public.netloc
        self._texts: dict[str, vault.Texts] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()

    async def find(self, request: HTTPConnection) -> tuple[Session, AccessToken] | None:
        """The valid session of the request's cookie, and what its token allows now.

        None if a page elsewhere may have sent the request. Raises `AuthenticationUnavailable`.
        """
        text = self._kept.of(request)
        if text is None or not self.is_from_own_page(request):
            return None
        session = self._opened(text)
        if session is None or session.left <= 0 or session.id in self._ended:
            return None
        access = await self._authority.access(session.token)
        return None if access is None else (session, access)

    def is_from_own_page(self, request: HTTPConnection) -> bool:
        """True if no page elsewhere sent the request.

        A request that may change something needs a proof of that: browsers send one.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site == "same-origin":
            return True  # Browsers let no page set this header, and `HostCheck` knows Host.
        if site not in (None, "none"):
            return False
        if origin is None:
            return request.scope["method"] in ("GET", "HEAD")
        if self._is_secure and not origin.startswith("https://"):
            return False
        hosts = (request.headers.get("host", ""), self._public_host)
        return any(is_same(origin, host) for host in hosts)

    async def begin(self, token: FileToken | IssuerToken, request: HTTPConnection) -> str:
        """The value of Set-Cookie for a new session of this token.

        Raises `AuthenticationUnavailable` if there is no usable key.
        """
        texts, now = await self.texts(COOKIE), time.time()
        session = Session(id=secrets.token_urlsafe(16), token=token, began=now, issued=now)
        return self._cookie(texts, session, request)

    async def end(self, session: Session) -> None:
        """End the session in this process: copies of its cookie are worth nothing here."""
        self._ended[session.id] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)

    def no_cookie(self, request: HTTPConnection) -> str:
        """The value of Set-Cookie that removes the session from the browser."""
        return self._kept.remove(request)

    def renewing(self, scope: Scope, send: Send) -> Send:
        """`send`, with a new cookie for a session whose cookie is no longer new."""
        session: Session | None = scope.get(SESSION)
        now = time.time()
        if session is None or now - session.issued < RENEWED_AFTER:
            return send
        texts = self._known_texts(COOKIE)
        assert texts is not None  # They opened the cookie.
        renewed = session.model_copy(update={"issued": now})
        cookie = self._cookie(texts, renewed, HTTPConnection(scope))

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "set-cookie" not in headers:  # The answer may end the session.
                    headers.append("Set-Cookie", cookie)
            await send(message)

        return send_with_cookie

    async def texts(self, purpose: str) -> vault.Texts:
        """Seals what this server's pages give to a browser. Raises `AuthenticationUnavailable`."""
        if not self._keys():
            try:
                await asyncio.to_thread(vault.made_keys, self._settings)
            except (UnusableKey, OSError) as error:
                raise _unusable(error) from error
        texts = self._known_texts(purpose)
        assert texts is not None
        return texts

    def _known_texts(self, purpose: str) -> vault.Texts | None:
        """None until there is a key; nothing has been sealed before that."""
        if purpose not in self._texts:
            keys = self._keys()
            if not keys:
                return None
            # Servers that share a key, but have another address, do not share cookies.
            application = f"{purpose} of the page {self._settings.public_url or ''}"
            self._texts[purpose] = vault.Texts(keys, application)
        return self._texts[purpose]

    def _keys(self) -> list[bytes]:
        try:
            return vault.keys(self._settings)
        except (UnusableKey, OSError) as error:
            raise _unusable(error) from error

    def _opened(self, text: str) -> Session | None:
        texts = self._known_texts(COOKIE)
        try:
            return None if texts is None else Session.model_validate(texts.unseal(text))
        except (UnusableKey, ValidationError):
            return None

    def _cookie(self, texts: vault.Texts, session: Session, request: HTTPConnection) -> str:
        return self._kept.keep(request, texts.seal(session.model_dump()), session.left)


def _unusable(error: Exception) -> AuthenticationUnavailable:
    return AuthenticationUnavailable(f"The server has no usable key ({type(error).__name__}).")
