"""Prometheus metrics of a process: made with the project's prefix, and described for its pages.

Several processes of a service are counted together in prometheus-client's multiprocess mode: each
writes its values to files in one folder, and whichever is asked reads them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the folder. prometheus_client reads it on import."""
PREFIX = "routine_"

Mode = Literal["livesum", "livemin", "max"]
"""How a gauge is put together from several processes' values; ``live`` leaves out the dead."""


@dataclass(frozen=True)
class Described:
    """One metric, for the documentation and the test that freezes it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Instruments:
    """Makes metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.described: list[Described] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; ``name`` ends in ``_total``."""
        full = self._describe(name, "counter", labels, text)
        return Counter(full, text, labels, registry=self.registry)

    def gauge(
        self, name: str, text: str, labels: Sequence[str] = (), mode: Mode = "livesum"
    ) -> Gauge:
        """A gauge."""
        full = self._describe(name, "gauge", labels, text)
        return Gauge(full, text, labels, multiprocess_mode=mode, registry=self.registry)

    def histogram(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]
    ) -> Histogram:
        """A histogram; ``buckets`` are upper bounds in the unit that ``name`` ends in."""
        full = self._describe(name, "histogram", labels, text)
        return Histogram(full, text, labels, buckets=buckets, registry=self.registry)

    def _describe(self, name: str, kind: str, labels: Sequence[str], text: str) -> str:
        self.described.append(Described(PREFIX + name, kind, tuple(labels), text))
        return PREFIX + name
