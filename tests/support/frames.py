"""Malformed requests to the MCP endpoint, each made from a seed and its number, and their client."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

import h11
from mcp.shared.inbound import encode_header_value

from fivetran_state.http_server.guard import MAX_BODY_BYTES
from tests.support.calls import EMPTY, IDLE, PAUSED

LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol/"
WORKFLOW = f"{IDLE}:1"
TOOLS: dict[str, dict[str, Any]] = {
    "list_connections": {"name": "a", "service": "b", "cursor": "c", "limit": 1},
    "get_state": {"connection_id": IDLE, "path": "/cursor", "max_bytes": 1000, "search": "c", "cursor": "c"},
    # With this version, or without any, nothing is ever written.
    "update_state": {
        "connection_id": IDLE, "merge_patch": {"cursor": 1}, "expected_version": "no version of it",
        "dry_run": False, "reason": "why", "idempotency_key": "key", "wait_seconds": 0,
    },
    "update_states": {
        "connection_ids": [IDLE, PAUSED], "name": "*", "changes": [{"connection_id": IDLE, "new_state": {}}],
        "merge_patch": {"cursor": 1}, "expected_version": "no version of it", "dry_run": False,
        "independent": True, "cursor": IDLE, "wait_seconds": 0,
    },
    "cancel_update": {"workflow_id": WORKFLOW, "wait_seconds": 0},
    "workflow_status": {"workflow_id": WORKFLOW, "wait_seconds": 0},
    "state_history": {"connection_id": PAUSED, "cursor": "c", "limit": 1},
}  # fmt: skip
URIS = [f"fivetran://connections/{EMPTY}/state", f"fivetran://workflows/{WORKFLOW}"]
CLIENT = {"name": "fuzz", "version": "1"}
ARGUMENT = {"name": "connection_id", "value": "b"}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("initialize", {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}),
    *((method, {}) for method in ("ping", "server/discover", "resources/templates/list")),
    *((f"{what}/list", {"cursor": "c"}) for what in ("tools", "prompts", "resources")),
    *(("tools/call", {"name": name, "arguments": given}) for name, given in TOOLS.items()),
    *(("resources/read", {"uri": uri}) for uri in URIS),
    *((f"resources/{what}", {"uri": URIS[0]}) for what in ("subscribe", "unsubscribe")),
    ("prompts/get", {"name": "rewind_cursor", "arguments": {"connection_id": IDLE, "to": "then"}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": URIS[0]}, "argument": ARGUMENT}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": ARGUMENT}),
    ("logging/setLevel", {"level": "debug"}),
    *((f"tasks/{what}", {"taskId": WORKFLOW}) for what in ("get", "cancel")),
    ("tasks/update", {"taskId": WORKFLOW, "inputResponses": {}}),
    ("subscriptions/listen", {"notifications": {"resourceSubscriptions": URIS, "taskIds": []}}),
    ("notifications/initialized", {}),
    ("notifications/cancelled", {"requestId": 1, "reason": "why"}),
    ("notifications/progress", {"progressToken": 1, "progress": 1}),
    ("no/such/method", {"a": 1}),
]  # fmt: skip
RAW = {
    "@nested-200": "[" * 200 + "]" * 200,
    "@nested-900": '{"a":' * 900 + "1" + "}" * 900,
    "@nested-100000": "[" * 100_000 + "]" * 100_000,
    "@never-closed": '{"a":[' * 100_000,
    "@huge": "9" * 100_000,
    "@negative": "-" + "9" * 5000,
    "@overflow": "1e400",
    "@digits": "0." + "1" * 100_000,
    "@nan": "NaN",
    "@infinity": "-Infinity",
    "@twice": '{"a":1,"a":{"a":2,"a":3}}',
}
"""Text that `json.dumps` cannot write; each key stands for its text."""
WEIRD: list[Any] = [
    *RAW, None, True, False, 0, -1, 1.5, -0.0, 2**31, 2**63, 2**64, 1e308, "", " ", "\0", "\ud800",
    "\ud800\udfff", "\x1b[31m\r\nX: y", "\u202e\u2028\ufeff", "../../etc/passwd", "%2e%2e%2f%00",
    "{connection_id}", "k" * 100_000, "\U0001f643" * 30_000, IDLE, WORKFLOW, f"{IDLE}:{10**30}",
    [], {}, [[]], [None] * 5000, {"": {}}, {"\ud800": 1}, {"__proto__": {}, "a" * 50_000: 0},
    LEGACY, MODERN,
]  # fmt: skip
ODD_HEADERS = [
    b"", b"text/plain", b"application/json", b"application/json; charset=utf-16", b"*/*", b"1",
    b"text/event-stream", b"application/jsonx", b"\xff\xfe", b"a\tb", b"=?base64?AA==?=", b"a\0b",
    b"=?base64?!?=", b"x" * 9000, b"x" * 40_000, b"null", b"tools/call", b"get_state", b"\r\n folded",
    b"9999-01-01", b"0" * 32, b"{session}", LEGACY.encode(), MODERN.encode(),
]  # fmt: skip
NAMES = ["Content-Type", "Accept", "Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method"]
NAMES += ["Mcp-Name", "Last-Event-ID", "Origin", "Host", "Mcp-Param-A", "Content-Encoding"]
METHODS = ["GET", "GET", "DELETE", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "FROB"]

Headers = list[tuple[str, bytes]]


@dataclass
class Frame:
    """One request. Its client's session replaces `{session}` in a header."""

    headers: Headers
    body: bytes = b""
    method: str = "POST"
    kind: str = ""
    chunks: bytes | None = None
    """Replaces the body and its length."""
    ends: bool = True
    """True if the whole announced body is sent."""
    waits: bool = True
    """True if its client waits for the answer."""
    listens: bool = False
    """True if it asks for an endless stream."""

    def has_no_end(self, stream: "Answer") -> bool:
        return self.method == "GET" or (self.listens and stream.body.endswith(b"\n\r\n"))

    def to_bytes(self, session: str, token: str) -> bytes:
        length = b"%d" % (len(self.body) + (0 if self.ends else 100))
        framing = ("Content-Length", length)
        if self.chunks is not None:
            framing = ("Transfer-Encoding", b"chunked")
        given = [*self.headers, ("Authorization", b"Bearer " + token.encode()), framing]
        lines = [f"{name}: ".encode() + value for name, value in [*given, ("Connection", b"close")]]
        head = b"\r\n".join([f"{self.method} /mcp HTTP/1.1".encode(), *lines, b"", b""])
        content = self.body if self.chunks is None else self.chunks
        return head.replace(b"{session}", session.encode()) + content


