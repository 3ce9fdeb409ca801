"""Faults that a test can inject, and the log of the requests that arrived."""

import asyncio
import re
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fivetran_state.state import InvalidState, parse_value

FaultKind = Literal[
    "status",
    "apply_then_fail",
    "drop",
    "apply_then_drop",
    "hang",
    "apply_then_hang",
    "garbage",
    "apply_then_garbage",
    "wrong_state",
    "lost_write",
]


@dataclass
class LoggedRequest:
    """One request and its progress."""

    index: int
    time: float
    """Time of arrival, in seconds since the epoch by the real clock."""
    method: str
    path: str
    connection_id: str | None
    query: dict[str, str]
    content: bytes = b""
    headers: frozenset[str] = frozenset()
    """Their names in lower case. The values are left out: one is the key."""
    fault: FaultKind | None = None
    """The fault of this request; set after the effect if the request took effect first."""
    status: int | None = None
    """None until there is a complete answer, and forever if the connection was broken."""
    applied: bool = False
    """True if the API carried the request out (a 2xx, even if the client never saw it)."""
    paused: bool | None = None
    """The connection's flag when the request was handled, before its effect; None: no connection.
    """
    syncing: bool | None = None
    state: str | None = None
    """The state document, before the effect."""

    @cached_property
    def body(self) -> Any:
        """The JSON body, parsed with `state.parse_value`; None if there is none or it is not JSON."""
        try:
            return parse_value(self.content) if self.content else None
        except InvalidState:
            return None


@dataclass
class Fault:
    """A fault for the matching requests; see `Sandbox.fault`."""

    kind: FaultKind
    method: str | None = None
    path: str | None = None
    times: int = 1
    skip: int = 0
    status: int = 500
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    _released: "Future[None]" = field(default_factory=Future, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            raise ValueError(f"no such fault: {self.kind}")
        if self.replaces_state and self.body is None:
            raise ValueError(f"{self.kind} needs the state to store as its body")

    @property
    def replaces_state(self) -> bool:
        """True if a PATCH of the state stores `body`."""
        return self.kind in ("wrong_state", "lost_write")

    @property
    def applies_first(self) -> bool:
        """True if the request takes effect before the fault."""
        return self.kind.startswith("apply_then_")

    def release(self) -> None:
        """Answers every request that hangs on this fault normally, now and later."""
        if not self._released.done():
            self._released.set_result(None)

    def takes(self, request: LoggedRequest) -> bool:
        """True if the fault applies to this request; counts the request if so."""
        if self.method not in (None, request.method) or self.times == 0:
            return False
        if self.replaces_state and not (
            request.method == "PATCH" and request.path.endswith("/state")
        ):
            return False
        if self.path is not None and not re.search(self.path, request.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True

    async def hold(self, receive: Receive) -> bool:
        """Waits; True when released, False when the client disconnected first."""
        gone = asyncio.ensure_future(_gone(receive))
        released = asyncio.wrap_future(self._released)
        try:
            await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        return not gone.done()


class BrokenResponse(Response):
    """Announces more than it sends, so that the server breaks the TCP connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", b"1000")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": b'{"code":', "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
