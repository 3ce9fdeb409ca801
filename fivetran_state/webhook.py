"""Sends notices to the address that the operator has set, signed as Standard Webhooks are.

The address may hold a secret, as Slack's does. No error, log line or answer shows it.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Literal

import httpx

from fivetran_state import __version__, network
from fivetran_state.config import Settings, signing_key
from fivetran_state.errors import UnusableSettings
from fivetran_state.notices import Notice, as_json, as_slack
from fivetran_state.pages import Pages

TIMEOUT = 15.0
"""Seconds for one try, from the connection to the status of the answer."""
_MAY_PASS = (408, 429)
"""Refusals that a later try may not meet."""


@dataclass(frozen=True)
class Tried:
    """What became of one try."""

    how: Literal["accepted", "refused", "failed"]
    """`failed`: a later try may succeed."""
    why: str
    """The status of the answer, or the kind of failure."""


class Webhook:
    """The operator's address for notices, if there is one."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.notify_url
        self._secret = settings.notify_secret
        self._format = settings.notify_format
        self._pages = Pages(settings.public_url)

    async def send(self, notice: Notice, id_: str) -> Tried:
        """Try once. A receiver tells repeated notices by their `id_`."""
        if self._url is None:
            return Tried("failed", "FIVETRAN_STATE_NOTIFY_URL is not set")
        told = (
            as_slack(notice, self._pages)
            if self._format == "slack"
            else as_json(notice, id_, self._pages)
        )
        body = json.dumps(told).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"fivetran-state/{__version__}",
            **self._signature(id_, body),
        }
        try:
            post = _status_of_post(self._url.get_secret_value(), body, headers)
            status = await asyncio.wait_for(post, TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, asyncio.TimeoutError) as error:
            return Tried("failed", type(error).__name__)
        except UnusableSettings as error:
            return Tried("failed", error.message)
        if 200 <= status < 300:
            return Tried("accepted", f"HTTP {status}")
        is_final = 400 <= status < 500 and status not in _MAY_PASS
        return Tried("refused" if is_final else "failed", f"HTTP {status}")

    def _signature(self, id_: str, body: bytes) -> dict[str, str]:
        if self._secret is None:
            return {}
        now = int(time.time())
        return {
            "webhook-id": id_,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(self._secret.get_secret_value(), id_, now, body),
        }


def signature(secret: str, id_: str, at: int, body: bytes) -> str:
    """The signature of Standard Webhooks; `at` is in seconds since the epoch."""
    signed = f"{id_}.{at}.".encode() + body
    digest = hmac.new(signing_key(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


async def _status_of_post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status of the answer, whose body is not read. Redirects are not followed."""
    async with (
        network.client(url, timeout=TIMEOUT) as client,
        client.stream("POST", url, content=body, headers=headers) as response,
    ):
        return response.status_code
