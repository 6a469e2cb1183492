"""What a panel is made of: its queries, unit, limits and meaning.

``$gateway``, ``$engine`` and ``$adapter`` are the dashboard's variables. Metrics are those of
metrics.md, vLLM 0.32 and NVIDIA's DCGM exporter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

G, E, A = 'instance=~"$gateway"', 'instance=~"$engine"', 'adapter=~"$adapter"'
T = 'task=~"$adapter"'
W = "$__rate_interval"
HTTP = "routine_http_request_duration_seconds"


@dataclass(frozen=True)
class Panel:
    """One panel; ``limits`` are where its value begins to be a warning and an alarm."""

    title: str
    meaning: str
    unit: str
    queries: Mapping[str, str]
    """By what its lines are called, PromQL expressions."""
    limits: tuple[tuple[float, Literal["green", "orange", "red"]], ...] = ()
    base: Literal["green", "orange", "red"] = "green"
    """The colour below the first limit."""
    kind: Literal["lines", "stacked", "number"] = "lines"
    most: float | None = None
    """The axis ends here, where values have a natural end."""
    names: tuple[tuple[str, str], ...] = ()
    """Values that are shown as words."""
    width: int = 8


def rate(metric: str, labels: str, by: str = "") -> str:
    """A second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[{W}]))"


def mean(histogram: str, labels: str) -> str:
    return f"{rate(f'{histogram}_sum', labels)} / {rate(f'{histogram}_count', labels)}"


def quantile(share: float, histogram: str, labels: str, by: str = "") -> str:
    inner = rate(f"{histogram}_bucket", labels, f"le, {by}" if by else "le")
    return f"histogram_quantile({share}, {inner})"


def quantiles(histogram: str, labels: str) -> dict[str, str]:
    return {
        f"p{100 * share:.0f}": quantile(share, histogram, labels) for share in (0.5, 0.95, 0.99)
    }


def ratio(above: str, below: str, labels: str, by: str = "") -> str:
    return f"{rate(above, labels, by)} / {rate(below, labels, by)}"


def number(title: str, meaning: str, unit: str, expr: str, **more: object) -> Panel:
    fixed = {"kind": "number", "width": 3, **more}
    return Panel(title, meaning, unit, {"": expr}, **fixed)  # type: ignore[arg-type]
