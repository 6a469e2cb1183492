"""What the drafter counts, beside vLLM's own ``vllm:*`` metrics on the engine's ``/metrics``.

The drafter runs in vLLM's engine core and /metrics is answered by its API server: the numbers cross
over in prometheus-client's multiprocess files, in a folder that is made for each start.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which prometheus-client, and vLLM, know the folder."""
_PREFIX = "routine-engine-metrics-"


def new_folder() -> str:
    """A folder for the metrics of all processes of an engine that is about to start."""
    return tempfile.mkdtemp(prefix=_PREFIX)


def remove_folder() -> None:
    """Remove the folder, if it is one that ``new_folder`` made."""
    folder = Path(os.environ.get(FOLDER, ""))
    if folder.name.startswith(_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Counts:
    """What was counted for one task since it was published last."""

    requests: int = 0
    passes: int = 0
    forced: int = 0
    chosen: int = 0
    drafted: int = 0
    accepted: int = 0


class DrafterMetrics:
    """The drafter's counters.

    Args:
        tasks: every task's name; their series exist, with zero, from the start.
    """

    def __init__(self, tasks: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        requests = self._counter("requests", "Requests with a prompt of ours.", "task")
        passes = self._counter(
            "passes", "Forward passes that gave them tokens, their prefill's last included.", "task"
        )
        tokens = self._counter(
            "tokens",
            "Tokens they were given: forced by what stood before (kind forced), or chosen by the "
            "model. Passes saved are tokens less passes.",
            "task",
            "kind",
        )
        drafted = self._counter("drafted_tokens", "Tokens proposed to the model.", "task")
        accepted = self._counter("accepted_tokens", "Proposed tokens that it accepted.", "task")
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
        self.seconds = self._counter("seconds", "Time the drafter took; the engine waits for it.")
        self.failures = self._counter(
            "failures", "Steps in which it failed; their requests were decoded without drafts."
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"routine_drafter_{name}_total", text, labels, registry=self.registry)

    def publish(self, counts: Mapping[str, Counts]) -> None:
        """Add ``counts``, by task, to the counters, and set them to zero."""
        for task, counted in counts.items():
            if not counted.passes:
                continue
            for name, counter in self._of[task].items():
                if number := getattr(counted, name):
                    counter.inc(number)
                    setattr(counted, name, 0)
