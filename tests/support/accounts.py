"""Several accounts of Fivetran behind one URL."""

import base64
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from fivetran_state.sandbox import Sandbox


class Accounts(Sandbox):
    """A sandbox with other accounts beside it. As at Fivetran, the credentials select the account.

    `used` are the API keys of all requests, in order.
    """

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.used: list[str] = []
        self._keys: dict[str, tuple[str, Sandbox]] = {}

    def add(self, key: str, secret: str, account: Sandbox) -> None:
        """Adds this key to that account."""
        self._keys[_basic(key, secret)] = key, account

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get("Authorization", "")
        key, account = self._keys.get(given, (None, None))
        if account is None or key is None:
            await super().app(scope, receive, send)
            return
        self.used.append(key)
        own = _basic(account.api.api_key, account.api.api_secret).encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
        door = super().app if account is self else account.app
        await door({**scope, "headers": [*headers, (b"authorization", own)]}, receive, send)


def _basic(key: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{key}:{secret}".encode()).decode()
