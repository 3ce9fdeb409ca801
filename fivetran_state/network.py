"""HTTP clients with the environment's proxies and trusted certificates."""

import os
import ssl
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from fivetran_state.errors import UnusableSettings


def client(url: str, **options: Any) -> httpx.AsyncClient:
    """A client for URLs below `url`; raises `UnusableSettings`, which names the variable.

    httpx's own look at the environment is not used: one bad entry in NO_PROXY makes it fail.
    """
    proxy = _proxy_for(httpx.URL(url))
    try:
        return httpx.AsyncClient(proxy=proxy, verify=_tls(), trust_env=False, **options)
    except (ValueError, httpx.InvalidURL):  # The error's text may show the proxy's password.
        raise UnusableSettings(
            f"{_name_of_proxy(url)} must be an http, https, socks5 or socks5h URL."
        ) from None


def check(url: str) -> None:
    """Raise `UnusableSettings` if there can be no client for this URL."""
    client(url)


def _proxy_for(url: httpx.URL) -> str | None:
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or any(proxy_bypass(name) for name in (url.host, f"{url.host}:{url.port}")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _name_of_proxy(url: str) -> str:
    scheme = httpx.URL(url).scheme
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    return next((name for name in names if os.environ.get(name)), "The system's proxy")


@cache
def _tls() -> ssl.SSLContext:
    """One for all clients: it takes longer to make than a call, and each guest has a client."""
    variable = next((name for name in _CERTIFICATES if os.environ.get(name)), None)
    if variable == "SSL_CERT_DIR" and not Path(os.environ[variable]).is_dir():
        # OpenSSL would trust nobody without saying why.
        raise UnusableSettings(
            f"SSL_CERT_DIR names {os.environ[variable]}, which is not a directory."
        )
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        if variable is None:
            raise
        raise UnusableSettings(
            f"{variable} names {os.environ[variable]}, which cannot be used: "
            f"{error.strerror or type(error).__name__}."
        ) from None


_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
"""In the order in which they count."""
