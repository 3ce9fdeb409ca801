"""What Fivetran answers: checked, safe to show, or a typed error.

The source of every fact is Fivetran's public API reference and support pages, as of 2026-11.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import httpx

from fivetran_state import state
from fivetran_state.errors import (
    ConnectionNotFound,
    Facts,
    FivetranError,
    FivetranUnavailable,
    Forbidden,
    InvalidStateDocument,
    NoStateYet,
    RateLimited,
    StateNotKept,
    SyncRunning,
    Unauthorized,
)
from fivetran_state.text import shown, visible

STATEFUL_SERVICES = frozenset(
    {"aws_lambda", "azure_function", "google_cloud_function", "connector_sdk"}
)
"""The services that keep a state."""

MAX_LABEL_LENGTH = 200
MAX_CURSOR_LENGTH = 1000


@dataclass(frozen=True)
class RateLimit:
    """The account's calls an hour, and how many of them are left, as the last answer said."""

    limit: int
    remaining: int
    renewed_in: float = 0.0
    """Seconds until Fivetran takes calls again, if it refused that one."""

    @property
    def is_low(self) -> bool:
        """True if less than a tenth is left: what can wait should leave it to what cannot."""
        return self.remaining * 10 < self.limit


@dataclass(frozen=True)
class Connection:
    """One connection as `GET /v1/connections/{id}` shows it."""

    id: str
    service: str
    schema: str
    group_id: str
    paused: bool
    sync_state: str
    """`scheduled`, `syncing`, `paused` or `rescheduled`."""
    setup_state: str
    succeeded_at: str | None
    failed_at: str | None
    schedule_type: str = "auto"
    """`auto`, or `manual`: then no sync starts by itself."""
    is_historical_sync: bool = False
    """A historical re-sync is pending or running: it begins from an empty state."""

    @property
    def keeps_state(self) -> bool:
        return self.service in STATEFUL_SERVICES

    @property
    def is_drained(self) -> bool:
        """Paused, and no sync runs.

        `rescheduled` may last for hours, but runs nothing; `scheduled` is seen on broken connections.
        """
        return self.paused and self.sync_state in ("paused", "rescheduled", "scheduled")

    @property
    def never_syncs_by_itself(self) -> bool:
        return self.schedule_type == "manual"

    @classmethod
    def from_json(cls, details: Any, *, changed: bool = False) -> "Connection":
        """Parse Fivetran's description; every text is made safe to show.

        Raises `FivetranUnavailable` if this is not what Fivetran's reference describes. `changed`:
        this answers a change, which may have taken effect although the answer cannot be used.
        """
        try:
            if not isinstance(details["paused"], bool):
                raise TypeError("paused")
            return cls(
                id=label(details["id"]),
                service=label(details["service"]),
                schema=label(details.get("schema") or ""),
                group_id=label(details.get("group_id") or ""),
                paused=details["paused"],
                sync_state=label(details["status"]["sync_state"]),
                setup_state=label(details["status"].get("setup_state") or "unknown"),
                succeeded_at=label(details.get("succeeded_at") or "") or None,
                failed_at=label(details.get("failed_at") or "") or None,
                schedule_type=label(details.get("schedule_type") or "auto"),
                is_historical_sync=details["status"].get("is_historical_sync") is True,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise FivetranUnavailable(
                "Fivetran's answer does not describe a connection.", maybe_applied=changed or None
            ) from error


def label(text: object) -> str:
    """A short text, safe to show. Raises `TypeError` for anything else."""
    if not isinstance(text, str):
        raise TypeError(type(text).__name__)
    return shown(text, MAX_LABEL_LENGTH)


def is_cursor(text: object) -> bool:
    """True if the text can be a cursor of Fivetran's list."""
    return isinstance(text, str) and 0 < len(text) <= MAX_CURSOR_LENGTH and visible(text) == text


def data(content: bytes, changes: bool) -> dict[str, Any]:
    """The `data` of a success; `changes`: the request was one that changes something."""
    try:
        found = state.parse_answer(content).get("data")
    except state.InvalidState as error:
        if not changes and len(content) > state.MAX_ANSWER_BYTES:
            raise InvalidStateDocument(f"Fivetran's answer is too large: {error}.") from error
        raise FivetranUnavailable(
            "Fivetran's answer does not match its reference.", maybe_applied=changes or None
        ) from error
    return found if isinstance(found, dict) else {}


def refusal(response: httpx.Response, changes: bool) -> FivetranError:
    """The typed error for an answer that is not a success."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = {}
    status = response.status_code
    details: Facts = {
        "status": status,
        "fivetran_code": shown(str(body["code"]), 100) if body.get("code") else None,
        "fivetran_message": shown(str(body["message"]), 500) if body.get("message") else None,
    }
    what = f"{response.request.method} {response.request.url.path}"
    says = details["fivetran_message"] or f"HTTP {status}"
    if status == 429:
        details["retry_after"] = _retry_after(response)
        return RateLimited("Fivetran's request limit is used up.", **details)
    if status >= 500 or status in (408, 425):
        details["maybe_applied"] = changes or None
        return FivetranUnavailable(f"Fivetran answered {status} to {what}.", **details)
    on_state = response.request.url.path.endswith("/state")
    refusals: dict[int, type[FivetranError]] = {
        401: Unauthorized,
        403: Forbidden,
        404: ConnectionNotFound,
        405: StateNotKept if on_state else FivetranError,
        409: SyncRunning if changes else FivetranError,
        400: NoStateYet if on_state and not changes else FivetranError,
    }
    error = refusals.get(status, FivetranError)(f"Fivetran refused {what}: {says}", **details)
    error.is_live = True
    return error


def rate_limit(response: httpx.Response) -> RateLimit | None:
    """None if the answer does not tell it."""
    headers = response.headers
    # Fivetran's documents have both spellings.
    limit = headers.get("X-Rate-Limit-Limit", headers.get("X-Rate-Limit", ""))
    remaining = headers.get("X-Rate-Limit-Remaining", "")
    if re.fullmatch("[0-9]{1,9}", limit) and re.fullmatch("[0-9]{1,9}", remaining):
        renewed_in = _retry_after(response) if response.status_code == 429 else 0.0
        return RateLimit(int(limit), int(remaining), renewed_in)
    return None


def _retry_after(response: httpx.Response) -> float:
    """Seconds; Fivetran gives whole ones, up to an hour."""
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return 1.0
    return 1.0 if math.isnan(seconds) else min(max(seconds, 0.0), 86_400.0)
