"""The page to sign in: one field, no script, nothing from elsewhere."""

from collections.abc import Mapping
from html import escape

from starlette.responses import HTMLResponse, Response

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    # With no-referrer, browsers send forms with "Origin: null".
    "Referrer-Policy": "same-origin",
}
FIELD = "token"
NEXT = "next"


def page(
    action: str,
    next_: str,
    *,
    to_next: str | None = None,
    problem: str | None = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The page whose form goes to `action`.

    `to_next` is the address of a link for people who are signed in already.
    """
    told = f'<p role="alert" id="problem">{escape(problem)}</p>' if problem else ""
    about = ' aria-describedby="problem" aria-invalid="true"' if problem else ""
    link = "" if to_next is None else _link(to_next, "Go on if you are signed in already")
    field = f'type="password" id="token" name="{FIELD}" autocomplete="current-password"'
    content = f"""{told}
<form method="post" action="{escape(action)}">
<input type="hidden" name="{NEXT}" value="{escape(next_)}">
<p><label for="token">Token</label></p>
<p><input {field} required{about}></p>
<p>The operator can create one with <code>fivetran-state token create</code>.</p>
<p><button type="submit">Sign in</button></p>
</form>
{link}"""
    return _document("Sign in", content, status, headers)


def way_on(to_next: str) -> Response:
    """The page for someone who follows a link on another site to a server without tokens."""
    return _document("Fivetran state", _link(to_next, "Go on to the page"))


def _link(address: str, text: str) -> str:
    return f'<p><a href="{escape(address)}">{text}</a></p>'


def _document(
    title: str, content: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
</head>
<body>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""
    return HTMLResponse(html, status, headers={**HEADERS, **(headers or {})})
