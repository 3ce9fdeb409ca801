"""Fivetran's REST API: the calls that this project needs, with typed errors and careful retries.

The source of every fact is Fivetran's public API reference and support pages, as of 2026-11.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import httpx
import stamina

from fivetran_state import __version__, large, network, state, tracing
from fivetran_state.errors import (
    FivetranError,
    FivetranUnavailable,
    InvalidRequest,
    NoStateYet,
    RateLimited,
    Unauthorized,
)
from fivetran_state.fivetran_answers import (
    Connection,
    RateLimit,
    data,
    is_cursor,
    label,
    rate_limit,
    refusal,
)
from fivetran_state.ids import is_connection_id
from fivetran_state.text import shown

logger = logging.getLogger(__name__)

MAX_SHORT_WAIT = 5.0
"""The longest Retry-After, in seconds, that a call waits for; the caller decides about longer ones.
"""

GROUPS_INTERVAL = 600.0
"""Seconds for which the names of groups are remembered."""
SHORT_TIMEOUT = 2.0
"""Seconds to wait for an answer that only helps."""

MAX_IDLE = 40
"""Connections that a client keeps open for its next calls: two for each member of a usual group."""
_MAX_CONNECTIONS = 100
_ATTEMPTS = 4
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
"""Errors before a request was sent, so that it had no effect."""


OnAnswer = Callable[[str, str, int | None, float], None]
"""Gets the method, the route, the status (None: no answer) and the seconds of each call."""


class Fivetran:
    """An asynchronous client for one account; use it on one event loop and `aclose` it.

    Every method raises `FivetranError` or one of its subclasses, never httpx's errors. Short faults
    are retried here: every fault of a GET, but of a PATCH only those that cannot have taken effect.
    So after `FivetranUnavailable(maybe_applied=True)`, read before trying again.
    """

    def __init__(
        self,
        url: str,
        key: str,
        secret: str,
        *,
        timeout: float = 75,
        max_idle: int = MAX_IDLE,
        transport: httpx.AsyncBaseTransport | None = None,
        on_answer: OnAnswer | None = None,
    ) -> None:
        self._url, self._transport, self._on_answer = url, transport, on_answer
        self._options: dict[str, Any] = {
            "base_url": url,
            "auth": (key, secret),
            "timeout": httpx.Timeout(timeout, connect=min(timeout, 10)),
            "headers": {
                "Accept": "application/json;version=2",
                "User-Agent": f"fivetran-state/{__version__}",
            },
        }
        self._http = self._new_client()
        # One connection each: for every request, httpx's pool looks at all of its connections, and
        # with 40 of them that takes four times as long as the request itself.
        self._idle = [self._http]
        self._max_idle = max_idle
        self._room = asyncio.Semaphore(_MAX_CONNECTIONS)
        self.limit: RateLimit | None = None
        """None until Fivetran has told it."""
        self._limit_told = asyncio.Event()
        self._is_closed = False
        self._group_names: dict[str, str] = {}
        self._ask_for_groups_at = 0.0
        self._asking_for_groups = asyncio.Lock()

    def _new_client(self) -> httpx.AsyncClient:
        if self._transport is None:
            return network.client(self._url, **self._options)
        return httpx.AsyncClient(transport=self._transport, **self._options)

    async def aclose(self) -> None:
        """Close the idle connections. Those of requests under way are closed after their answers."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().aclose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[httpx.AsyncClient]:
        async with self._room:
            http = self._idle.pop() if self._idle else self._new_client()
            try:
                yield http
            finally:
                if self._is_closed or len(self._idle) >= self._max_idle:
                    await http.aclose()
                else:
                    self._idle.append(http)

    async def get_account_id(self) -> str:
        """The account that the API key belongs to."""
        account_id = (await self._call("GET", "/v1/account/info")).get("account_id")
        if not isinstance(account_id, str) or not account_id:
            raise FivetranUnavailable("Fivetran's answer does not name an account.")
        return account_id

    async def accepts_key(self) -> bool:
        """True if Fivetran accepts the API key, or does not answer."""
        try:
            await self._call("GET", "/v1/account/info", attempts=1, timeout=SHORT_TIMEOUT)
        except Unauthorized:
            return False
        except FivetranError:
            return True
        return True

    async def hear_of_limit(self, seconds: float) -> None:
        """Return when an answer to any call has told the limit, or after `seconds`."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._limit_told.wait(), seconds)

    async def list_connections(
        self, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Connection], str | None]:
        """One page (1 to 1000) of the account's connections and the next page's cursor."""
        params = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        page = await self._call("GET", "/v1/connections", params=params)
        items, following = page.get("items"), page.get("next_cursor") or None
        if not isinstance(items, list):
            raise FivetranUnavailable("Fivetran's answer does not list connections.")
        if following is not None and not is_cursor(following):
            raise FivetranUnavailable("Fivetran's answer has an unusable next_cursor.")
        return [Connection.from_json(item) for item in items], following

    async def get_connection(self, connection_id: str) -> Connection:
        return Connection.from_json(await self._call("GET", _path(connection_id)))

    async def set_paused(self, connection_id: str, paused: bool) -> Connection:
        """Pause or resume the connection; harmless if it is already so.

        Without `run_setup_tests: false`, Fivetran would run the setup tests, which can take
        minutes.
        """
        body = {"paused": paused, "run_setup_tests": False}
        details = await self._call("PATCH", _path(connection_id), body=body)
        return Connection.from_json(details, changed=True)

    async def start_sync(self, connection_id: str) -> None:
        """Start a sync unless one is running."""
        await self._call("POST", f"{_path(connection_id)}/sync", body={"force": False})

    async def get_state(self, connection_id: str) -> state.Document:
        """The current state, usable or not; raises `NoStateYet` if there is none.

        Fivetran answers 400 for a service without state too, so call this only for a service that
        keeps one.
        """
        answer = await self._call("GET", f"{_path(connection_id)}/state")
        if "state" not in answer:
            raise FivetranUnavailable("Fivetran's answer does not contain a state.")
        document: state.Document | None = answer["state"]
        if document is None:
            raise NoStateYet(f"{connection_id} has no state yet.")
        return document

    async def get_state_or_none(self, connection: Connection) -> state.Document | None:
        """The current state; None if there is none yet, or if the service keeps none."""
        if not connection.keeps_state:
            return None
        try:
            return await self.get_state(connection.id)
        except NoStateYet:
            return None

    async def get_connection_and_state(
        self, connection_id: str
    ) -> tuple[Connection, state.Document | None]:
        """Both, requested at the same time; the state may be None as in `get_state_or_none`."""
        connection, document = await asyncio.gather(
            self.get_connection(connection_id),
            self.get_state(connection_id),
            return_exceptions=True,
        )
        if isinstance(connection, BaseException):
            raise connection
        if not connection.keeps_state or isinstance(document, NoStateYet):
            return connection, None
        if isinstance(document, BaseException):
            raise document
        return connection, document

    async def set_state(self, connection_id: str, document: state.State) -> state.Document | None:
        """Replace the whole state; returns the state that Fivetran says it keeps, if it says so.

        Raises `SyncRunning` when a sync is in progress.
        """
        answer = await self._call(
            "PATCH", f"{_path(connection_id)}/state", body={"state": document}
        )
        kept: state.Document | None = answer.get("state")
        return kept

    async def group_names(self) -> dict[str, str]:
        """Group id → name, for the account's first thousand groups, at most GROUPS_INTERVAL old.

        Names only help people: if Fivetran does not answer, the last known names are returned.
        """
        async with self._asking_for_groups:  # Callers at the same time wait for one answer.
            if time.monotonic() >= self._ask_for_groups_at:
                await self._ask_for_groups()
                self._ask_for_groups_at = time.monotonic() + GROUPS_INTERVAL
        return self._group_names

    async def _ask_for_groups(self) -> None:
        try:
            page = await self._call(
                "GET", "/v1/groups", params={"limit": "1000"}, attempts=1, timeout=SHORT_TIMEOUT
            )
            self._group_names = {
                label(group["id"]): label(group["name"]) for group in page["items"]
            }
        except (FivetranError, KeyError, TypeError) as error:
            logger.warning("Fivetran did not return the groups' names (%s)", type(error).__name__)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        attempts: int = _ATTEMPTS,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        request = self._http.build_request(
            method,
            path,
            params=params,
            content=None if body is None else await large.run(state.dump, body),
            headers=None if body is None else {"Content-Type": "application/json"},
            timeout=self._http.timeout if timeout is None else timeout,
        )
        return await _with_retries(lambda: self._send(request), attempts)

    async def _send(self, request: httpx.Request) -> dict[str, Any]:
        route, connection_id = _route(request.url.path)
        with tracing.call(request.method, route, request.url.host, connection_id):
            return await self._sent(request, route)

    async def _sent(self, request: httpx.Request, route: str) -> dict[str, Any]:
        changes = request.method != "GET"
        began, status = time.monotonic(), None
        try:
            async with self._connection() as http:
                response = await http.send(request)
                status = response.status_code
                tracing.describe(tracing.STATUS, status)
        except _NOT_SENT as error:
            why = (
                "its TLS certificate is not trusted; SSL_CERT_FILE can name a file of "
                "trusted certificates"
                if "CERTIFICATE_VERIFY_FAILED" in str(error)
                else type(error).__name__
            )
            raise FivetranUnavailable(f"Fivetran could not be reached ({why}).") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise FivetranUnavailable(
                f"Fivetran did not answer completely ({type(error).__name__}).",
                maybe_applied=changes or None,
            ) from error
        finally:
            if self._on_answer is not None:
                self._on_answer(request.method, route, status, time.monotonic() - began)
        if limit := rate_limit(response):
            self.limit = limit
            self._limit_told.set()
            self._limit_told = asyncio.Event()
        logger.debug("%s %s: %d", request.method, request.url.path, response.status_code)
        if response.is_success:
            return await large.run(data, response.content, changes)
        raise refusal(response, changes)


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    logger.warning("Trying again in %.1f s: %s", details.wait_for, details.caused_by)


stamina.instrumentation.set_on_retry_hooks([_log_retry])


async def _with_retries(
    send: Callable[[], Awaitable[dict[str, Any]]], attempts: int
) -> dict[str, Any]:
    async for attempt in stamina.retry_context(
        on=_is_worth_a_retry, attempts=attempts, wait_initial=0.2, wait_max=2, wait_jitter=0.2
    ):
        with attempt:
            return await send()
    raise AssertionError("unreachable")


def _is_worth_a_retry(error: Exception) -> bool | float:
    if isinstance(error, RateLimited):
        retry_after = error.details["retry_after"]
        return retry_after if retry_after <= MAX_SHORT_WAIT else False
    return isinstance(error, FivetranUnavailable) and not error.details.get("maybe_applied")


def _route(path: str) -> tuple[str, str | None]:
    """The path as Fivetran's reference names it, and the connection in it."""
    found = re.match("/v1/connections/([^/]+)", path)
    if found is None:
        return path, None
    return f"/v1/connections/{{connection_id}}{path[found.end() :]}", found[1]


def _path(connection_id: str) -> str:
    if not is_connection_id(connection_id):
        raise InvalidRequest(f"'{shown(connection_id)}' is not a connection id; nothing was sent.")
    return f"/v1/connections/{quote(connection_id, safe='')}"
