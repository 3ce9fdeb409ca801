"""A collector of traces: an OTLP/HTTP receiver that remembers what it gets."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.calls import until


@dataclass(frozen=True)
class Span:
    trace_id: str
    id: str
    parent: str
    """The parent's id; empty for the first span of a trace."""
    name: str
    kind: int
    service: str
    attributes: dict[str, str]
    has_failed: bool
    start: int
    end: int


@dataclass
class Tree:
    """A span with the spans below it, in the order of their starts."""

    span: Span
    below: list["Tree"] = field(default_factory=list)

    def named(self, name: str) -> list["Tree"]:
        """Every span of this name, at any depth."""
        deeper = [found for each in self.below for found in each.named(name)]
        return [self, *deeper] if self.span.name == name else deeper

    @property
    def names(self) -> list[str]:
        """The names of the spans right below."""
        return [each.span.name for each in self.below]


class Collector:
    """Takes spans at `url`."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a process that sends its spans here, soon after they end."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "20"}

    @property
    def spans(self) -> list[Span]:
        found = []
        for body in list(self.bodies):
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = {
                    each.key: each.value.string_value for each in of_resource.resource.attributes
                }
                for of_scope in of_resource.scope_spans:
                    found += [
                        Span(
                            trace_id=span.trace_id.hex(),
                            id=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            name=span.name,
                            kind=span.kind,
                            service=resource["service.name"],
                            attributes={
                                each.key: each.value.string_value or str(each.value.int_value)
                                for each in span.attributes
                            },
                            has_failed=span.status.code == 2,
                            start=span.start_time_unix_nano,
                            end=span.end_time_unix_nano,
                        )
                        for span in of_scope.spans
                    ]
        return found

    async def has(self, wanted: Callable[[list[Span]], bool]) -> list[Span]:
        """All spans, as soon as this is true of them."""

        async def there() -> bool:
            return wanted(self.spans)

        await until(there)
        return self.spans

    async def trace(self, *names: str, id_: str | None = None) -> Tree:
        """The only trace with spans of all these names (and this id), as soon as it is whole."""

        def found(spans: list[Span]) -> list[list[Span]]:
            return _whole([span for span in spans if id_ in (None, span.trace_id)], names)

        [spans] = found(await self.has(lambda spans: bool(found(spans))))
        return tree_of(spans)


def _whole(spans: list[Span], names: tuple[str, ...]) -> list[list[Span]]:
    """The traces with spans of all these names, of which no span's parent is missing."""
    traces: dict[str, list[Span]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    return [
        trace
        for trace in traces.values()
        if {span.parent for span in trace} - {span.id for span in trace} <= {"", CALLER}
        and set(names) <= {span.name for span in trace}
    ]


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
"""Of a caller that has a trace of its own."""


def tree_of(spans: list[Span]) -> Tree:
    """The tree of one trace's spans. Fails if there are several, or if an id is there twice."""
    trees = {span.id: Tree(span) for span in sorted(spans, key=lambda span: span.start)}
    assert len(trees) == len(spans), "a span was exported twice"
    tops = []
    for tree in trees.values():
        above = trees.get(tree.span.parent)
        if above is None:
            tops.append(tree)
        else:
            above.below.append(tree)
    [top] = tops
    return top


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()
