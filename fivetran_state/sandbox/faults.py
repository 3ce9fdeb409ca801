"""What a test can make go wrong, and what it can see of the requests that arrived."""

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
    """One request, as far as it has come."""

    index: int
    time: float
    """Of arrival, seconds since the epoch by the real clock."""
    method: str
    path: str
    connection_id: str | None
    query: dict[str, str]
    content: bytes = b""
    fault: FaultKind | None = None
    """What went wrong; shows after the effect if the request took effect first."""
    status: int | None = None
    """None while there is no complete answer, and for ever if the connection was broken."""
    applied: bool = False
    """Whether the API carried the request out (a 2xx, even if the client never saw it)."""
    paused: bool | None = None
    """Of the connection when the request was handled, before its effect; None: no connection."""
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
    """Something that goes wrong with the requests that match; see `Sandbox.fault`."""

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
        """Whether a PATCH of the state stores `body`."""
        return self.kind in ("wrong_state", "lost_write")

    @property
    def applies_first(self) -> bool:
        """Whether the request takes effect before it goes wrong."""
        return self.kind.startswith("apply_then_")

    def release(self) -> None:
        """Lets every request that hangs on this fault, and any to come, be answered normally."""
        if not self._released.done():
            self._released.set_result(None)

    def takes(self, request: LoggedRequest) -> bool:
        """Whether the fault befalls this request; counts it if so."""
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
        """Waits; True when released, False when the client went away first."""
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
