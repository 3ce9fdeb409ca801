"""Forms of the page: only a page that this server showed to this caller may send one."""

import time
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from fivetran_state.access import principal
from fivetran_state.errors import ForeignForm, InvalidRequest, UnusableKey
from fivetran_state.http_server.sessions import SESSION, Session, Sessions

FIELD = "form_token"
"""The name of the hidden field that each form of the page has."""
MEDIA_TYPE = "application/x-www-form-urlencoded"
VALID_SECONDS = 24 * 3600
"""Seconds that a page's forms can be sent."""
MAX_FIELDS = 100
_PURPOSE = "form"


async def token(request: Request) -> str:
    """The value of the hidden field `FIELD` for the forms on this answer's page.

    It is valid for a day, for this session only. A renewed cookie keeps the session.
    """
    texts = await _sessions(request).texts(_PURPOSE)
    return texts.seal({"of": _owner(request), "at": time.time()})


async def read(request: Request) -> dict[str, str]:
    """The fields of a form of the page, without the hidden one; of a repeated field, the last.

    Raises `ForeignForm` unless this server showed the form to this caller, within the last day.
    """
    fields = await read_unbound(request)
    texts = await _sessions(request).texts(_PURPOSE)
    try:
        shown = texts.unseal(fields.pop(FIELD, ""))
    except UnusableKey:
        raise ForeignForm("The form does not come from a page of this server.") from None
    assert isinstance(shown, dict)
    if shown["of"] != _owner(request):
        raise ForeignForm("The form is of another session.")
    if time.time() - shown["at"] > VALID_SECONDS:
        raise ForeignForm("The form is too old.")
    return fields


async def read_unbound(request: Request) -> dict[str, str]:
    """Like `read`, for a form that is shown before there is a session."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise HTTPException(415, f"The Content-Type of the request must be {MEDIA_TYPE}.")
    if not _sessions(request).is_from_own_page(request):
        raise ForeignForm("The form does not come from a page of this server.")
    try:
        body = (await request.body()).decode()
        return dict(
            parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
        )
    except ValueError as error:  # The error's own text may quote a field.
        raise InvalidRequest("The form cannot be read.") from error


def _owner(request: Request) -> str:
    session: Session | None = request.scope.get(SESSION)
    return f"principal {principal().name}" if session is None else f"session {session.id}"


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions
