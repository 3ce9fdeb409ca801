"""Answers that say what is wrong, as RFC 9457 has them (`application/problem+json`)."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from fivetran_state import state
from fivetran_state.errors import FivetranStateError

MEDIA_TYPE = "application/problem+json"

STATUS = {
    "invalid_request": 422,
    "invalid_change": 422,
    "state_not_kept": 422,
    "idempotency_key_reused": 422,
    "missing_credentials": 422,
    "not_allowed": 403,
    "unauthorized": 403,
    "forbidden": 403,
    "insufficient_scope": 403,
    "workflow_not_found": 404,
    "connection_not_found": 404,
    "no_state_yet": 404,
    "update_in_progress": 409,
    "conflict": 409,
    "not_confirmed": 409,
    "cancelled": 409,
    "undone": 409,
    "too_late_to_cancel": 409,
    "sync_running": 409,
    "sync_still_running": 409,
    "rate_limited": 429,
    "internal_error": 500,
    "fivetran_error": 502,
    "fivetran_unavailable": 502,
    "invalid_state_document": 502,
    "verification_failed": 502,
    "rollback_failed": 502,
    "left_paused": 502,
    "cannot_serve": 503,
    "authentication_unavailable": 503,
    "engine_not_ready": 503,
    "database_unavailable": 503,
    "unusable_key": 503,
}
"""By an error's code. What is 5xx is not the caller's doing."""


class Problem(BaseModel):
    """What is wrong. `code` is for programs, `detail` says what happened, `hint` what to do next."""

    model_config = ConfigDict(extra="allow")

    title: str
    status: int
    code: str
    detail: str
    hint: str | None = None


def problem(
    status: int,
    code: str,
    detail: str,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    **details: Any,
) -> Response:
    """The answer; `details` are what is known besides."""
    content = {
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **({"hint": hint} if hint else {}),
        **details,
    }
    return Response(state.dump(content), status, headers=headers, media_type=MEDIA_TYPE)


def problem_of(error: FivetranStateError) -> Response:
    """The answer that one of our errors is."""
    fields = error.to_json()
    code, detail, hint = fields.pop("code"), fields.pop("message"), fields.pop("hint")
    details = {f"fivetran_{n}" if n == "status" else n: value for n, value in fields.items()}
    wait = details.get("retry_after")
    headers = None if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
    return problem(STATUS[code], code, detail, hint, headers, **details)


def problem_of_http(error: HTTPException) -> Response:
    """The answer where there is no such route, or not by that method."""
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    return problem(error.status_code, code, error.detail or phrase, headers=error.headers)


def described(**headers: str) -> dict[str, Any]:
    """Headers of an answer, as OpenAPI has them."""
    return {
        name: {"description": description, "schema": {"type": "string"}}
        for name, description in headers.items()
    }


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    documented: dict[int | str, dict[str, Any]] = {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }
    for status in (429, 503):
        wait = described(**{"Retry-After": "Seconds after which to try again, where known."})
        documented[status]["headers"] = wait
    return documented


PROBLEMS = _documented(400, 401, 403, 404, 409, 413, 415, 421, 422, 429, 500, 502, 503)
"""Every route's, as OpenAPI has them."""
