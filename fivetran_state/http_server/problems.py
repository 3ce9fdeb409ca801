"""Answers that say what is wrong, as RFC 9457 has them (`application/problem+json`)."""

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse, Response


class _Problem(JSONResponse):
    media_type = "application/problem+json"


def problem(
    status: int,
    code: str,
    detail: str,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer; `code` is for programs, `detail` says what happened, `hint` what to do next."""
    content = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **({"hint": hint} if hint else {}),
    }
    return _Problem(content, status, headers=headers)