def dumped(value: Any) -> bytes:
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def envelope(era: str, method: str, params: dict[str, Any], id_: object) -> dict[str, Any]:
    if era == MODERN:
        able: dict[str, Any] = {"extensions": {f"{META}tasks": {}}}
        meta = {f"{META}protocolVersion": era, f"{META}clientCapabilities": able}
        params = params | {"_meta": meta | {f"{META}clientInfo": CLIENT}}
    called = {"jsonrpc": "2.0", "method": method, "params": params}
    return called if method.startswith("notifications/") else called | {"id": id_}


def headers_of(era: str, method: str, params: dict[str, Any]) -> Headers:
    headers = [("Host", b"localhost"), ("Content-Type", b"application/json")]
    headers.append(("Accept", b"application/json, text/event-stream"))
    if era == LEGACY:
        session = [("MCP-Protocol-Version", era.encode()), ("Mcp-Session-Id", b"{session}")]
        return headers if method == "initialize" else headers + session
    headers += [("MCP-Protocol-Version", era.encode()), ("Mcp-Method", method.encode())]
    name = params.get("name", params.get("uri", params.get("taskId")))
    if isinstance(name, str) and len(name) < 9000 and "\ud800" not in name:
        headers.append(("Mcp-Name", encode_header_value(name).encode()))
    return headers


