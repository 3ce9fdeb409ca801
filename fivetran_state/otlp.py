"""Exports traces by OTLP over HTTP. It needs the extra `otel`."""

import logging
import os
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import SpanContext, Status

from fivetran_state import __version__, tracing
from fivetran_state.text import shown

logger = logging.getLogger(__name__)

MAX_TEXT = 200
"""Characters of a name or an attribute; some come from callers."""
MAX_LINES = 10
"""Log lines of one process about its collector."""

ATTRIBUTES = frozenset(
    {
        tracing.WORKFLOW,
        tracing.OUTCOME,
        tracing.CONNECTION,
        tracing.STATUS,
        tracing.ERROR,
        "http.request.method",
        "http.route",
        "url.template",
        "server.address",
        # Of the MCP SDK's spans.
        "mcp.method.name",
        "mcp.protocol.version",
        "gen_ai.operation.name",
        "gen_ai.tool.name",
        "rpc.response.status_code",
    }
)
"""What leaves the process. No other attribute of any library does."""


def begin() -> None:
    """Make every span of this process one that is exported, as OpenTelemetry's variables say.

    If somebody else has begun to export spans, such as opentelemetry-instrument, they go on.
    """
    there = trace.get_tracer_provider()
    if isinstance(there, TracerProvider):
        if not isinstance(there.id_generator, _Ids):
            there.id_generator = _Ids(there.id_generator)
            logger.warning(
                "Something else exports the traces of this process, such as "
                "opentelemetry-instrument: they may hold texts of exceptions, queries and other "
                "texts that this program would leave out"
            )
        return  # Otherwise an earlier action of the same command has done so.
    # The exporter logs each failed try; `_Exporter` logs what matters of them.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    attributes = {SERVICE_VERSION: __version__}
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        attributes[SERVICE_NAME] = os.environ.get("OTEL_SERVICE_NAME") or "fivetran-state"
    provider = TracerProvider(
        resource=Resource.create(attributes),
        id_generator=_Ids(RandomIdGenerator()),
        shutdown_on_exit=False,  # It would wait for the collector; `tracing.end` does so for a while.
    )
    provider.add_span_processor(BatchSpanProcessor(_Exporter(OTLPSpanExporter())))
    trace.set_tracer_provider(provider)


class _Ids(RandomIdGenerator):
    """The ids that `tracing` has chosen, and otherwise those of another generator."""

    def __init__(self, others: IdGenerator) -> None:
        self._others = others

    def generate_span_id(self) -> int:
        return tracing.chosen_id.get() or self._others.generate_span_id()

    def generate_trace_id(self) -> int:
        return self._others.generate_trace_id()

    def is_trace_id_random(self) -> bool:
        return self._others.is_trace_id_random()


class _Exporter(SpanExporter):
    """Exports nothing but what is known to hold no state and no secret.

    Libraries put the text of exceptions into events and statuses.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_away = False
        self._lines = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export([_without_foreign_text(span) for span in spans])
        is_away = result is not SpanExportResult.SUCCESS
        if is_away != self._is_away and self._lines < MAX_LINES:
            self._lines += 1
            if is_away:
                logger.warning("Traces are lost: the collector does not take them")
            else:
                logger.info("The collector takes traces again")
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _without_foreign_text(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        name=shown(span.name, MAX_TEXT),
        context=_without_state(span.context),
        parent=_without_state(span.parent),
        resource=span.resource,
        attributes={
            name: shown(value, MAX_TEXT) if isinstance(value, str) else value
            for name, value in (span.attributes or {}).items()
            if name in ATTRIBUTES
        },
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_state(context: SpanContext | None) -> SpanContext | None:
    """The context without its `tracestate`, which is a caller's text."""
    if context is None:
        return None
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)
