"""Traces: from a caller's request over its update, each step and each call to Fivetran.

OpenTelemetry's own variables switch them on. Without these, nothing of OpenTelemetry is imported
here. A workflow may be killed and go on in another process, so the trace context is stored with
it, and the id of its span is derived from that: each process knows it. That span itself is
exported at the workflow's end, by the process that ends it.
"""

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

from fivetran_state.errors import FivetranStateError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, Tracer

Value = str | int
Attributes = Mapping[str, Value]

WORKFLOW = "fivetran_state.workflow.id"
OUTCOME = "fivetran_state.outcome"
CONNECTION = "fivetran.connection.id"
STATUS = "http.response.status_code"
ERROR = "error.type"

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTERS = "OTEL_TRACES_EXPORTER"

LAST_WORDS = 2.0
"""Seconds that the last spans get to leave the process at its end."""

chosen_id: ContextVar[int | None] = ContextVar("chosen_id", default=None)
"""The id of the span that is started next, if it is not random."""


def _variable(*names: str) -> str:
    """The first of these variables that is set."""
    found = (os.environ.get(name, "").strip() for name in names)
    return next((value for value in found if value), "")


@cache
def is_on() -> bool:
    """True if OpenTelemetry's variables ask for traces."""
    if _variable("OTEL_SDK_DISABLED").lower() == "true":
        return False
    exporters = _variable(EXPORTERS)
    return exporters != "none" if exporters else bool(_variable(*ENDPOINTS))


def unusable() -> str | None:
    """Why OpenTelemetry's variables cannot be followed, if that is so."""
    protocol = _variable(*PROTOCOLS)
    if _variable(EXPORTERS) in ("", "otlp") and protocol in ("", "http/protobuf"):
        return None
    return f"{EXPORTERS} has to be otlp, and {PROTOCOLS[1]} http/protobuf"


def end() -> None:
    """Export what is left, within `LAST_WORDS` seconds."""
    if not is_on():
        return
    from opentelemetry import trace

    flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush is not None:
        # Only a thread can be left behind: the exporter heeds no time limit of a flush.
        last = threading.Thread(target=flush, daemon=True)
        last.start()
        last.join(LAST_WORDS)


def ids() -> dict[str, str]:
    """The ids of the present trace and span, for log lines; empty if there are none."""
    if not is_on():
        return {}
    from opentelemetry import trace

    here = trace.get_current_span().get_span_context()
    if not here.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(here.trace_id),
        "span_id": trace.format_span_id(here.span_id),
    }


def present() -> str | None:
    """The present span as a W3C `traceparent`, to be stored; None if there is none."""
    if not (found := ids()):
        return None
    from opentelemetry import trace

    flags = trace.get_current_span().get_span_context().trace_flags
    return f"00-{found['trace_id']}-{found['span_id']}-{flags:02x}"


def describe(name: str, value: Value) -> None:
    """Set an attribute of the present span."""
    if is_on():
        from opentelemetry import trace

        trace.get_current_span().set_attribute(name, value)


@contextmanager
def request(traceparent: str | None) -> Iterator[None]:
    """The span of an HTTP request, which continues the caller's trace if `traceparent` names one."""
    if not is_on():
        yield
        return
    from opentelemetry.trace import SpanKind

    with _span("HTTP", SpanKind.SERVER, {}, _extracted(traceparent)):
        yield


def answered(method: str, route: str, status: int | None) -> None:
    """Describe the present span of an HTTP request by its route and its answer."""
    if not is_on():
        return
    from opentelemetry import trace

    span = trace.get_current_span()
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route})
    if status is not None:
        span.set_attribute(STATUS, status)
    if status is None or status >= 500:
        span.set_status(trace.StatusCode.ERROR)


@contextmanager
def command(name: str) -> Iterator[None]:
    """The span of a command in the shell."""
    if not is_on():
        yield
        return
    from opentelemetry.trace import SpanKind

    with _span(f"fivetran-state {name}", SpanKind.INTERNAL, {}):
        yield


@contextmanager
def step(name: str, workflow_id: str) -> Iterator[None]:
    """The span of a step of a workflow, if that is part of a trace."""
    if not ids():
        yield
        return
    from opentelemetry.trace import SpanKind

    with _span(name, SpanKind.INTERNAL, {WORKFLOW: workflow_id}):
        yield


@contextmanager
def call(method: str, route: str, host: str, connection_id: str | None) -> Iterator[None]:
    """The span of a call to Fivetran, if that is part of a trace."""
    if not ids():
        yield
        return
    from opentelemetry.trace import SpanKind

    attributes: dict[str, Value] = {
        "http.request.method": method,
        "url.template": route,
        "server.address": host,
    }
    if connection_id is not None:
        attributes[CONNECTION] = connection_id
    with _span(f"{method} {route}", SpanKind.CLIENT, attributes):
        yield


@contextmanager
def continued(stored: str | None) -> Iterator[None]:
    """Continue the trace that was stored, if there is one."""
    context = _extracted(stored) if is_on() else None
    if context is None:
        yield
        return
    from opentelemetry import context as contexts

    token = contexts.attach(context)
    try:
        yield
    finally:
        contexts.detach(token)


@contextmanager
def workflow(
    name: str, workflow_id: str, stored: str | None, began: float | None, attributes: Attributes
) -> Iterator[dict[str, Value]]:
    """The span of a workflow, a child of the stored span, over all of its runs.

    `began`: when, in seconds since the epoch. The caller may fill in attributes of the end. A run that
    is broken off exports no span: another one goes on.
    """
    facts: dict[str, Value] = {WORKFLOW: workflow_id, **attributes}
    parent = _extracted(stored) if is_on() else None
    if parent is None:
        yield facts
        return
    from opentelemetry import trace

    above = trace.get_current_span(parent).get_span_context()
    own = hashlib.sha256(f"{above.trace_id:032x} {workflow_id}".encode()).digest()[:8]
    here = trace.SpanContext(
        above.trace_id, int.from_bytes(own, "big"), is_remote=True, trace_flags=above.trace_flags
    )

    def ended(error: Exception | None = None) -> None:
        token = chosen_id.set(here.span_id)
        start = time.time() if began is None else began
        span = _tracer().start_span(
            name, context=parent, attributes=facts, start_time=round(start * 1e9)
        )
        chosen_id.reset(token)
        if error is not None:
            _failed(span, error)
        span.end()

    try:
        # It keeps no exception's text, since it records nothing.
        with trace.use_span(trace.NonRecordingSpan(here)):
            yield facts
    except Exception as error:
        ended(error)
        raise
    ended()


@contextmanager
def _span(
    name: str, kind: "SpanKind", attributes: Attributes, context: "Context | None" = None
) -> Iterator[None]:
    with _tracer().start_as_current_span(
        name,
        context=context,
        kind=kind,
        attributes=attributes,
        record_exception=False,  # An exception's text may quote a state.
        set_status_on_exception=False,
    ) as span:
        try:
            yield
        except BaseException as error:
            _failed(span, error)
            raise


def _failed(span: "Span", error: BaseException) -> None:
    from opentelemetry.trace import StatusCode

    code = error.code if isinstance(error, FivetranStateError) else type(error).__qualname__
    span.set_attribute(ERROR, code)
    span.set_status(StatusCode.ERROR)


def _tracer() -> "Tracer":
    from opentelemetry import trace

    return trace.get_tracer("fivetran-state")


def _extracted(traceparent: str | None) -> "Context | None":
    """The context that this names; None if it is not a valid `traceparent`."""
    if traceparent is None:
        return None
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    return context if trace.get_current_span(context).get_span_context().is_valid else None
