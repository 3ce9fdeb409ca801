"""Whether a caller wants a page or JSON."""


def prefers_html(accept: str) -> bool:
    """True if the header asks for `text/html` rather than for JSON.

    Programs that accept anything (`*/*`), or both alike, get JSON.
    """
    wanted = dict(map(_wanted, accept.lower().split(",")))
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
