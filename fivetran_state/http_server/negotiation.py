"""Whether a caller wants a page or JSON."""

from starlette.datastructures import Headers


def prefers_html(headers: Headers) -> bool:
    """True if `Accept` asks for `text/html` rather than for JSON.

    Programs that accept anything (`*/*`), or both alike, get JSON. So does what a browser asks for in
    a page: an image, a script.
    """
    if headers.get("sec-fetch-dest", "document") != "document":
        return False
    wanted = dict(map(_wanted, headers.get("accept", "").lower().split(",")))
    return wanted.get("text/html", 0.0) > wanted.get("application/json", 0.0)


def _wanted(part: str) -> tuple[str, float]:
    """A media type and its weight."""
    media_type, *parameters = (each.strip() for each in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return media_type, float(parameter[2:])
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0
