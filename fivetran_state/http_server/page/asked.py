"""What a page's handlers need of its request."""

from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from fivetran_state.access import principal
from fivetran_state.errors import FivetranStateError
from fivetran_state.http_server import forms
from fivetran_state.http_server.negotiation import prefers_html
from fivetran_state.http_server.page.rendering import Pages
from fivetran_state.http_server.sessions import SESSION


async def _pages(request: Request) -> Pages:
    """The pages as this caller sees them."""
    pages: Pages = request.app.state.pages
    form_token = None
    if prefers_html(request.headers):
        with suppress(FivetranStateError):  # Without a key there are no forms, and little else.
            form_token = await forms.token(request)
    return pages.bound(
        me=principal(),
        is_signed_in=SESSION in request.scope,
        form_token=form_token,
    )


PagesOf = Annotated[Pages, Depends(_pages)]


def for_browsers(request: Request) -> None:
    """Refuse programs, which want JSON."""
    if not prefers_html(request.headers):
        raise HTTPException(
            406,
            "This is a page for browsers (Accept: text/html). Programs use the routes in /docs.",
        )
