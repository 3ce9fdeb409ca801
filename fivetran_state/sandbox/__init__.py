"""A simulated Fivetran: for `--sandbox`, the demo and the tests.

`Sandbox` is an ASGI app over a `World`, with a log of requests and faults to inject.
`fivetran_state.sandbox.server.SandboxServer` serves it over a real port.
"""

import asyncio
import itertools
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fivetran_state.sandbox.app import Answer, Api
from fivetran_state.sandbox.connection import Connection
from fivetran_state.sandbox.faults import BrokenResponse, Fault, FaultKind, LoggedRequest
from fivetran_state.sandbox.keys import ApiKey
from fivetran_state.sandbox.refusal import code_of
from fivetran_state.sandbox.seed import seed as seed_world
from fivetran_state.sandbox.world import World

__all__ = ["Connection", "Fault", "LoggedRequest", "Sandbox", "World"]

_LOG_LIMIT = 200_000
_CONNECTION_PATH = re.compile(r"/v1/connect(?:ions|ors)/([^/]+)")


class Sandbox:
    """A simulated Fivetran account, and everything that can happen to it.

    Its data is in the file at `path`, which several processes may share, or in memory without one.
    Keys, faults and the log belong to this object. `latency` (seconds before each answer), `pretty`
    and the fields of `api` may be changed at any time. Any thread may call any method. Methods that
    take a connection id raise `KeyError` if there is no such connection.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        api_key: str = "sandbox",
        api_secret: str = "sandbox",  # noqa: S107
        seed: bool = True,
        latency: float = 0.0,
    ) -> None:
        self.world = World(path)
        if seed:
            seed_world(self.world)
        self.api = Api(self.world, api_key, api_secret)
        self.latency = latency
        self.log: list[LoggedRequest] = []
        self._indexes = itertools.count()
        self._faults: list[Fault] = []
        self._changed = threading.Condition()

    def close(self) -> None:
        """Closes the file; the sandbox cannot be used afterwards."""
        self.world.close()

    @property
    def pretty(self) -> bool:
        r"""True if answers are written with indentation and `\u` escapes; False at first."""
        return self.api.pretty

    @pretty.setter
    def pretty(self, pretty: bool) -> None:
        self.api.pretty = pretty

    def add_key(
        self,
        key: str,
        secret: str,
        *,
        may_write: bool = True,
        connections: set[str] | None = None,
    ) -> None:
        """Adds a system key, valid beside the first key, or makes a revoked key valid again.

        Without `may_write` it may only read. It may touch only these `connections`; None means all.
        """
        only = None if connections is None else frozenset(connections)
        self.api.keys.add(ApiKey(key, secret, True, may_write, only))

    def revoke_key(self, key: str) -> None:
        """From now on, requests with this key answer 401; this may be the first key too."""
        self.api.keys.revoke(key)

    def add_group(self, group_id: str, name: str) -> None:
        """Adds a group, or renames it. The name of a group that was never added is its id."""
        self.world.add_group(group_id, name)

    def connection(self, connection_id: str) -> Connection:
        return self.world.get(connection_id)

    def add_connection(self, connection_id: str, **behaviour: Any) -> Connection:
        """Adds a connection; `behaviour` are fields of `Connection`."""
        now = self.world.now()
        fields: dict[str, Any] = {"created_at": now} | behaviour
        connection = Connection(connection_id, **fields)
        if connection.sync_every is not None and connection.next_sync_at is None:
            connection = replace(connection, next_sync_at=now + connection.sync_every)
        self.world.put(connection)
        return connection

    def delete_connection(self, connection_id: str) -> None:
        self.connection(connection_id)
        self.world.delete(connection_id)

    def set_state(self, connection_id: str, text: str | None) -> Connection:
        """Writes the state as somebody else would: any JSON text, stored and answered as it is."""
        return self.world.change(connection_id, lambda found, now: replace(found, state=text))

    def set_paused(self, connection_id: str, paused: bool) -> Connection:
        """Pauses or resumes as somebody else would; no setup tests run."""
        return self.world.change(connection_id, lambda found, now: found.with_paused(paused, now))

    def start_sync(self, connection_id: str) -> Connection:
        """Starts a sync now, even of a paused or rescheduled connection."""
        return self.world.change(connection_id, lambda found, now: found.started(now))

    def finish_sync(self, connection_id: str) -> Connection:
        """Ends the sync now, and moves the cursor. If none is running, one starts and ends at once."""
        return self.world.change(connection_id, lambda found, now: found.finished(now))

    def resync(self, connection_id: str) -> Connection:
        """Requests a historical re-sync as somebody else would: pending while paused, else it
        starts."""
        return self.world.change(connection_id, lambda found, now: found.resynced(now))

    def advance(self, seconds: float) -> None:
        """Moves the world's clock forward, for every process that shares the file."""
        self.world.advance(seconds)

    def fault(
        self,
        kind: FaultKind,
        *,
        method: str | None = None,
        path: str | None = None,
        times: int = 1,
        skip: int = 0,
        status: int = 500,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Fault:
        """Makes the next `times` matching requests (after the first `skip`) go wrong.

        `path` is a regular expression, searched for in the path. The kinds, of which those that
        begin with `apply_then_` let the request take effect first:
        - `status`, `apply_then_fail`: answers `status`, with `body` and `headers`
        - `drop`, `apply_then_drop`: breaks the connection before a complete answer
        - `hang`, `apply_then_hang`: no answer until `Fault.release` or the client goes away
        - `garbage`, `apply_then_garbage`: answers 200 with a `body` that is not JSON
        - `wrong_state`: a PATCH of the state stores `body`, and the answer says so
        - `lost_write`: a PATCH of the state stores `body`, but is answered as if it had stored what
          was asked, as when somebody writes directly afterwards

        The last two befall only requests that match and PATCH a state. Those that drop or hang work
        only with a real server.
        """
        fault = Fault(kind, method, path, times, skip, status, body, headers or {})
        with self._changed:
            self._faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        """Ends all faults. Requests that hang already do so until released."""
        with self._changed:
            self._faults.clear()

    def wait_for(
        self, predicate: Callable[[LoggedRequest], bool], timeout: float = 30
    ) -> LoggedRequest:
        """Blocks until `predicate` is true for a logged request, past or future; or `TimeoutError`."""

        def first() -> LoggedRequest | None:
            return next((request for request in self.log if predicate(request)), None)

        with self._changed:
            found = self._changed.wait_for(first, timeout)
        if found is None:
            raise TimeoutError(f"no such request within {timeout} s")
        return found

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            return
        logged, fault = self._arrived(request, body)
        if self.latency:
            await asyncio.sleep(self.latency)
        response: Response
        if fault is None:
            response = self._carry_out(request, body, logged)
        else:
            response = await self._go_wrong(fault, request, body, logged)
        if isinstance(response, Answer) and response.delay:
            await asyncio.sleep(response.delay)
        if not isinstance(response, BrokenResponse):
            self._log(logged, status=response.status_code)
        await response(scope, receive, send)

    def _arrived(self, request: Request, body: bytes) -> tuple[LoggedRequest, Fault | None]:
        path = request.scope["path"]
        match = _CONNECTION_PATH.match(path)
        connection_id = match[1] if match else None
        logged = LoggedRequest(
            next(self._indexes),
            time.time(),
            request.method,
            path,
            connection_id,
            dict(request.query_params),
            body,
            frozenset(request.headers),
        )
        with self._changed:
            fault = next((fault for fault in self._faults if fault.takes(logged)), None)
            self.log.append(logged)
            del self.log[:-_LOG_LIMIT]
            self._changed.notify_all()
        return logged, fault

    def _carry_out(self, request: Request, body: bytes, logged: LoggedRequest) -> Answer:
        response = self.api.answer(request, body, lambda connection: _note(logged, connection))
        self._log(logged, applied=response.status_code < 300)
        return response

    def _log(self, logged: LoggedRequest, **news: Any) -> None:
        with self._changed:
            vars(logged).update(news)
            self._changed.notify_all()

    async def _go_wrong(
        self, fault: Fault, request: Request, body: bytes, logged: LoggedRequest
    ) -> Response:
        carried_out = None
        if fault.applies_first:
            carried_out = self._carry_out(request, body, logged)
        elif logged.connection_id:
            with suppress(KeyError):
                _note(logged, self.connection(logged.connection_id))
        self._log(logged, fault=fault.kind)
        match fault.kind:
            case "hang" | "apply_then_hang":
                if not await fault.hold(request.receive):
                    return BrokenResponse()
                return carried_out or self._carry_out(request, body, logged)
            case "drop" | "apply_then_drop":
                return BrokenResponse()
            case "garbage" | "apply_then_garbage":
                return Response(fault.body or "<html>Bad gateway</html>", 200, fault.headers)
            case "wrong_state" | "lost_write":
                return self._store_another(fault, request, body, logged)
            case "status" | "apply_then_fail":
                sorry = {"code": code_of(fault.status), "message": "The sandbox was told to fail"}
                return Response(
                    fault.body or json.dumps(sorry),
                    fault.status,
                    fault.headers,
                    media_type="application/json",
                )

    def _store_another(
        self, fault: Fault, request: Request, body: bytes, logged: LoggedRequest
    ) -> Answer:
        with self.world.transaction():
            answer = self._carry_out(request, body, logged)
            if not logged.applied or logged.connection_id is None:
                return answer
            self.set_state(logged.connection_id, fault.body)
        if fault.kind == "lost_write":
            return answer
        limits = {
            name: value for name, value in answer.headers.items() if name.startswith("x-rate-limit")
        }
        return self.api.success(f'{{"state":{fault.body}}}', limits)


def _note(logged: LoggedRequest, connection: Connection) -> None:
    logged.paused, logged.syncing = connection.paused, connection.syncing
    logged.state = connection.state
