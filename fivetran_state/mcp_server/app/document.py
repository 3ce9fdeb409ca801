"""The App's HTML document, rendered from the templates of the page without any values.

The templates mark where text from outside stands. In place of the text, the document has empty
elements, and the script fills copies of them with tool results.
"""

import base64
import hashlib
from importlib import resources

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fivetran_state import __version__, look
from fivetran_state.text import UNFIT

_CHANGES = [
    {"op": op, "path": "path", "before": "before", "after": "after"}
    for op in ("add", "remove", "replace")
]


def render(writes: bool) -> str:
    """The document. With `writes`, it offers to undo updates."""
    style, script = _style(), _file("app.js")
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(__package__ or ""), PackageLoader(look.__name__)]),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    environment.filters |= {"outside": _slot, "code": _slot, "hint": _slot, "message": str}
    return environment.get_template("app.html").render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        changes=_CHANGES,
        error={"code": _slot("code"), "message": "message", "hint": "hint"},
        words={
            "version": __version__,
            "writes": writes,
            "hidden": _for_script(UNFIT.pattern),
            "steps": look.STEPS,
            "kinds": look.KINDS,
        },
    )


def _style() -> str:
    return look.style().decode() + _file("app.css")


def _file(name: str) -> str:
    return (resources.files(__package__ or "") / name).read_text(encoding="utf-8")


def _slot(name: str) -> Markup:
    """Where the text of this field goes: in its order, from left to right, whatever it is."""
    return Markup('<bdo dir="ltr" data-slot="{}"></bdo>').format(name)


def _policy(style: str, script: str) -> str:
    """This script and this style, and nothing else: no address, and no markup made of text."""
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _for_script(pattern: str) -> str:
    """A character class of Python as one of JavaScript, with the flag `u`."""
    return "".join(each if " " <= each <= "~" else f"\\u{{{ord(each):x}}}" for each in pattern)
