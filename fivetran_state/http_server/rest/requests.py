"""The parts of a request: its exact body, the path, and the headers with options."""

import re
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from fivetran_state import large, state
from fivetran_state.errors import InvalidRequest, VersionRequired
from fivetran_state.http_server.rest.bodies import ANY_VERSION, Body
from fivetran_state.service import Service
from fivetran_state.startup import Backend
from fivetran_state.validation import too_many_unknown

FOR_EVER = 24 * 3600.0
"""Seconds that a caller waits by default; an update keeps trying for as long."""
Credential = Annotated[str | None, Header(max_length=500)]
WorkflowId = Annotated[str, Path(max_length=500, examples=["speak_inexpensive:1"])]


class _WorkflowIds(StringConvertor):
    """In a path: a guest's update has its account in front. It must not match the rest of a route."""

    regex = "[^/]+(?:/[^/:]+:[^/]+)?"


register_url_convertor("workflow_id", _WorkflowIds())


class _Exact(Request):
    """A request whose JSON body keeps the spelling of every number."""

    _value: state.JsonValue

    def check_type(self) -> None:
        """Refuse other types than JSON: any page can make a browser send those without asking
        first."""
        if re.match(r"application/(.+\+)?json\s*(;|$)", self._content_type) is None:
            raise HTTPException(415, "The Content-Type of the request must be application/json.")

    async def read(self, known: Collection[str]) -> None:
        try:
            self._value = await large.run(state.parse_value, await self.body())
        except state.InvalidState as error:
            raise InvalidRequest(f"The body cannot be used: {error}.") from error
        self._body = b"{}"  # FastAPI only needs to know that there is a body.
        if isinstance(self._value, dict):
            problems = too_many_unknown(self._value, known)
            if problems is not None:
                raise InvalidRequest(f"{problems}.")

    @property
    def _content_type(self) -> str:
        return self.headers.get("content-type", "").lower()

    async def json(self) -> Any:
        return self._value


class ExactRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            exact = _Exact(request.scope, request.receive)
            field = self.body_field
            if field is not None:
                exact.check_type()
                if field.field_info.is_required() or await exact.body():
                    model: Any = field.field_info.annotation
                    await exact.read(model.model_fields)
            return await handler(exact)

        return handle


@dataclass(frozen=True, repr=False)
class Credentials:
    """The credentials of the request's account: both, or neither."""

    key: str | None
    secret: str | None


_NONE = Credentials(None, None)


def _credentials(
    fivetran_api_key: Credential = None, fivetran_api_secret: Credential = None
) -> Credentials:
    return Credentials(fivetran_api_key, fivetran_api_secret)


@dataclass(frozen=True)
class Preference:
    """The seconds to wait for the end of an update, from `Prefer` (RFC 7240)."""

    seconds: float = FOR_EVER
    applied: str | None = None


def _preference(
    request: Request,
    prefer: Annotated[
        str | None,
        Header(
            max_length=200,
            description=(
                "respond-async: answer at once. wait=SECONDS: answer after that time at the latest."
            ),
        ),
    ] = None,
) -> Preference:
    # Several header lines mean the same as one line with commas (RFC 9110, 5.3). Generated clients
    # cannot send a list, so `prefer` declares a text, and is only the last line.
    lines = ",".join(request.headers.getlist("Prefer"))
    wanted = [each.strip() for each in re.split("[,;]", lines.lower())]
    waits = [match for each in wanted if (match := re.fullmatch(r'wait="?(\d{1,5})"?', each))]
    applied = ["respond-async"] if "respond-async" in wanted else []
    seconds = 0.0 if applied else FOR_EVER
    if waits:
        seconds = float(waits[0][1])
        applied.append(f"wait={waits[0][1]}")
    return Preference(seconds, ", ".join(applied) or None)


def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="The same key, with or without quotes, never updates twice.", max_length=202
        ),
    ] = None,
) -> str | None:
    if idempotency_key is None:
        return None
    quoted = re.fullmatch('"(.*)"', idempotency_key.strip())
    key = quoted[1] if quoted else idempotency_key.strip()
    if not 1 <= len(key) <= 200:
        raise InvalidRequest("Idempotency-Key must have 1 to 200 characters.")
    return key


def entity_tag(version: str) -> str:
    """The ETag of a state, or of a proposal by its plan (RFC 9110, 8.8.3)."""
    return f'"{version}"'


def _if_match(
    if_match: Annotated[
        str | None,
        Header(
            description="The ETag of what you saw, or *: 412 if it has moved. A change and an "
            "approval need it or expected_version; only a change takes *.",
            max_length=510,
        ),
    ] = None,
) -> str | None:
    if if_match is None or if_match.strip() == ANY_VERSION:
        return if_match and ANY_VERSION
    found = re.fullmatch('(W/)?"([^"]+)"', if_match.strip())
    if found is None:
        raise HTTPException(400, "If-Match must be * or one entity tag in double quotes.")
    if found[1]:  # A proxy that compresses answers weakens their tags.
        raise HTTPException(412, "If-Match has a weak entity tag, which never matches.")
    return found[2]


def is_known(version: str, if_none_match: str | None) -> bool:
    """True if If-None-Match names the version, so that the caller has it already."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return ANY_VERSION in tags or entity_tag(version) in tags


Headers = Annotated[Credentials, Depends(_credentials)]
Prefer = Annotated[Preference, Depends(_preference)]
IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
IfMatch = Annotated[str | None, Depends(_if_match)]
IfNoneMatch = Annotated[
    str | None,
    Header(description="The ETag of what you have: 304 if it has not moved."),
]


async def _own_service(request: Request) -> Service:
    backend: Backend = request.app.state.backend
    return await backend.service()


OwnService = Annotated[Service, Depends(_own_service)]
"""The service of the server's own account."""


async def _service(own: OwnService, headers: Headers) -> Service:
    return await service_in(own, headers)


ServiceFor = Annotated[Service, Depends(_service)]
"""The service of the account in the headers, or of the server's own."""


async def service_in(service: Service, credentials: Credentials) -> Service:
    if credentials == _NONE:
        return service
    if not credentials.key or not credentials.secret:
        raise InvalidRequest("Give both the API key and its secret, or neither.")
    return await service.of(credentials.key, credentials.secret)


def expected(
    version: str | None, if_match: str | None = None, *, may_lack: bool = False
) -> str | None:
    """The version that a change is for, by its body or If-Match; None for whatever is there.

    Raises `VersionRequired` if it is missing, unless it may be.
    """
    if None not in (version, if_match) and version != if_match:
        raise HTTPException(400, "expected_version and If-Match differ: give the version once.")
    given = if_match if version is None else version
    if given is None and not may_lack:
        raise VersionRequired("The change does not say for which version of the state it is.")
    return None if given == ANY_VERSION else given


def agreed(headers: Credentials, body: Body) -> Credentials:
    secret = None if body.api_secret is None else body.api_secret.get_secret_value()
    in_body = Credentials(body.api_key, secret)
    if _NONE not in (headers, in_body) and headers != in_body:
        raise InvalidRequest(
            "The credentials in the headers and in the body differ: give them once."
        )
    return headers if in_body == _NONE else in_body
