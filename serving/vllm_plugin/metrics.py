"""The drafter's metrics, exported beside vLLM's ``vllm:*`` metrics on the engine's ``/metrics``.

The drafter runs in vLLM's engine core, but its API server serves /metrics. Values are shared
through prometheus-client's multiprocess files, in a folder created at each start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serving.metrics import Instruments


@dataclass
class Counts:
    """Counts for one task since the last publication."""

    requests: int = 0
    passes: int = 0
    forced: int = 0
    chosen: int = 0
    drafted: int = 0
    accepted: int = 0


class DrafterMetrics:
    """The drafter's counters.

    Args:
        tasks: names of all tasks; their series exist from the start, at zero.
    """

    def __init__(self, tasks: Iterable[str]) -> None:
        new = Instruments()
        self.registry, self.described = new.registry, new.described
        requests = new.counter(
            "drafter_requests_total", "Requests with a prompt of ours.", ["task"]
        )
        passes = new.counter(
            "drafter_passes_total",
            "Forward passes that gave them tokens, their prefill's last included.",
            ["task"],
        )
        tokens = new.counter(
            "drafter_tokens_total",
            "Tokens they were given: forced by what stood before (kind forced), or chosen by the "
            "model (chosen). Passes saved are tokens less passes.",
            ["task", "kind"],
        )
        drafted = new.counter(
            "drafter_drafted_tokens_total", "Tokens proposed to the model.", ["task"]
        )
        accepted = new.counter(
            "drafter_accepted_tokens_total", "Proposed tokens that it accepted.", ["task"]
        )
        self._of = {
            task: {
                "requests": requests.labels(task),
                "passes": passes.labels(task),
                "forced": tokens.labels(task, "forced"),
                "chosen": tokens.labels(task, "chosen"),
                "drafted": drafted.labels(task),
                "accepted": accepted.labels(task),
            }
            for task in tasks
        }
        self.seconds = new.counter(
            "drafter_seconds_total", "Time the drafter took; the engine waits for it."
        )
        self.failures = new.counter(
            "drafter_failures_total",
            "Steps in which it failed; their requests were decoded without drafts.",
        )

    def publish(self, counts: Mapping[str, Counts]) -> None:
        """Add ``counts`` (by task) to the counters, then reset ``counts`` to zero."""
        for task, counted in counts.items():
            if not counted.passes:
                continue
            for name, counter in self._of[task].items():
                if number := getattr(counted, name):
                    counter.inc(number)
                    setattr(counted, name, 0)
