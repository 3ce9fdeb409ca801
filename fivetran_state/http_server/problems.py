"""Error answers in the format of RFC 9457 (`application/problem+json`).

The `type` of a problem is the address of its code in `/docs/errors`, which this server shows to
everybody: the reader needs no access to the project's pages, and it is the version that runs.
"""

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fivetran_state import errors, state
from fivetran_state.errors import AlreadyDecided, Conflict, FivetranStateError
from fivetran_state.http_server.paths import ERRORS

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
    "foreign_form": 403,
    "sign_in_failed": 403,
    "workflow_not_found": 404,
    "connection_not_found": 404,
    "no_state_yet": 404,
    "update_in_progress": 409,
    "version_required": 428,
    "conflict": 409,
    "nothing_to_undo": 409,
    "not_remembered": 404,
    "resync_pending": 409,
    "too_large_to_confirm": 409,
    "not_confirmed": 409,
    "cancelled": 409,
    "undone": 409,
    "too_late_to_cancel": 409,
    "already_decided": 409,
    "sync_running": 409,
    "sync_still_running": 409,
    "rate_limited": 429,
    "internal_error": 500,
    "tampered": 500,
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
    "unusable_settings": 503,
}
"""HTTP status by error code. A 5xx is not the caller's fault."""

REFUSED = {
    "authentication_required": (401, "The request has no token, and this server needs one."),
    "invalid_token": (401, "The token is unknown, expired, revoked or made for another server."),
    "foreign_origin": (403, "A page that may not call this server has sent the request."),
    "body_too_slow": (408, "The body of the request did not arrive in time."),
    "body_too_large": (413, "The body of the request has too many bytes or values."),
    "foreign_host": (421, "The Host header does not name this server."),
    "too_many_requests": (429, "The principal has used up its requests for this minute."),
    "too_many_at_once": (429, "The principal has too many open requests."),
}
"""Status and meaning of what the server refuses before a route sees it; nothing was done."""

ROUTES = {
    "list_connections": "GET /connections",
    "get_state": "POST /state/get",
    "update_state": "POST /state/update",
    "update_states": "POST /states/update",
    "cancel_update": "POST /workflows/{workflow_id}/cancel",
    "workflow_status": "GET /workflows/{workflow_id}",
    "state_history": "GET /connections/{connection_id}/history",
}
"""The REST route for the name of each MCP tool."""

_MEMBERS = {"updates", "not_started", "failures", "connections", "proposals"}
"""The fields of an answer that have a message or an error for each connection or proposal."""
_PARTS = {"error", "plan", "last_problem"}
"""The fields with a message or an error of their own."""
_NAMES = "|".join(ROUTES)
_TOOL = re.compile(rf"\b({_NAMES})\b")
# A message may also quote external text, such as a path or a connection's id.
_TOOL_IN_MESSAGE = re.compile(rf"(?:(?<= with )|(?<= and ))({_NAMES})(?=[ .,;])")

# Over REST, only dry_run returns a plan.
_PLANNING = {
    "Repeat the call without expected_version for a new plan": (
        "Send the request again with dry_run and without expected_version for a new plan"
    ),
    "call again with expected_version": "send it without dry_run and with expected_version",
}
_PLANS = re.compile("|".join(_PLANNING))


class Problem(BaseModel):
    """An error. `code` is for programs, `detail` says what happened, `hint` what to do next."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[
        str,
        Field(
            json_schema_extra={"format": "uri-reference"},
            description="Where this server explains the code; about:blank if the status says all.",
        ),
    ]
    title: Annotated[str, Field(description="The same for each type.")]
    status: int
    code: str
    detail: str
    hint: str | None = None


@dataclass(frozen=True)
class Kind:
    """One type of problem, as the server explains it."""

    code: str
    status: int
    meaning: str
    hint: str | None

    @property
    def title(self) -> str:
        return _title(self.code)


def kinds() -> list[Kind]:
    """Every type of problem that has a code of its own."""
    own = [
        Kind(cls.code, STATUS[cls.code], inspect.getdoc(cls) or "", with_routes(cls.hint))
        for cls in errors.classes()
    ]
    return own + [Kind(code, *REFUSED[code], None) for code in REFUSED]


def _title(code: str) -> str:
    return code.replace("_", " ").capitalize()


class _Answer(Response):
    """A problem. Its `type` has the path of the public URL in front, which the app knows."""

    def __init__(self, fields: dict[str, Any], headers: Mapping[str, str] | None) -> None:
        super().__init__(None, fields["status"], headers=headers, media_type=MEDIA_TYPE)
        self._fields = fields

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        prefix = scope["app"].state.prefix
        self.body = state.dump(_kind(self._fields, prefix) | self._fields).encode()
        self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def _kind(fields: dict[str, Any], prefix: str) -> dict[str, str]:
    code, status = fields["code"], fields["status"]
    if code in STATUS or code in REFUSED:
        return {"type": f"{prefix}{ERRORS}#{code}", "title": _title(code)}
    return {"type": "about:blank", "title": HTTPStatus(status).phrase}


def problem(
    status: int,
    code: str,
    detail: str,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    **details: Any,
) -> Response:
    """The answer; `details` are further facts."""
    fields = {
        "status": status,
        "code": code,
        "detail": detail,
        **({"hint": with_routes(hint)} if hint else {}),
        **details,
    }
    return _Answer(fields, headers)


def with_routes(text: str) -> str:
    """One of our texts, such as a hint, with routes in place of tools."""
    return _in_words_of_rest(text, _TOOL)


def _in_words_of_rest(text: str, tool: re.Pattern[str]) -> str:
    routed = tool.sub(lambda found: ROUTES[found[0]], text)
    return _PLANS.sub(lambda found: _PLANNING[found[0]], routed)


def for_rest(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an answer. Its message and hints name routes in place of tools."""
    told = dict(fields)
    if "message" in told:
        told["message"] = _in_words_of_rest(told["message"], _TOOL_IN_MESSAGE)
    if "hint" in told:
        told["hint"] = with_routes(told["hint"])
    for name in _PARTS & told.keys():
        if isinstance(told[name], dict):
            told[name] = for_rest(told[name])
    for name in _MEMBERS & told.keys():
        told[name] = [for_rest(member) for member in told[name]]
    return told


def problem_of(error: FivetranStateError, *, is_conditional: bool = False) -> Response:
    """The answer for one of our errors; `is_conditional` if the request has an If-Match."""
    fields = for_rest(error.to_json())
    code, detail, hint = fields.pop("code"), fields.pop("message"), fields.pop("hint")
    details = {f"fivetran_{n}" if n == "status" else n: value for n, value in fields.items()}
    wait = details.get("retry_after")
    headers = None if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
    has_failed_condition = is_conditional and isinstance(error, Conflict | AlreadyDecided)
    status = 412 if has_failed_condition else STATUS[code]  # RFC 9110, 13.1.1
    return problem(status, code, detail, hint, headers, **details)


def problem_of_http(error: HTTPException) -> Response:
    """The answer for an unknown route or method."""
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    return problem(error.status_code, code, error.detail or phrase, headers=error.headers)


def described(**headers: str) -> dict[str, Any]:
    """Headers of an answer in OpenAPI's form."""
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
        wait = described(**{"Retry-After": "Seconds to wait before trying again, if known."})
        documented[status]["headers"] = wait
    return documented


PROBLEMS = _documented(
    400, 401, 403, 404, 408, 409, 412, 413, 415, 421, 422, 428, 429, 500, 502, 503
)
"""The problems of every route in OpenAPI's form."""