def valid(era: str, method: str, params: dict[str, Any], id_: object = 1) -> Frame:
    return Frame(headers_of(era, method, params), dumped(envelope(era, method, params, id_)))


def frame(seed: int, number: int) -> Frame:
    """Always the same frame for a number; the kinds take turns."""
    random = Random(f"{seed}/{number}")
    make = KINDS[number % len(KINDS)]
    era = random.choice([LEGACY, MODERN])
    method, params = random.choice(REQUESTS)
    made = valid(era, method, params, f"{seed}/{number}")
    made.kind, made.listens = make.__name__, method == "subscriptions/listen"
    make(random, made, era, envelope(era, method, params, f"{seed}/{number}"))
    return made


def mutated(random: Random, value: Any) -> Any:
    """The value with one to three wrong members, at any depth."""
    root = {"": deepcopy(value)}
    for _ in range(random.randint(1, 3)):
        container: Any = root
        key: Any = ""
        while isinstance(container[key], dict | list) and container[key]:
            if container is not root and random.random() < 0.3:
                break
            container = container[key]
            key = random.choice(list(container) if isinstance(container, dict) else [0])
        weird = deepcopy(random.choice(WEIRD))
        match random.randrange(6):
            case 0 if container is not root:
                del container[key]
            case 1 if isinstance(container, dict):
                container[random.choice(["extra", "_meta", "id", "\ud800"])] = weird
            case 2:
                container[key] = [container[key]]
            case _:
                container[key] = weird
    return root[""]


Message = dict[str, Any]


def wrong_params(random: Random, made: Frame, era: str, message: Message) -> None:
    params = mutated(random, message["params"])
    made.body = dumped(message | {"params": params})
    if isinstance(params, dict) and random.random() < 0.8:  # Let the headers match.
        made.headers = headers_of(era, message["method"], params)


def wrong_envelope(random: Random, made: Frame, _: str, message: Message) -> None:
    name = random.choice(["jsonrpc", "id", "method", "params", "result", "error", "extra"])
    without = {key: value for key, value in message.items() if key != name}
    made.body = dumped(random.choice([without, *[without | {name: random.choice(WEIRD)}] * 4]))


def other_json(random: Random, made: Frame, _: str, message: Message) -> None:
    made.body = dumped(random.choice([*WEIRD, [message], [message, message], [message] * 500]))


def no_json(random: Random, made: Frame, _: str, message: Message) -> None:
    whole = dumped(message)
    cut = random.randrange(len(whole))
    flipped = bytes(byte ^ (1 << random.randrange(8)) * (random.random() < 0.02) for byte in whole)
    odd = random.choice([b"\xff", b"\0", b"\xed\xa0\x80", b"\\ud800", b'"', b"\x1b", b"\xc0\xaf"])
    made.body = random.choice(
        [
            b"", whole[:cut], whole[cut:], whole[:cut] + odd + whole[cut:], flipped, whole * 2,
            random.randbytes(cut), whole[:-1] + b',"method":"ping","id":[],"params":{}}',
            b"\xef\xbb\xbf" + whole, whole.decode().encode("utf-16"), b" " * 100_000 + whole,
        ]
    )  # fmt: skip


def wrong_headers(random: Random, made: Frame, _: str, __: Message) -> None:
    for _number in range(random.randint(1, 3)):
        name, value = random.choice(NAMES), random.choice(ODD_HEADERS)
        if random.random() < 0.6:
            made.headers = [each for each in made.headers if each[0] != name]
        if random.random() < 0.8:
            made.headers.insert(random.randint(0, len(made.headers)), (name, value))


