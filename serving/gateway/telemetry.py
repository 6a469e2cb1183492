"""Request telemetry: durations, error counts and OpenTelemetry spans.

Attribute names follow OpenTelemetry's semantic conventions for HTTP (1.23 and later). Spans are
disabled unless ``serving.tracing.trace_target`` returns a target. They hold no prompt or profile.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.gateway.errors import GatewayError
from serving.gateway.metrics import Metrics
from serving.tracing import TraceTarget

SERVICE = "routine-gateway"
"""Default service name in traces; OTEL_SERVICE_NAME overrides it."""
EXPORT_SWITCH_SECONDS = 0.0002
CLOSE_SECONDS = 2.0

_PROPAGATOR = TraceContextTextMapPropagator()
_NO_SPAN = nullcontext(INVALID_SPAN)


def make_provider(target: TraceTarget | None) -> TracerProvider | None:
    """Create a provider that exports spans in background batches; None if ``target`` is None.

    The SDK reads further OTEL_* variables (sampler, resource attributes, batches).
    """
    if target is None:
        return None
    exporter: SpanExporter
    if target.protocol == "grpc":
        exporter = GrpcExporter(target.endpoint)
    else:
        exporter = HttpExporter(target.endpoint)
    # Encoding a batch is CPU-bound for many milliseconds. A switch interval below Python's
    # default of 5 ms lets requests take the GIL back sooner.
    sys.setswitchinterval(EXPORT_SWITCH_SECONDS)
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Stage:
    """Context manager returned by ``Telemetry.stage``."""

    def __init__(self, metrics: Metrics, name: str, adapter: str, is_traced: bool) -> None:
        self._metrics, self._name, self._adapter = metrics, name, adapter
        self._is_traced = is_traced

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._start
        self._metrics.stages[self._name].labels(self._adapter).observe(seconds)
        if isinstance(error, GatewayError) and error.engine_error:
            self._metrics.engine_errors.labels(self._adapter, error.engine_error).inc()
        if self._is_traced:
            span = trace.get_current_span()
            span.set_attribute(f"routine.{self._adapter}.{self._name}.seconds", seconds)


class Telemetry:
    """Metrics and traces in one place, so that both measure the same intervals.

    Args:
        metrics: the metrics to update.
        traces: trace export target; None disables tracing.
    """

    def __init__(self, metrics: Metrics, traces: TraceTarget | None) -> None:
        self.metrics, self._provider = metrics, make_provider(traces)
        self._tracer = self._provider.get_tracer(__name__) if self._provider else None

    async def close(self) -> None:
        """Flush pending spans, with a time limit so that an unreachable collector does not delay
        shutdown."""
        if self._provider:
            ending = threading.Thread(target=self._provider.shutdown, daemon=True)
            ending.start()
            await asyncio.to_thread(ending.join, CLOSE_SECONDS)

    def request(self, name: str, ids: Mapping[str, str]) -> AbstractContextManager[Span]:
        """Start a request's server span as the current span.

        Args:
            name: span name until the route is known; empty for no span.
            ids: the request's id headers, with the caller's ``traceparent`` if present.
        """
        if not self._tracer or not name:
            return _NO_SPAN
        attributes = {"request.id": ids["x-request-id"]}
        context = _PROPAGATOR.extract(ids)
        span = self._tracer.start_span(name, context, SpanKind.SERVER, attributes)
        return trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        )

    def stage(self, name: str, adapter: str) -> Stage:
        """Measure a stage of a request: its duration, also as an attribute of the current span, and
        its engine errors.

        Args:
            name: stage name; a key of ``Metrics.stages``.
            adapter: the requested adapter.
        """
        return Stage(self.metrics, name, adapter, is_traced=self._tracer is not None)


def inject(headers: dict[str, str], span: Span) -> None:
    """Make ``span`` the parent of requests sent with ``headers``, if it is recorded."""
    if span.get_span_context().is_valid:
        _PROPAGATOR.inject(headers, trace.set_span_in_context(span))


def describe(span: Span, method: str, route: str, status: int) -> None:
    """Set a request span's name, attributes and status."""
    span.update_name(f"{method} {route}")
    span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        }
    )
    if status >= 500:
        span.set_status(StatusCode.ERROR)
