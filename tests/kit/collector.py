"""OpenTelemetry collector that stores the spans it receives (OTLP over HTTP, protobuf)."""

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.kit.waiting import wait_for


@dataclass(frozen=True)
class SpanSeen:
    """A received span; IDs are in hexadecimal."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    events: str
    """Event names and attributes, as text."""
    failed: bool
    status: str
    """Status description."""


class Collector:
    """Stores received spans. They are parsed only when read, so that receiving is cheap."""

    def __init__(self) -> None:
        self.url = ""
        self._received: list[bytes] = []

    def receive(self, body: bytes) -> None:
        self._received.append(body)

    @property
    def spans(self) -> list[SpanSeen]:
        """Return all spans in the order received."""
        return [span for body in self._received for span in _spans(body)]

    def wait(self, fits: Callable[[SpanSeen], bool], seconds: float = 30) -> SpanSeen:
        """Wait for a span that fits; return the first."""
        found = wait_for(lambda: next(filter(fits, self.spans), None), seconds, lambda: self.spans)
        assert found
        return found


def _spans(body: bytes) -> Iterator[SpanSeen]:
    if body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield SpanSeen(
                    service,
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _attributes(span.attributes),
                    str(span.events),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    span.status.message,
                )


def _attributes(given: object) -> dict[str, str]:
    found = {}
    for one in given:  # type: ignore[attr-defined]
        kind = one.value.WhichOneof("value")
        found[one.key] = str(getattr(one.value, kind)) if kind else ""
    return found


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector; its ``url`` is the traces endpoint."""
    running = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            running.receive(self.rfile.read(int(self.headers["content-length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