def wrong_method(random: Random, made: Frame, era: str, message: Message) -> None:
    made.method = random.choice(METHODS)
    if random.random() < 0.5:
        wrong_headers(random, made, era, message)
    if random.random() < 0.5:
        made.body = b""


def broken_off(random: Random, made: Frame, _: str, __: Message) -> None:
    chunk = b"%x\r\n%s\r\n" % (len(made.body), made.body)
    odd = [
        b"",
        chunk,
        chunk * 50,
        b"zz\r\n",
        b"-1\r\n",
        b"f" * 30 + b"\r\n",
        b"5\r\nab\r\n0\r\n\r\n",
    ]
    made.chunks, made.ends = random.choice([None, None, *odd]), False


def abandoned(_: Random, made: Frame, __: str, message: Message) -> None:
    # Only the server knows this session, which then lives until it has been idle for half an hour.
    made.waits = message["method"] == "initialize"


def too_large(random: Random, made: Frame, era: str, message: Message) -> None:
    if random.random() < 0.8:  # Make few of these: they take long.
        made.kind = wrong_params.__name__
        return wrong_params(random, made, era, message)
    made.body = dumped(message | {"extra": "k" * MAX_BODY_BYTES})
    if random.random() < 0.5:
        made.chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(made.body), made.body)
    return None


def unchanged(_: Random, __: Frame, ___: str, ____: Message) -> None:
    """A valid frame, among the others."""


Make = Callable[[Random, Frame, str, Message], None]
KINDS: list[Make] = [unchanged, wrong_params, wrong_envelope, wrong_params, other_json, abandoned]
KINDS += [no_json, wrong_params, wrong_headers, wrong_method, wrong_params, broken_off, too_large]
KINDS += [wrong_envelope, wrong_params]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


@dataclass
class RawClient:
    """Sends frames; frames of the older era use its session."""

    port: int
    token: str = ""
    session: str = field(default="", init=False)

    async def open_session(self) -> None:
        answer = await self.send(valid(LEGACY, *REQUESTS[0]))
        assert answer is not None
        self.session = answer.headers["mcp-session-id"]

    async def end_session(self) -> None:
        answer = await self.send(Frame(headers_of(LEGACY, "", {}), method="DELETE"))
        assert answer is not None
        assert answer.status == 200

    async def keep_one_session(self, made: Frame, answer: Answer) -> None:
        """After that frame: open the session again if the frame ended it, and end a session that it
        opened."""
        own, named = self.session, answer.headers.get("mcp-session-id")
        if made.method == "DELETE":
            await self.open_session()
        elif named not in (None, own):
            self.session = named
            await self.end_session()
            self.session = own

    async def send(self, made: Frame) -> Answer | None:
        """The answer; for an endless stream, its beginning; None if nothing was received."""
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", self.port))
            with suppress(ConnectionError):  # The server may refuse before it has read everything.
                await loop.sock_sendall(connection, made.to_bytes(self.session, self.token))
                if not made.ends:
                    connection.shutdown(socket.SHUT_WR)
            return await _received(connection, made) if made.waits else None


async def _received(connection: socket.socket, made: Frame) -> Answer | None:
    reading = h11.Connection(h11.CLIENT)
    reading.send(h11.Request(method=made.method, target="/", headers=[("Host", "")]))
    reading.send(h11.EndOfMessage())
    answer: Answer | None = None
    while True:
        event = reading.next_event()
        if event is h11.NEED_DATA:
            received = await asyncio.get_running_loop().sock_recv(connection, 2**16)
            if not received and answer is None:
                return None
            reading.receive_data(received)
        elif isinstance(event, h11.Response):
            headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
            answer = Answer(event.status_code, headers)
        elif answer is not None:
            answer.body += bytes(event.data) if isinstance(event, h11.Data) else b""
            if isinstance(event, h11.EndOfMessage):
                return answer
        if answer is not None and answer.is_stream and made.has_no_end(answer):
            return answer
