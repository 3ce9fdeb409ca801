"""Pages as a browser gets them, and what is wrong with their HTML."""

import re
from collections import Counter
from html.parser import HTMLParser
from urllib.parse import urldefrag

import httpx

from tests.support.http_server import authorization

ACCEPT = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
VOID = {"meta", "link", "input", "br"}
INLINE = {"a", "bdo", "code", "span", "strong", "time", "ins", "del"}
OURS = {
    *("html", "head", "meta", "title", "link", "script", "body", "header", "nav", "main"),
    *("section", "h1", "h2", "h3", "h4", "p", "a", "ul", "ol", "li", "dl", "dt", "dd", "div"),
    *(
        "form",
        "label",
        "input",
        "select",
        "option",
        "button",
        "textarea",
        "table",
        "caption",
        "thead",
    ),
    *("tbody", "tr", "th", "td", "pre", "code", "bdo", "span", "strong", "ins", "del", "time"),
    *("figure", "figcaption", "svg", "polyline", "br"),
}
"""Every element that the templates have."""


class Page(HTMLParser):
    """The parsed page. `text` is what a reader sees, `title` what the window shows."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__()
        self.status = answer.status_code
        self.size = len(answer.content)
        self.elements: Counter[str] = Counter()
        self.links: list[str] = []
        self.problems: list[str] = []
        self.charts: list[str] = []
        self.text = ""
        self.title = ""
        self._open: list[str] = []
        self._ids: Counter[str] = Counter()
        self._named: set[str] = set()
        self._labelled: set[str] = set()
        self._inputs: list[str] = []
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8", answer.text
        self.feed(answer.text)
        self.close()
        self._check()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements[tag] += 1
        if tag not in VOID:
            self._open.append(tag)
        if tag not in OURS:
            self.problems.append(f"<{tag}> is not ours")
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.problems.append(f"{tag} has {name}")
            if name in ("href", "src", "action", "data-events") and not (value or "").startswith(
                ("/", "#")
            ):
                self.problems.append(f"{tag} leads to {value}")
        if "id" in given:
            self._ids[given["id"] or ""] += 1
        if tag == "label":
            self._labelled.add(given.get("for") or "")
        for name in ("aria-labelledby", "aria-describedby"):
            self._named |= set((given.get(name) or "").split())
        if tag in ("input", "select", "textarea") and given.get("type") != "hidden":
            self._inputs.append(given.get("id") or "")
        if tag == "a":
            self.links.append(urldefrag(given.get("href") or "").url)
        if tag == "svg":
            self.charts.append(given.get("aria-label") or "")
        if tag == "html" and given.get("lang") != "en":
            self.problems.append("no language")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")
        if tag not in INLINE:
            self.text += "\n"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script" and data.strip():
            self.problems.append("a script inside of the page")
        if self._open and self._open[-1] == "title":
            self.title += data
        else:
            self.text += data

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return re.sub(r"\s+", " ", self.text)

    def _check(self) -> None:
        if self._open:
            self.problems.append(f"never closed: {self._open}")
        if self.elements["h1"] != 1 or self.elements["main"] != 1:
            self.problems.append("not one heading and one main part")
        self.problems += [f"two have the id {id_}" for id_, n in self._ids.items() if n > 1]
        self.problems += [
            f"{id_} has no label" for id_ in self._inputs if id_ not in self._labelled
        ]
        self.problems += [f"{id_} names nothing" for id_ in self._named - set(self._ids)]
        if not all(self.charts):
            self.problems.append("a chart without words")


async def page(
    client: httpx.AsyncClient, path: str, *, status: int = 200, token: str | None = None
) -> Page:
    """The page at this address, which must be well made."""
    found = Page(await client.get(path, headers=ACCEPT | authorization(token)))
    assert (found.status, found.problems) == (status, []), path
    return found
