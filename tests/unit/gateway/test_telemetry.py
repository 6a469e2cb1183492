"""Spans of the gateway, as a collector gets them."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serving.gateway.app import create_app
from serving.gateway.errors import EngineTimeout
from serving.gateway.settings import GatewaySettings
from serving.gateway.telemetry import CLOSE_SECONDS, make_provider
from serving.process import StartError
from serving.tracing import TraceTarget, trace_target
from tests.kit.bad_requests import GOOD
from tests.kit.collector import SpanSeen, collector
from tests.unit.gateway.fake_engine import HERE, FakeEngine, completion_body, factory, wait_ready

RATE = "/gen/routine/rate"
JSON = {"content-type": "application/json"}
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID, CALLER_ID = CALLER.split("-")[1:3]
EXPORT_SECONDS = 10
"""How long OpenTelemetry waits for a collector, unless told otherwise."""


@pytest.fixture(autouse=True)
def _no_exporter_is_left() -> Iterator[None]:
    """One that still tries draws its pauses from ``random``. If that is while Hypothesis draws a
    value for another test, Hypothesis blames that test."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("Otel"):
            thread.join(2 * EXPORT_SECONDS)
            assert not thread.is_alive()


def test_a_request_is_a_span_within_the_caller_s_trace(
    engine: FakeEngine, settings: GatewaySettings
) -> None:
    with collector() as seen:
        app = create_app(settings, factory(engine), traces=TraceTarget(seen.url, "http/protobuf"))
        with TestClient(app, HERE, raise_server_exceptions=False) as client:
            wait_ready(client)
            response = client.post(RATE, json=GOOD, headers={"traceparent": CALLER})
            passed_on = engine.calls[-1].headers["traceparent"].split("-")
            engine.error = EngineTimeout("x")
            client.post(RATE, json=GOOD)
            engine.error, engine.content_type = None, "text/event-stream"
            client.post("/v1/completions", content=completion_body(), headers=JSON)
    (server,) = (span for span in seen.spans if span.trace_id == TRACE_ID)
    assert server.name == f"POST {RATE}"
    assert server.parent_id == CALLER_ID
    assert server.service == "routine-gateway"
    assert server.attributes["http.response.status_code"] == "200"
    assert server.attributes["request.id"] == response.headers["x-request-id"]
    for stage in ("queue", "engine", "check"):
        assert 0 < float(server.attributes[f"routine.rate.{stage}.seconds"]) < 5
    assert passed_on[1:3] == [TRACE_ID, server.span_id]
    assert response.headers["traceparent"].split("-")[1:3] == [TRACE_ID, server.span_id]
    assert not server.failed
    (failed,) = (span for span in seen.spans if span.failed)
    assert failed.name == f"POST {RATE}"
    assert not failed.parent_id  # nobody called it: its trace begins here
    relayed = next(span for span in seen.spans if span.name == "POST /v1/completions")
    assert "routine.rate.engine.seconds" in relayed.attributes
    assert not [span for span in seen.spans if "readyz" in span.name]
    assert not _leaks(seen.spans)


def _leaks(spans: list[SpanSeen]) -> list[SpanSeen]:
    return [span for span in spans if "남성" in str(span) or "rm_weight" in str(span)]


def test_a_collector_that_is_away_holds_up_neither_requests_nor_the_end(
    engine: FakeEngine, settings: GatewaySettings
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        away = TraceTarget(url, "http/protobuf")
        with TestClient(create_app(settings, factory(engine), traces=away), HERE) as client:
            wait_ready(client)
            for _ in range(3):
                start = time.monotonic()
                assert client.post(RATE, json=GOOD).status_code == 200
                assert time.monotonic() - start < EXPORT_SECONDS / 2
            start = time.monotonic()
        assert time.monotonic() - start < 10 * CLOSE_SECONDS


def test_opentelemetry_s_variables_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    target = TraceTarget("http://127.0.0.1:9/v1/traces", "http/protobuf")

    def name() -> object:
        provider = make_provider(target)
        assert provider
        provider.shutdown()
        return provider.resource.attributes["service.name"]

    assert name() == "routine-gateway"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=theirs,team=x")
    assert name() == "theirs"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    assert name() == "ours"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"TRACES_EXPORTER": "none", "EXPORTER_OTLP_ENDPOINT": "http://a:1"}, None),
        ({"SDK_DISABLED": "true", "EXPORTER_OTLP_ENDPOINT": "http://a:1"}, None),
        ({"TRACES_EXPORTER": "otlp"}, ("http://localhost:4317", "grpc")),
        ({"EXPORTER_OTLP_ENDPOINT": "http://a:1"}, ("http://a:1", "grpc")),
        (
            {"TRACES_EXPORTER": "otlp", "EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            ("http://localhost:4318/v1/traces", "http/protobuf"),
        ),
        (
            {"EXPORTER_OTLP_ENDPOINT": "http://a:1/", "EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            ("http://a:1/v1/traces", "http/protobuf"),
        ),
        (
            {
                "EXPORTER_OTLP_ENDPOINT": "http://a:1",
                "EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2/x",
                "EXPORTER_OTLP_PROTOCOL": "grpc",
                "EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ("http://b:2/x", "http/protobuf"),
        ),
    ],
)
def test_opentelemetry_s_variables_say_where_spans_go(
    variables: dict[str, str], expected: tuple[str, str] | None
) -> None:
    assert trace_target({f"OTEL_{k}": v for k, v in variables.items()}) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"},
    ],
)
def test_what_opentelemetry_can_and_this_project_cannot_is_said(variables: dict[str, str]) -> None:
    with pytest.raises(
        StartError, match=r"set (otlp or none|grpc or http/protobuf)|begin with http"
    ):
        trace_target(variables)
