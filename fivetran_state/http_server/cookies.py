"""Cookies that only this server and its own pages use."""

from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from fivetran_state.config import Settings
from fivetran_state.http_server.origins import parsed


class Cookie:
    """One cookie of this server, which no script can read.

    `Strict`: browsers send it only with requests from this server's own pages. `Lax`: also when
    the user comes from a page elsewhere.
    """

    def __init__(self, name: str, same_site: Literal["Strict", "Lax"], settings: Settings) -> None:
        self._base = name
        self._same_site = same_site
        self._is_secure = urlsplit(settings.public_url or "").scheme == "https"

    def of(self, request: HTTPConnection) -> str | None:
        """The value that the browser has sent."""
        return request.cookies.get(self._name(request))

    def keep(self, request: HTTPConnection, value: str, seconds: int) -> str:
        """The value of Set-Cookie with which the browser keeps it."""
        return f"{self._name(request)}={value}; Max-Age={seconds}; {self._attributes}"

    def remove(self, request: HTTPConnection) -> str:
        """The value of Set-Cookie with which the browser forgets it."""
        return self.keep(request, "", 0)

    def _name(self, request: HTTPConnection) -> str:
        if self._is_secure:
            return f"__Host-{self._base}"
        # Browsers send a host's cookies to all its ports: each server needs its own name.
        host = parsed(request.headers.get("host", ""))
        return self._base if host is None or host[1] is None else f"{self._base}-{host[1]}"

    @property
    def _attributes(self) -> str:
        secure = "; Secure" if self._is_secure else ""
        return f"Path=/; HttpOnly; SameSite={self._same_site}{secure}"
