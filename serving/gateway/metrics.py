"""What the gateway counts: the prefix ``routine_``, base units, and no label that a client can set.

With several workers, prometheus-client's multiprocess mode adds them up: each writes its values to
files in the folder that ``PROMETHEUS_MULTIPROC_DIR`` names, and whichever is asked reads them all.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import psutil
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serving.contract.output import Tail
from serving.contract.tasks import TASKS

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus-client knows that there are several processes. It
must be set before prometheus_client is imported."""

LATENCY_BUCKETS = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7,
    1.0, 1.5, 2.5, 4.0, 6.5, 10.0, 15.0, 25.0, 40.0, 60.0,
)  # fmt: skip
"""Seconds, a factor of about 1.5 apart: from a GPU's or a small model's first tokens (a few ms) to
a full-size model on a laptop under load. A test holds them against the measured latencies in
``loadtests/results``."""
SHORT_BUCKETS = (
    0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
    0.2, 0.5, 1.0,
)  # fmt: skip
"""Seconds: what happens inside the gateway's own process."""
OTHER = "other"
"""Label of what is not ours: a path without a route, a model that the engine does not serve."""
LANGUAGE = "language"
"""The rule that the engine's text is in the output's language."""

Mode = Literal["livesum", "livemin", "max"]
"""How a gauge is put together from several workers' values."""


@dataclass(frozen=True)
class Described:
    """One metric, for the documentation and the test that freezes it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Metrics:
    """All metrics of one gateway process, in their own registry.

    Args:
        tail: where the engine's part of an answer ends; told in the build information.
    """

    def __init__(self, tail: Tail) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        self.registry = CollectorRegistry()
        self.described: list[Described] = []
        self._count_requests()
        self._count_stages()
        self._count_answers()
        self._count_process(tail)

    def _count_requests(self) -> None:
        self.requests = self._histogram(
            "http_request_duration_seconds",
            "From a request's first byte to its answer's last; its count is the requests'. Status "
            "499: the client left before the answer began.",
            ["route", "method", "status"],
        )
        self.admissions = self._counter(
            "admissions_total",
            "Requests for the engine, by what became of them here: admitted, rejected because the "
            "queue was full (429), or cancelled by a client that left.",
            ["adapter", "outcome"],
        )
        self.queued = self._gauge("queued_requests", "Requests waiting for a place at the engine.")
        self.queue_limit = self._gauge("queue_limit_requests", "Most that may wait.")
        self.in_flight = self._gauge("in_flight_requests", "Requests at the engine.")
        self.in_flight_limit = self._gauge("in_flight_limit_requests", "Most that may be there.")

    def _count_stages(self) -> None:
        self.queue_time = self._histogram(
            "queue_duration_seconds", "Waiting here for a place at the engine.", ["adapter"]
        )
        self.engine_time = self._histogram(
            "engine_duration_seconds",
            "At the engine, a stream to its end; its count is the requests to an adapter.",
            ["adapter"],
        )
        self.check_time = self._histogram(
            "check_duration_seconds",
            "Reading the model's text, deriving the whole answer, and checking it.",
            ["adapter"],
            SHORT_BUCKETS,
        )
        self.first_token_time = self._histogram(
            "time_to_first_token_seconds",
            "From a streaming completion's first byte to the first token sent. Other answers leave "
            "whole; for these see the engine's vllm:time_to_first_token_seconds.",
            ["adapter"],
        )
        self.engine_errors = self._counter(
            "engine_errors_total",
            "Requests that failed at the engine: unavailable, timeout, refused (its own 4xx), or "
            "fault (an answer that it should not give).",
            ["adapter", "kind"],
        )

    def _count_answers(self) -> None:
        self.tokens = self._counter(
            "tokens_total",
            "Tokens as the engine counts them, of prompts (in) and of what it generated (out). Of "
            "a stream only where the client asked for usage.",
            ["adapter", "direction"],
        )
        self.decisions = self._counter(
            "decisions_total", "Decisions of the model in answers that were given.", ["adapter"]
        )
        self.characters = self._counter(
            "answer_characters_total",
            "Characters of answers that were given: generated by the engine, or derived here.",
            ["adapter", "origin"],
        )
        self.violations = self._counter(
            "semantic_violations_total",
            "Answers held back because they broke a rule.",
            ["adapter", "rule"],
        )
        for task in TASKS.values():  # from 0, or the first would be no increase
            for rule in (LANGUAGE, *task.rules):
                self.violations.labels(task.name, rule)

    def _count_process(self, tail: Tail) -> None:
        self.ready = self._gauge("ready", "1 while /readyz answers 200.", "livemin")
        self.adapter_ready = self._gauge(
            "adapter_ready",
            "1 where the adapter has been shown to change the output and the constraint to bite.",
            "livemin",
            ["adapter"],
        )
        self.workers = self._gauge("workers", "Gateway processes.")
        self.loop_lag = self._histogram(
            "event_loop_lag_seconds",
            "By how much a timer of the event loop was late.",
            [],
            SHORT_BUCKETS,
        )
        self.memory = self._gauge("resident_memory_bytes", "Resident memory of all workers.")
        self.processor = self._counter("cpu_seconds_total", "Processor time of all workers.", [])
        build = self._gauge(
            "build_info", "1; what runs, in its labels.", "max", ["version", "python", "tail"]
        )
        build.labels(version("routine-serving"), platform.python_version(), tail).set(1)

    def exposition(self) -> bytes:
        """All values of all workers, in Prometheus's text format."""
        folder = os.environ.get(FOLDER)
        if folder is None:
            return generate_latest(self.registry)
        _forget_dead_workers(folder)
        together = CollectorRegistry()
        MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        self._describe(name, "counter", labels, text)
        return Counter(f"routine_{name}", text, labels, registry=self.registry)

    def _gauge(
        self, name: str, text: str, mode: Mode = "livesum", labels: Iterable[str] = ()
    ) -> Gauge:
        self._describe(name, "gauge", labels, text)
        return Gauge(
            f"routine_{name}", text, labels, multiprocess_mode=mode, registry=self.registry
        )

    def _histogram(
        self,
        name: str,
        text: str,
        labels: list[str],
        buckets: tuple[float, ...] = LATENCY_BUCKETS,
    ) -> Histogram:
        self._describe(name, "histogram", labels, text)
        return Histogram(f"routine_{name}", text, labels, buckets=buckets, registry=self.registry)

    def _describe(self, name: str, kind: str, labels: Iterable[str], text: str) -> None:
        self.described.append(Described(f"routine_{name}", kind, tuple(labels), text))


def _forget_dead_workers(folder: str) -> None:
    """Remove the gauges of workers that have ended; what they counted stays."""
    for path in Path(folder).glob("gauge_live*_*.db"):
        pid = int(path.stem.rpartition("_")[2])
        if not psutil.pid_exists(pid):
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
