"""Prometheus metrics with the project's prefix, described for the generated documentation.

vLLM's processes use prometheus-client's multiprocess mode: each writes its values to files in one
folder, and the process that serves a scrape reads them all. The folder's name contains the id of
the process that owns it. If that process was killed, the next start removes the folder.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from serving.process import StartError

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder's path. prometheus_client reads it on import."""
PREFIX = "routine_"
ENGINE_STEPS = "vllm:iteration_tokens_total_count"
"""vLLM's metric with the number of steps, one sample a core."""
NEEDED_BYTES = 2**26
"""Free disk space required at startup. The files are memory-mapped, so a failed page write kills
the process."""
_FOLDER_NAME = re.compile(r"routine-metrics-(\d+)-\w+")


def engine_steps(text: str) -> dict[str, float]:
    """Return the number of steps by engine core, from vLLM's metrics. A core without a request
    may be missing.

    Raises:
        ValueError: it is not Prometheus's format.
    """
    lines = "\n".join(line for line in text.splitlines() if line.startswith(ENGINE_STEPS))
    families = text_string_to_metric_families(f"{lines}\n")
    return {one.labels["engine"]: one.value for family in families for one in family.samples}


@dataclass(frozen=True)
class Described:
    """Description of one metric, for the documentation and the test that freezes it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def new_folder() -> str:
    """Create a folder for the values of this process and its children.

    Raises:
        StartError: the disk is full.
    """
    root, own = Path(tempfile.gettempdir()), os.getpid()
    for path in root.iterdir():
        name = _FOLDER_NAME.fullmatch(path.name)
        if name and (int(name[1]) == own or not psutil.pid_exists(int(name[1]))):
            shutil.rmtree(path, ignore_errors=True)
    if shutil.disk_usage(root).free < NEEDED_BYTES:
        raise StartError(
            f"{root} has less than {NEEDED_BYTES >> 20} MiB left, and metrics are counted there: "
            "make room, or set TMPDIR"
        )
    return tempfile.mkdtemp(prefix=f"routine-metrics-{own}-")


def remove_folder() -> None:
    """Remove the folder if this process owns it; children only use it."""
    folder = Path(os.environ.get(FOLDER, ""))
    name = _FOLDER_NAME.fullmatch(folder.name)
    if name and int(name[1]) == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


Metric = TypeVar("Metric", Counter, Gauge, Histogram)


def _ready(metric: Metric) -> Metric:
    """Cache ``metric.labels``: repeated lookups take a tenth of the time. Children are never
    removed."""
    setattr(metric, "labels", cache(metric.labels))  # noqa: B010
    return metric


class Instruments:
    """Creates metrics in its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """Create a counter; ``name`` ends in ``_total``."""
        full = self._describe(name, "counter", labels, text)
        return _ready(Counter(full, text, labels, registry=self.registry))

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Create a gauge."""
        full = self._describe(name, "gauge", labels, text)
        return _ready(Gauge(full, text, labels, registry=self.registry))

    def histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        """Create a histogram; ``buckets`` are upper bounds in the unit that ends ``name``."""
        full = self._describe(name, "histogram", labels, text)
        return _ready(Histogram(full, text, labels, buckets=buckets, registry=self.registry))

    def _describe(self, name: str, kind: str, labels: Sequence[str], text: str) -> str:
        self.described.append(Described(PREFIX + name, kind, tuple(labels), text))
        return PREFIX + name
