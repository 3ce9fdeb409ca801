"""Fivetran's REST API over a `World`: its URLs, envelope, status codes and messages.

Source: Fivetran's public API reference and support pages, as of 2026-11. If they give a status but
no `code` (400, 401, 403, 405, 406, 409, 415), the code here is a plausible one.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fivetran_state.sandbox.actions import (
    Action,
    Outcome,
    details,
    resync,
    show,
    show_state,
    sync,
    update,
    write_state,
)
from fivetran_state.sandbox.connection import Connection, iso
from fivetran_state.sandbox.keys import ApiKey, Keys
from fivetran_state.sandbox.refusal import Refusal
from fivetran_state.sandbox.spelling import pretty
from fivetran_state.sandbox.world import HOUR, Group, World

_ACCEPTED = frozenset({"application/json", "application/json;version=2"})
_ACTIONS: dict[tuple[str, ...], dict[str, Action]] = {
    (): {"GET": show, "PATCH": update},
    ("state",): {"GET": show_state, "PATCH": write_state},
    ("sync",): {"POST": sync},
    ("resync",): {"POST": resync},
}


class Answer(Response):
    """An answer of the API, ready after `delay` seconds."""

    media_type = "application/json"
    delay = 0.0


@dataclass
class Api:
    """Answers requests, each in one transaction of the world."""

    world: World
    api_key: str
    api_secret: str
    account_id: str = "sandbox_account"
    requests_per_hour: int = 20_000
    """Or per `limit_window`, in seconds."""
    limit_window: float = HOUR
    account_info_forbidden: bool = False
    """Every key is refused `account/info`."""
    stateless_status: int = 400
    """Status of the refusal if the service keeps no state; older documents say 405."""
    pretty: bool = False
    """Answers are written with indentation and escapes."""
    keys: Keys = field(default_factory=Keys)

    def answer(self, request: Request, body: bytes, seen: Callable[[Connection], None]) -> Answer:
        """Carries the request out; calls `seen` with the connection as it is before the effect."""
        with self.world.transaction():
            left, wait = self.world.admit(self.requests_per_hour, self.limit_window)
            limits = {
                "X-Rate-Limit": str(self.requests_per_hour),
                "X-Rate-Limit-Remaining": str(left),
            }
            try:
                if wait:
                    retry_after = {"Retry-After": str(math.ceil(wait))}
                    raise Refusal(429, "The account's request limit is used up", **retry_after)
                key = self._authenticated(request)
                _check_headers(request)
                return self._route(request, body, key, seen, limits)
            except Refusal as refusal:
                return Answer(refusal.body, refusal.status, limits | refusal.headers)

    def success(self, data: str, headers: Mapping[str, str]) -> Answer:
        """The answer to a request that was carried out; `data` is JSON text."""
        text = f'{{"code":"Success","message":"OK","data":{data}}}'
        return Answer(pretty(text) if self.pretty else text, 200, headers)

    def _authenticated(self, request: Request) -> ApiKey:
        user_key = ApiKey(self.api_key, self.api_secret)
        key = self.keys.find(request.headers.get("Authorization"), user_key)
        if key is None:
            raise Refusal(401, "The API key or secret is not valid")
        return key

    def _route(
        self,
        request: Request,
        body: bytes,
        key: ApiKey,
        seen: Callable[[Connection], None],
        headers: Mapping[str, str],
    ) -> Answer:
        match request.scope["path"].removeprefix("/v1/").split("/"):
            case ["connections" | "connectors" as noun, connection_id, *rest]:
                actions = _ACTIONS.get(tuple(rest))
                if actions is None:
                    raise _nothing_at(request)
                if request.method not in actions:
                    raise _method_not_allowed(request)
                connection = self._found(noun, connection_id, seen)
                _check_role(key, connection, writes=request.method != "GET")
                outcome = self._act(actions[request.method], connection, body)
                answer = self.success(outcome.data, headers)
                answer.delay = outcome.delay
                return answer
            case names:
                return self.success(self._look_up(request, names, key), headers)

    def _found(
        self, noun: str, connection_id: str, seen: Callable[[Connection], None]
    ) -> Connection:
        try:
            found = self.world.get(connection_id)
        except KeyError:
            message = f"Cannot find connection with id '{connection_id}'"
            raise Refusal(404, message, f"NotFound_{noun[:-1].title()}") from None
        seen(found)
        return found

    def _act(self, action: Action, connection: Connection, body: bytes) -> Outcome:
        if action is write_state and not connection.keeps_state:
            message = f"Service '{connection.service}' is not a function connector"
            raise Refusal(self.stateless_status, message)
        outcome = action(connection, body, self.world.now())
        if outcome.connection is not connection:
            self.world.put(outcome.connection)
        return outcome

    def _look_up(self, request: Request, names: list[str], key: ApiKey) -> str:
        match request.method, names:
            case "GET", ["account", "info"]:
                return self._account(key)
            case "GET", ["groups"]:
                return _page([_group(group) for group in self.world.groups()], request)
            case "GET", ["groups", group_id]:
                return self._one_group(group_id)
            case "GET", ["connections" | "connectors"]:
                return self._connections(request, key)
            case _, (
                ["account", "info"] | ["groups"] | ["groups", _] | ["connections" | "connectors"]
            ):
                raise _method_not_allowed(request)
        raise _nothing_at(request)

    def _account(self, key: ApiKey) -> str:
        if self.account_info_forbidden:
            raise _forbidden()
        account = {"account_id": self.account_id, "account_name": "Sandbox"}
        owner = {"system_key_id": key.key} if key.is_system else {"user_id": "sandbox_user"}
        return json.dumps(account | owner)

    def _one_group(self, group_id: str) -> str:
        for group in self.world.groups():
            if group.id == group_id:
                return json.dumps(_group(group))
        raise Refusal(404, f"Cannot find group with id '{group_id}'", "NotFound_Group")

    def _connections(self, request: Request, key: ApiKey) -> str:
        query = request.query_params
        items = [
            details(connection)
            for connection in self.world.connections()
            if key.may_touch(connection.id)
            and query.get("group_id") in (None, connection.group_id)
            and query.get("schema") in (None, connection.schema)
        ]
        return _page(items, request)


def _check_headers(request: Request) -> None:
    if request.headers.get("Accept", "").replace(" ", "") not in _ACCEPTED:
        raise Refusal(406, "Accept must be application/json;version=2")
    content_type = request.headers.get("Content-Type", "").split(";")[0]
    if request.method in ("PATCH", "POST") and content_type != "application/json":
        raise Refusal(415, "Content-Type must be application/json")


def _check_role(key: ApiKey, connection: Connection, *, writes: bool) -> None:
    if connection.forbidden or not key.may_touch(connection.id) or (writes and not key.may_write):
        raise _forbidden()


def _forbidden() -> Refusal:
    return Refusal(403, "The role of this API key does not allow the action")


def _method_not_allowed(request: Request) -> Refusal:
    return Refusal(405, f"{request.method} is not supported here")


def _nothing_at(request: Request) -> Refusal:
    return Refusal(404, f"There is nothing at {request.scope['path']}")


def _group(group: Group) -> dict[str, str]:
    return {"id": group.id, "name": group.name, "created_at": iso(group.created_at)}


def _page(items: list[Any], request: Request) -> str:
    """Items, sorted by id, that come after the cursor."""
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
