"""Fivetran's REST API over a `World`: its URLs, envelope, status codes and messages.

Source: Fivetran's public API reference and support pages, as of 2026-11. Where they give a status
but no `code` (400, 401, 403, 405, 406, 409, 415), the code here is a plausible one.
"""

import base64
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fivetran_state import state
from fivetran_state.sandbox.world import Connection, World, iso

STATEFUL_SERVICES = frozenset(
    {"aws_lambda", "azure_function", "google_cloud_function", "connector_sdk"}
)
_ACCEPTED = frozenset({"application/json", "application/json;version=2"})
_CODES = {
    400: "InvalidInput",
    401: "AuthFailed",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    415: "UnsupportedMediaType",
    429: "TooManyRequests",
}


class Refusal(Exception):
    """An answer other than 200: status, message and, where Fivetran has a special one, code."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = json.dumps({"code": code or code_of(status), "message": message})


def code_of(status: int) -> str:
    """The `code` that goes with an HTTP status."""
    return _CODES.get(status, "InternalServerError")


@dataclass
class Api:
    """Answers requests, each in one transaction of the world."""

    world: World
    api_key: str
    api_secret: str
    account_id: str = "sandbox_account"
    requests_per_hour: int = 20_000

    def answer(self, request: Request, body: bytes, seen: Callable[[Connection], None]) -> Response:
        """Carries the request out; `seen` is told the connection as it is before the effect."""
        with self.world.transaction():
            left, wait = self.world.admit(self.requests_per_hour)
            limits = {
                "X-Rate-Limit": str(self.requests_per_hour),
                "X-Rate-Limit-Remaining": str(left),
            }
            try:
                if wait:
                    retry_after = {"Retry-After": str(math.ceil(wait))}
                    raise Refusal(429, "The account's request limit is used up", **retry_after)
                self._check_headers(request)
                answered = self._route(request, body, seen)
            except Refusal as refusal:
                return _response(refusal.status, refusal.body, limits | refusal.headers)
        return _response(200, f'{{"code":"Success","message":"OK","data":{answered}}}', limits)

    def _check_headers(self, request: Request) -> None:
        credentials = base64.b64encode(f"{self.api_key}:{self.api_secret}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {credentials}":
            raise Refusal(401, "The API key or secret is not valid")
        if request.headers.get("Accept", "").replace(" ", "") not in _ACCEPTED:
            raise Refusal(406, "Accept must be application/json;version=2")
        content_type = request.headers.get("Content-Type", "").split(";")[0]
        if request.method in ("PATCH", "POST") and content_type != "application/json":
            raise Refusal(415, "Content-Type must be application/json")

    def _route(self, request: Request, body: bytes, seen: Callable[[Connection], None]) -> str:
        """The answer's `data` as JSON text."""

        def connection(noun: str, connection_id: str) -> Connection:
            try:
                found = self.world.get(connection_id)
            except KeyError:
                message = f"Cannot find connection with id '{connection_id}'"
                raise Refusal(404, message, f"NotFound_{noun[:-1].title()}") from None
            seen(found)
            if found.forbidden:
                raise Refusal(403, "The role of this API key does not allow the action")
            return found

        match request.method, request.scope["path"].removeprefix("/v1/").split("/"):
            case "GET", ["account", "info"]:
                return self._account()
            case "GET", ["groups"]:
                return self._groups(request)
            case "GET", ["connections" | "connectors"]:
                return self._connections(request)
            case "GET", ["connections" | "connectors" as noun, connection_id]:
                return json.dumps(_details(connection(noun, connection_id)))
            case "PATCH", ["connections" | "connectors" as noun, connection_id]:
                return self._update(connection(noun, connection_id), body)
            case "GET", ["connections" | "connectors" as noun, connection_id, "state"]:
                return _state(connection(noun, connection_id))
            case "PATCH", ["connections" | "connectors" as noun, connection_id, "state"]:
                return self._write_state(connection(noun, connection_id), body)
            case _, (
                ["account", "info"]
                | ["groups"]
                | ["connections" | "connectors"]
                | ["connections" | "connectors", _]
                | ["connections" | "connectors", _, "state"]
            ):
                raise Refusal(405, f"{request.method} is not supported here")
        raise Refusal(404, f"There is nothing at {request.scope['path']}")

    def _account(self) -> str:
        ids = {"account_id": self.account_id, "user_id": "sandbox_user"}
        return json.dumps(ids | {"account_name": "Sandbox"})

    def _groups(self, request: Request) -> str:
        oldest: dict[str, float] = {}
        for connection in sorted(self.world.connections(), key=lambda each: each.created_at):
            oldest.setdefault(connection.group_id, connection.created_at)
        return _page(
            [{"id": id_, "name": id_, "created_at": iso(oldest[id_])} for id_ in sorted(oldest)],
            request,
        )

    def _connections(self, request: Request) -> str:
        query = request.query_params
        items = [
            _details(connection)
            for connection in self.world.connections()
            if query.get("group_id") in (None, connection.group_id)
            and query.get("schema") in (None, connection.schema)
        ]
        return _page(items, request)

    def _update(self, connection: Connection, body: bytes) -> str:
        """The only persistent field that the sandbox knows is `paused`."""
        paused = _object(body).get("paused")
        if not isinstance(paused, bool):
            raise Refusal(400, "At least one persistent field is required, with a valid value")
        updated = connection.with_paused(paused, self.world.now())
        self.world.put(updated)
        return json.dumps(_details(updated))

    def _write_state(self, connection: Connection, body: bytes) -> str:
        if connection.service not in STATEFUL_SERVICES:
            raise Refusal(405, f"Service '{connection.service}' is not a function connector")
        document = _object(body).get("state")
        if document is None:
            return f'{{"state":{connection.state or "null"}}}'
        if not isinstance(document, dict):
            raise Refusal(400, "'state' must be a JSON object")
        if connection.syncing:
            raise Refusal(409, "Connection cannot be updated because the sync is in progress")
        updated = replace(connection, state=state.dump(document))
        self.world.put(updated)
        return _state(updated)


