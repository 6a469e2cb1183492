"""What the gateway counts, in base units and with the prefix ``routine_``; clients set no label."""

from __future__ import annotations

import platform
from importlib.metadata import version

from prometheus_client import disable_created_metrics

from serving.gateway.errors import ENGINE_ERRORS
from serving.metrics import Instruments
from serving.tasks.registry import TASKS

LATENCY_BUCKETS = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7,
    1.0, 1.5, 2.5, 4.0, 6.5, 10.0, 15.0, 25.0, 40.0, 60.0,
)  # fmt: skip
"""Seconds, a factor of about 1.5 apart: from a GPU's or a small model's first tokens (a few ms) to
a full-size model on a laptop under load."""
SHORT_BUCKETS = (
    0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
    0.2, 0.5, 1.0,
)  # fmt: skip
"""Seconds: what happens inside the gateway's own process."""
OTHER = "other"
"""Label of what is not ours: a path without a route, a model that the engine does not serve."""
OUTCOMES = ("admitted", "rejected", "cancelled")
"""What becomes of a request for the engine."""
LANGUAGE = "language"
"""The rule that the engine's text is in the output's language."""


class Metrics:
    """All metrics of one gateway process, in their own registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        self._new = Instruments()
        self.registry, self.described = self._new.registry, self._new.described
        self._count_requests()
        self._count_stages()
        self._count_answers()
        self._count_process()

    def _count_requests(self) -> None:
        self.requests = self._new.histogram(
            "http_request_duration_seconds",
            "From a request's headers to its answer's last byte; its count is the requests'. "
            "Status 499: the client left before the answer began. An answer that broke off has "
            "its error's status.",
            ["route", "method", "status"],
            LATENCY_BUCKETS,
        )
        self.admissions = self._new.counter(
            "admissions_total",
            "Requests for the engine, by what became of them here: admitted to it, rejected "
            "because the queue was full (429), or cancelled by a client that left the queue.",
            ["adapter", "outcome"],
        )
        self.queued = self._new.gauge(
            "queued_requests", "Requests waiting for a place at the engine."
        )
        self.queue_limit = self._new.gauge("queue_limit_requests", "Most that may wait.")
        self.in_flight = self._new.gauge("in_flight_requests", "Requests at the engine.")
        self.in_flight_limit = self._new.gauge(
            "in_flight_limit_requests", "Most that may be there."
        )

    def _count_stages(self) -> None:
        self.stages = {
            "queue": self._new.histogram(
                "queue_duration_seconds",
                "Waiting here for a place at the engine.",
                ["adapter"],
                LATENCY_BUCKETS,
            ),
            "engine": self._new.histogram(
                "engine_duration_seconds",
                "At the engine, a stream to its end; its count is the requests to an adapter.",
                ["adapter"],
                LATENCY_BUCKETS,
            ),
            "check": self._new.histogram(
                "check_duration_seconds",
                "Reading the model's text, deriving the whole answer, and checking it.",
                ["adapter"],
                SHORT_BUCKETS,
            ),
        }
        self.first_token_time = self._new.histogram(
            "time_to_first_token_seconds",
            "From a streaming completion's first byte to the first token sent. Other answers leave "
            "whole; for these see the engine's vllm:time_to_first_token_seconds.",
            ["adapter"],
            LATENCY_BUCKETS,
        )
        self.engine_errors = self._new.counter(
            "engine_errors_total",
            "Requests that failed at the engine: unavailable, timeout, refused (its own 4xx), or "
            "fault (an answer that it should not give).",
            ["adapter", "kind"],
        )

        self.retries = self._new.counter(
            "engine_retries_total",
            "Times that a task's request was sent again because the engine failed or dropped it.",
            ["adapter"],
        )

    def _count_answers(self) -> None:
        self.tokens = self._new.counter(
            "tokens_total",
            "Tokens as the engine counts them, of prompts (in) and of what it generated (out). Of "
            "a stream only where the client asked for usage.",
            ["adapter", "direction"],
        )
        self.decisions = self._new.counter(
            "decisions_total", "Decisions of the model in answers that were given.", ["adapter"]
        )
        self.characters = self._new.counter(
            "answer_characters_total",
            "Characters of answers that were given: generated by the engine, or derived here.",
            ["adapter", "origin"],
        )
        self.violations = self._new.counter(
            "semantic_violations_total",
            "Answers held back because they broke a rule.",
            ["adapter", "rule"],
        )
        for task in TASKS.values():  # from 0, or the first of a kind would be no increase
            self.retries.labels(task.name)
            for rule in (LANGUAGE, *task.rules):
                self.violations.labels(task.name, rule)
            for kind in ENGINE_ERRORS:
                self.engine_errors.labels(task.name, kind)
            for outcome in OUTCOMES:
                self.admissions.labels(task.name, outcome)

    def _count_process(self) -> None:
        self.ready = self._new.gauge("ready", "1 while /readyz answers 200.")
        self.adapter_ready = self._new.gauge(
            "adapter_ready",
            "1 where the adapter has been shown to change the output and the constraint to bite.",
            ["adapter"],
        )
        self.loop_lag = self._new.histogram(
            "event_loop_lag_seconds",
            "By how much a timer of the event loop was late.",
            [],
            SHORT_BUCKETS,
        )
        self.memory = self._new.gauge("resident_memory_bytes", "Resident memory of the gateway.")
        self.processor = self._new.counter("cpu_seconds_total", "Processor time of the gateway.")
        build = self._new.gauge("build_info", "1; what runs, in its labels.", ["version", "python"])
        build.labels(version("routine-serving"), platform.python_version()).set(1)
