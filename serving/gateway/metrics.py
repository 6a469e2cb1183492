"""What the gateway counts: one registry, the prefix ``routine_``, base units, bounded labels."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LATENCY_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds: from a gateway's own cost to a full-size model on a laptop."""


class Metrics:
    """All metrics of one gateway process, in their own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "routine_http_requests_total",
            "Answered requests.",
            ["route", "method", "status"],
            registry=registry,
        )
        self.latency = Histogram(
            "routine_http_request_duration_seconds",
            "From a request's first byte to its answer's last.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.queue_time = Histogram(
            "routine_queue_duration_seconds",
            "Waiting here for a place at the engine.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.engine_time = Histogram(
            "routine_engine_duration_seconds",
            "Waiting for the engine's answer.",
            ["task"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.tokens = Counter(
            "routine_tokens_total",
            "Tokens of task requests, as the engine counts them.",
            ["task", "direction"],
            registry=registry,
        )
        self.violations = Counter(
            "routine_semantic_violations_total",
            "Answers stopped because they broke a rule.",
            ["task", "rule"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "routine_in_flight_requests", "Requests at the engine.", registry=registry
        )
        self.queued = Gauge(
            "routine_queued_requests", "Requests waiting for a place.", registry=registry
        )
        self.ready = Gauge("routine_ready", "1 while /readyz answers 200.", registry=registry)
