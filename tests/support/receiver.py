"""A small HTTP server that receives notices."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import sqlalchemy as sa

from tests.support.calls import until
from tests.support.outside import opened

SECRET = "notices-are-signed-with-this"
PATH = "/services/T0000/part-of-the-address-that-must-never-be-seen"


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    content: bytes
    status: int
    """How it was answered."""

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.content)
        return found

    def is_signed(self, secret: str) -> bool:
        """True if the headers have Standard Webhooks' signature of exactly this content."""
        sent_as, at = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        signed = f"{sent_as}.{at}.".encode() + self.content
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        return self.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


class Receiver:
    """Answers each POST with `status`, and remembers it."""

    def __init__(self) -> None:
        self.status = 204
        self.headers: dict[str, str] = {}
        """Of the answers."""
        self.received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.status
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                receiver.received.append(Received(self.path, headers, content, status))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}{PATH}"

    @property
    def variables(self) -> dict[str, str]:
        """The settings of a server that sends its notices here."""
        return {
            "FIVETRAN_STATE_NOTIFY_URL": self.url,
            "FIVETRAN_STATE_NOTIFY_SECRET": SECRET,
        }

    @property
    def accepted(self) -> list[dict[str, Any]]:
        return [each.body for each in self.received if each.status == 204]

    def go_away(self) -> None:
        """Listen no more."""
        self.server.shutdown()
        self.server.server_close()

    async def has(self, count: int) -> list[Received]:
        """The first notices, as soon as there are so many."""

        async def there() -> bool:
            return len(self.received) >= count

        await until(there)
        return self.received[:count]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.go_away()
        thread.join()


async def delivered(environment: dict[str, str], count: int = 1) -> list[str]:
    """The ids of all notices, once so many have ended and none is under way."""

    async def found() -> list[str] | None:
        with opened(environment) as database:
            schema = "dbos." if database.dialect.name == "postgresql" else ""
            query = (
                f"SELECT workflow_uuid, status FROM {schema}workflow_status WHERE name = 'notice'"
            )
            rows = {row[0]: row[1] for row in database.execute(sa.text(query))}
        is_over = len(rows) >= count and set(rows.values()) == {"SUCCESS"}
        return sorted(rows) if is_over else None

    return await until(found)
