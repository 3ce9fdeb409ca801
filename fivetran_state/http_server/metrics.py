"""Figures for Prometheus, at `/metrics`.

Counters and histograms are of this process; the gauges are of the whole account. No label names a
connection, a caller or an id, so that there are few series, however long the server runs.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator

from fastapi import APIRouter, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.types import Scope

from fivetran_state.access import READ
from fivetran_state.errors import FivetranStateError, codes
from fivetran_state.events import Event, Name
from fivetran_state.http_server.gate import requires
from fivetran_state.http_server.paths import METRICS
from fivetran_state.service.gauges import Now
from fivetran_state.startup import Backend

HOLDS_FOR = 5.0
"""Seconds for which the gauges are kept: several Prometheus servers may ask one after the other."""
OTHER = "other"
_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
_QUICK = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400)
_DECISIONS = (Name.PROPOSED, Name.APPROVED, Name.REJECTED, Name.WITHDRAWN, Name.EXPIRED)
_RECOVERIES = (Name.TAKEN_OVER, Name.GIVEN_UP, Name.HANDED_OVER)


class Metrics:
    """Counts events, calls and requests: an `events.Listener`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._paths: Collection[str] = ()
        ProcessCollector(registry=self.registry)
        self._updates = self._counter("updates", "Ended updates.", "outcome", "error")
        for code in codes():
            # Prometheus sees an increase only of a series that has been there before.
            self._updates.labels("failed", code)
        self._phases = self._histogram("phase_seconds", "Recorded steps.", _QUICK, "phase")
        self._paused = self._histogram("paused_seconds", "From a pause to the resume.", _LONG)
        self._failures = self._counter("step_failures", "Failed steps.", "phase", "error")
        self._groups = self._counter("groups", "Ended groups.", "outcome")
        self._proposals = self._counter("proposals", "Proposals, by what became of them.", "how")
        self._refusals = self._counter("refusals", "Refused changes and decisions.", "error")
        self._recoveries = self._counter("recoveries", "Updates that changed their process.", "how")
        self._looks = self._counter("looks", "Looks of the watcher.", "outcome")
        self._lost = self._counter("audit_lost", "Events that the audit file lacks.")
        self._calls = self._counter(
            "fivetran_calls", "Calls to Fivetran.", "method", "route", "status"
        )
        self._call_seconds = self._histogram(
            "fivetran_call_seconds", "Calls to Fivetran.", _QUICK, "method", "route"
        )
        self._requests = self._counter("requests", "HTTP requests.", "method", "route", "status")
        self._request_seconds = self._histogram(
            "request_seconds", "HTTP requests, with the time that they wait.", _QUICK, "route"
        )

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"fivetran_state_{name}", about, labels, registry=self.registry)

    def _histogram(
        self, name: str, about: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"fivetran_state_{name}", about, labels, buckets=buckets, registry=self.registry
        )

    def count_sessions(self, count: Callable[[], int]) -> None:
        """Show the number of open MCP sessions."""
        gauge = Gauge("fivetran_state_sessions", "Open MCP sessions.", registry=self.registry)
        gauge.set_function(count)

    def know_paths(self, paths: Collection[str]) -> None:
        """Count requests of these paths by them. Those of FastAPI's routes are known by the route."""
        self._paths = paths

    def on_event(self, event: Event) -> None:
        match event.name:
            case Name.ENDED:
                self._updates.labels(event.outcome, event.error or "").inc()
            case Name.STEP_FAILED:
                self._failures.labels(event.phase, event.error).inc()
            case Name.GROUP_ENDED:
                self._groups.labels(event.outcome).inc()
            case Name.REFUSED:
                self._refusals.labels(event.error).inc()
            case Name.LOOKED:
                self._looks.labels(event.outcome).inc()
            case name if name in _DECISIONS:
                self._proposals.labels(name.value.partition(".")[2]).inc()
            case name if name in _RECOVERIES:
                self._recoveries.labels(name.value).inc()
        if event.phase is not None and event.seconds is not None:
            self._phases.labels(event.phase).observe(event.seconds)
        if event.paused_seconds is not None:
            self._paused.observe(event.paused_seconds)

    def on_call(self, method: str, route: str, status: int | None, seconds: float) -> None:
        self._calls.labels(method, route, "none" if status is None else str(status)).inc()
        self._call_seconds.labels(method, route).observe(seconds)

    def on_lost_entry(self) -> None:
        self._lost.inc()

    def named(self, scope: Scope) -> tuple[str, str]:
        """The method and the route of a request, once it is answered; neither is a caller's text."""
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        path = scope["path"] if scope["path"] in self._paths else OTHER
        return method, str(getattr(scope.get("route"), "path", path))

    def on_request(self, scope: Scope, status: int | None, seconds: float) -> None:
        """Count a request when it has been answered, or broken off (`status` is None)."""
        method, route = self.named(scope)
        self._requests.labels(method, route, "none" if status is None else str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)


class _Present(Collector):
    """The gauges; only `ready` if the server is not."""

    def __init__(self) -> None:
        self.now: Now | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _gauge("ready", "1 if updates can be made.", float(self.now is not None))
        if self.now is None:
            return
        now = self.now
        yield _gauge(
            "updates_running", "Updates that run, or wait for recovery.", now.updates_running
        )
        yield _gauge("groups_running", "Groups that run.", now.groups_running)
        yield _gauge(
            "proposals_waiting", "Proposals that wait for a person.", now.proposals_waiting
        )
        yield _gauge(
            "members_waiting", "Members of groups that wait here for a slot.", now.members_waiting
        )
        yield _gauge(
            "connections_paused", "Connections that running updates hold paused.", now.paused
        )
        yield _gauge(
            "connections_paused_longest_seconds",
            "How long the first of them is.",
            now.paused_seconds,
        )
        yield _gauge(
            "connections_left_paused",
            "Connections that ended updates left paused.",
            now.left_paused,
        )
        if now.watcher_lag is not None:
            yield _gauge(
                "watcher_lag_seconds", "Since the last complete look began.", now.watcher_lag
            )
        if now.limit is not None:
            yield _gauge("fivetran_limit", "Fivetran's calls an hour.", now.limit.limit)
            yield _gauge("fivetran_remaining", "What is left of them.", now.limit.remaining)


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fivetran_state_{name}", about, value)


def router(backend: Backend, metrics: Metrics) -> APIRouter:
    """`/metrics`, for callers with the scope read or the token for it alone."""
    routes = APIRouter(include_in_schema=False)
    present = _Present()
    metrics.registry.register(present)
    one_look_at_a_time = asyncio.Lock()
    look_again_at = 0.0

    @routes.get(METRICS, dependencies=[requires(READ)])
    async def scrape() -> Response:
        nonlocal look_again_at
        async with one_look_at_a_time:
            if time.monotonic() >= look_again_at:
                try:
                    present.now = await (await backend.service()).gauges.now()
                except FivetranStateError:
                    present.now = None
                look_again_at = time.monotonic() + HOLDS_FOR
        return Response(
            generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        )

    return routes
