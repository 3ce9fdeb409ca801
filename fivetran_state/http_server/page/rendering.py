"""Templates to answers, under a policy that allows this server's own files and nothing else."""

import copy
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from fivetran_state import look
from fivetran_state.http_server.page import words
from fivetran_state.http_server.page.links import Links
from fivetran_state.http_server.paths import SCRIPT, STYLE
from fivetran_state.text import visible

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""The Content-Security-Policy of every page."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Vary": "Accept",
    # With no-referrer, browsers send forms with "Origin: null".
    "Referrer-Policy": "same-origin",
}
_MEDIA_TYPES = {STYLE: "text/css", SCRIPT: "text/javascript"}


class Pages:
    """Renders the pages of one server; its public URL has the path `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._assets = {STYLE: look.style(), SCRIPT: _script()}
        self.links = links = Links(prefix)
        self._values: dict[str, Any] = {"me": None, "is_signed_in": False, "form_token": None}
        self._environment = Environment(
            loader=ChoiceLoader([PackageLoader(__package__ or ""), PackageLoader(look.__name__)]),
            autoescape=True,
            undefined=StrictUndefined,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "outside": outside,
            "code": code,
            "moment": moment,
            "message": words.message,
            "hint": words.hint,
        }
        self._environment.globals |= {
            "links": links,
            "style": links.asset(STYLE, _digest(self._assets[STYLE])),
            "script": links.asset(SCRIPT, _digest(self._assets[SCRIPT])),
            "steps": look.STEPS,
            "kinds": look.KINDS,
        }

    def bound(self, **values: Any) -> "Pages":
        """The same pages, whose templates get these values too."""
        bound = copy.copy(self)
        bound._values = {**self._values, **values}
        return bound

    def render(self, template: str, **values: Any) -> str:
        """The template as HTML. Text from outside is escaped."""
        return self._environment.get_template(template).render({**self._values, **values})

    def answer(
        self,
        template: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """The page as an answer."""
        text = self.render(template, **values)
        return HTMLResponse(text, status, headers={**HEADERS, **(headers or {})})

    def asset(self, path: str) -> Response:
        """The stylesheet or the script. Its address changes with its content."""
        return Response(
            self._assets[path],
            media_type=_MEDIA_TYPES[path],
            headers={"Cache-Control": "public, max-age=31536000, immutable"},
        )


def outside(text: str) -> Markup:
    """Text from outside, such as a name: on one line, each character visible and in its order."""
    return code(visible(text))


def code(text: str) -> Markup:
    """Visible text that may have several lines, with its characters in their order."""
    return Markup('<bdo dir="ltr">{}</bdo>').format(text)


def moment(text: str) -> Markup:
    """A time of the service (ISO 8601 in UTC), to the second."""
    shown = f"{text[:10]} {text[11:19]}"
    return Markup('<time datetime="{}">{} UTC</time>').format(text, shown)


def _script() -> bytes:
    return (resources.files(__package__ or "") / "static/script.js").read_bytes()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