def _object(body: bytes) -> dict[str, Any]:
    try:
        return state.parse(body)
    except state.InvalidState as error:
        raise Refusal(400, f"The request body is malformed: {error}") from error


def _state(connection: Connection) -> str:
    if connection.service not in STATEFUL_SERVICES:
        raise Refusal(400, f"Service '{connection.service}' does not support state")
    if connection.state is None:
        raise Refusal(400, "No state has been written for this connection yet")
    # The text itself, not a parsed copy: every number leaves as it came.
    return f'{{"state":{connection.state}}}'


def _page(items: list[dict[str, Any]], request: Request) -> str:
    """Items that come sorted by id, from the one after the cursor."""
    try:
        limit = int(request.query_params.get("limit", "100"))
        after = base64.b64decode(
            request.query_params.get("cursor", ""), b"-_", validate=True
        ).decode()
    except ValueError:
        raise Refusal(400, "'limit' or 'cursor' is not valid") from None
    if not 1 <= limit <= 1000:
        raise Refusal(400, "'limit' must be between 1 and 1000")
    rest = [item for item in items if item["id"] > after]
    page: dict[str, Any] = {"items": rest[:limit]}
    if len(rest) > limit:
        page["next_cursor"] = base64.urlsafe_b64encode(rest[limit - 1]["id"].encode()).decode()
    return json.dumps(page)


def _details(connection: Connection) -> dict[str, Any]:
    return {
        "id": connection.id,
        "service": connection.service,
        "service_version": 1,
        "schema": connection.schema,
        "group_id": connection.group_id,
        "paused": connection.paused,
        "connected_by": "sandbox_user",
        "created_at": iso(connection.created_at),
        "succeeded_at": connection.succeeded_at and iso(connection.succeeded_at),
        "failed_at": connection.failed_at and iso(connection.failed_at),
        "sync_frequency": connection.sync_frequency,
        "schedule_type": "auto",
        "pause_after_trial": False,
        "data_delay_sensitivity": "NORMAL",
        "daily_sync_time": None,
        "networking_method": "Directly",
        "config": {"secrets": "******"},
        "setup_tests": [],
        "status": {
            "setup_state": connection.setup_state,
            "sync_state": connection.sync_state,
            "update_state": "delayed" if connection.rescheduled else "on_schedule",
            "is_historical_sync": connection.succeeded_at is None,
            "tasks": [],
            "warnings": [],
        },
    }


def _response(status: int, body: str, headers: dict[str, str]) -> Response:
    return Response(body, status, headers, media_type="application/json")
