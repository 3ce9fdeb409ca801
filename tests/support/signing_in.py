"""Browsers that sign in: what they send, the cookies that they get, and the forms that they are shown."""

from dataclasses import dataclass
from html.parser import HTMLParser

import httpx

BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
BY_USER = BROWSER | {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
OWN = {"Sec-Fetch-Site": "same-origin"}
ON_PAGE = BROWSER | OWN | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://attacker.example"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://attacker.example"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "null"},
    {"Host": "attacker.example", "Origin": "http://attacker.example"},
    {"Host": "attacker.example", "Sec-Fetch-Site": "same-origin"},
]
"""What a browser sends for a page of another site, port or sandbox, and after DNS rebinding."""


@dataclass(frozen=True)
class Cookie:
    """A cookie as the browser keeps it."""

    name: str
    value: str
    attributes: dict[str, str]

    @property
    def header(self) -> dict[str, str]:
        return {"Cookie": f"{self.name}={self.value}"}


def cookie_of(answer: httpx.Response) -> Cookie:
    """The one cookie that the answer sets."""
    (cookie,) = cookies_of(answer)
    return cookie


def cookies_of(answer: httpx.Response) -> list[Cookie]:
    found = []
    for line in answer.headers.get_list("Set-Cookie"):
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        parts = (each.partition("=") for each in attributes)
        found.append(Cookie(name, value, {name: value for name, _, value in parts}))
    return found


class Inputs(HTMLParser):
    """The inputs, labels and tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
