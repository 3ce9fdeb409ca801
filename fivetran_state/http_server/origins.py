"""Where a page comes from, as a browser says it: Host, Origin and Sec-Fetch-Site."""

from urllib.parse import urlsplit

ELSEWHERE = ("cross-site", "same-site")
"""Values of Sec-Fetch-Site for pages of other origins. Another port of this host is same-site."""
PORTS = {"http": 80, "https": 443}


def is_same(origin: str, host: str) -> bool:
    """True if the page comes from the server that receives the request."""
    scheme, _, netloc = origin.partition("://")
    page, server = parsed(netloc), parsed(host)
    if scheme not in PORTS or page is None or server is None:
        return False
    return (page[0], page[1] or PORTS[scheme]) == (server[0], server[1] or PORTS[scheme])


def parsed(netloc: str) -> tuple[str, int | None] | None:
    """Host and port; None if the text contains more than these."""
    try:
        parts = urlsplit(f"//{netloc}")
        port = parts.port
    except ValueError:
        return None
    if parts.netloc != netloc or "@" in netloc or not parts.hostname:
        return None
    return parts.hostname, port
