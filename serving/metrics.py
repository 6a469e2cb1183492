"""Prometheus metrics of a process: made with the project's prefix, and described for its pages.

vLLM's processes are counted together in prometheus-client's multiprocess mode: each
writes its values to files in one folder, and whichever is asked reads them all. The folder belongs
to one process, whose id is in its name; the next start removes it where that process was killed.
"""

from __future__ import annotations

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

from serving.process import StartError

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder. prometheus_client reads it on import."""
PREFIX = "routine_"
NEEDED_BYTES = 2**26
"""Free disk space that a start insists on: the files are mapped, and a page that cannot be written
kills its process."""
_FOLDER_NAME = re.compile(r"routine-metrics-(\d+)-\w+")


@dataclass(frozen=True)
class Described:
    """One metric, for the documentation and the test that freezes it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def new_folder() -> str:
    """A folder for the values of this process and its children.

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
    """Remove the folder, if it is this process's own; children only use it."""
    folder = Path(os.environ.get(FOLDER, ""))
    name = _FOLDER_NAME.fullmatch(folder.name)
    if name and int(name[1]) == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


Metric = TypeVar("Metric", Counter, Gauge, Histogram)


def _ready(metric: Metric) -> Metric:
    """``metric``, which finds a child that it has given before a tenth of the time later. No child
    is ever removed."""
    setattr(metric, "labels", cache(metric.labels))  # noqa: B010
    return metric


class Instruments:
    """Makes metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; ``name`` ends in ``_total``."""
        full = self._describe(name, "counter", labels, text)
        return _ready(Counter(full, text, labels, registry=self.registry))

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge."""
        full = self._describe(name, "gauge", labels, text)
        return _ready(Gauge(full, text, labels, registry=self.registry))

    def histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        """A histogram; ``buckets`` are upper bounds in the unit that ``name`` ends in."""
        full = self._describe(name, "histogram", labels, text)
        return _ready(Histogram(full, text, labels, buckets=buckets, registry=self.registry))

    def _describe(self, name: str, kind: str, labels: Sequence[str], text: str) -> str:
        self.described.append(Described(PREFIX + name, kind, tuple(labels), text))
        return PREFIX + name
