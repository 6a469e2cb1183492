"""OpenTelemetry span destination, from its environment variables."""

from collections.abc import Mapping
from typing import NamedTuple

from serving.process import StartError


class TraceTarget(NamedTuple):
    """Destination of spans."""

    endpoint: str
    protocol: str
    """``grpc`` or ``http/protobuf``."""


def trace_target(variables: Mapping[str, str]) -> TraceTarget | None:
    """Return the span destination set by OpenTelemetry's environment variables; None by default.

    Used for both the gateway and vLLM, because vLLM 0.32 supports only some of the variables
    (vllm/tracing/otel.py). Names and defaults follow the OpenTelemetry specification
    (configuration/sdk-environment-variables, protocol/exporter). Where it leaves a choice, they
    follow its Python distribution: the default protocol is gRPC.

    Raises:
        StartError: a variable has an unsupported value.
    """

    def given(name: str, default: str = "") -> str:
        general = variables.get(f"OTEL_EXPORTER_OTLP_{name}") or default
        return variables.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or general

    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter not in ("", "otlp", "none"):
        raise StartError(
            f"OTEL_TRACES_EXPORTER={exporter}: only OTLP is supported; set otlp or none"
        )
    disabled = variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or exporter == "none" or not (exporter or given("ENDPOINT")):
        return None
    protocol = given("PROTOCOL", "grpc")
    endpoint = given("ENDPOINT", "http://localhost:4317")
    if not endpoint.startswith(("http://", "https://")):
        raise StartError(f"OTLP endpoint {endpoint}: it must begin with http:// or https://")
    if protocol == "grpc":
        return TraceTarget(endpoint, protocol)
    if protocol != "http/protobuf":
        raise StartError(f"OTLP protocol {protocol}: set grpc or http/protobuf")
    # Over HTTP, the signal's path is appended to the general endpoint only.
    base = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
    own = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return TraceTarget(own or f"{base.rstrip('/')}/v1/traces", protocol)
