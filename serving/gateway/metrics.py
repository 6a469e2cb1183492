"""Gateway metrics: base units, prefix ``routine_``, no label values set by clients."""

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
"""Seconds, in steps of about 1.5x: from the first tokens of a GPU or a small model (a few ms) to a
full-size model on a laptop under load."""
SHORT_BUCKETS = (
    0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
    0.2, 0.5, 1.0,
)  # fmt: skip
"""Seconds, for operations inside the gateway process."""
OTHER = "other"
"""Label for unknown values: a path without a route, a model that the engine does not serve."""
UNKNOWN_METHOD = "_OTHER"
"""OpenTelemetry's value for methods that are not served."""
TASK_POOL, COMPLETION_POOL, BATCH_POOL = "tasks", "completions", "batch"
"""Shares of the engine: task requests, what is passed through, and lines of batches."""
OUTCOMES = ("admitted", "rejected", "cancelled")
"""Admission outcomes of a request for the engine."""
LANGUAGE = "language"
"""Rule name: the engine's text must be in the output language."""


class Metrics:
    """All metrics of one gateway process, in their own registry."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # unused extra series
        self._new = Instruments()
        self.registry, self.described = self._new.registry, self._new.described
        self._count_requests()
        self._count_stages()
        self._count_answers()
        self._count_process()

    def _count_requests(self) -> None:
        self.requests = self._new.histogram(
            "http_request_duration_seconds",
            "Time from a request's headers to the last byte of its answer. Status 499: the client "
            "left before the answer began. An answer that broke off has its error's status.",
            ["route", "method", "status"],
            LATENCY_BUCKETS,
        )
        self.admissions = self._new.counter(
            "admissions_total",
            "Requests for the engine: admitted, rejected because they could not be answered in "
            "time (429), or cancelled by a client that left the queue.",
            ["adapter", "outcome"],
        )
        self.queued = self._new.gauge(
            "queued_requests",
            "Requests waiting for a place at the engine: of tasks, passed through (pool "
            "completions), or the next lines of batches.",
            ["pool"],
        )
        self.queue_wait = self._new.gauge(
            "queue_expected_wait_seconds",
            "Expected wait of a request that comes now, in the slower task's queue.",
            ["pool"],
        )
        self.queue_wait_limit = self._new.gauge(
            "queue_wait_limit_seconds",
            "Longest expected wait; requests that would wait longer are rejected.",
            ["pool"],
        )
        self.in_flight = self._new.gauge(
            "in_flight_requests",
            "Requests at the engine; in pool completions, the places they take.",
            ["pool"],
        )
        self.in_flight_limit = self._new.gauge(
            "in_flight_limit_requests",
            "As many may be there at once. The tasks' limit follows the time answers take.",
            ["pool"],
        )

        self.key_requests = self._new.counter(
            "key_requests_total", "Requests by the name of their API key.", ["key", "status"]
        )
        self.key_tokens = self._new.counter(
            "key_tokens_total",
            "Tokens of prompts and answers by the name of the API key that they count for.",
            ["key"],
        )

    def _count_stages(self) -> None:
        self.stages = {
            "queue": self._new.histogram(
                "queue_duration_seconds",
                "Time a request waits in the gateway for a place at the engine.",
                ["adapter"],
                LATENCY_BUCKETS,
            ),
            "engine": self._new.histogram(
                "engine_duration_seconds",
                "Time a request is at the engine, a stream to its end.",
                ["adapter"],
                LATENCY_BUCKETS,
            ),
            "check": self._new.histogram(
                "check_duration_seconds",
                "Time to read the model's text, derive the whole answer, and check it.",
                ["adapter"],
                SHORT_BUCKETS,
            ),
        }
        self.first_token_time = self._new.histogram(
            "time_to_first_token_seconds",
            "Time to the first token of a streaming completion. Other answers leave whole: see the "
            "engine's vllm:time_to_first_token_seconds.",
            ["adapter"],
            LATENCY_BUCKETS,
        )
        self.engine_errors = self._new.counter(
            "engine_errors_total",
            "Requests that failed at the engine: unavailable, timeout, refused (its own 4xx), or "
            "fault (an invalid answer).",
            ["adapter", "kind"],
        )

        self.retries = self._new.counter(
            "engine_retries_total",
            "Task requests sent again because the engine failed or dropped them.",
            ["adapter"],
        )

    def _count_answers(self) -> None:
        self.tokens = self._new.counter(
            "tokens_total",
            "Tokens as the engine counts them: of prompts (in) and generated (out). Streams count "
            "only if the client asked for usage.",
            ["adapter", "direction"],
        )
        self.decisions = self._new.counter(
            "decisions_total", "Decisions the model made in answers.", ["adapter"]
        )
        self.characters = self._new.counter(
            "answer_characters_total",
            "Characters of answers: generated by the engine, or derived in the gateway.",
            ["adapter", "origin"],
        )
        self.violations = self._new.counter(
            "semantic_violations_total",
            "Answers rejected because they violated a rule.",
            ["adapter", "rule"],
        )
        for task in TASKS.values():  # start at 0, so the first event is an increase
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
            "1 if the adapter is proven to change the output and the constraint to be enforced.",
            ["adapter"],
        )
        self.loop_lag = self._new.histogram(
            "event_loop_lag_seconds",
            "Delay of a periodic timer on the event loop.",
            [],
            SHORT_BUCKETS,
        )
        self.memory = self._new.gauge("resident_memory_bytes", "Resident memory of the gateway.")
        self.processor = self._new.counter("cpu_seconds_total", "Processor time of the gateway.")
        build = self._new.gauge("build_info", "1; labels say what runs.", ["version", "python"])
        build.labels(version("routine-serving"), platform.python_version()).set(1)
