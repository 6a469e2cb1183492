"""Draws the dashboard's overview from a short load on the demo stack: ``make dashboard-preview``.

Grafana cannot be installed from PyPI or Debian; this shows the same queries, taken from the
dashboard's JSON and asked of a real Prometheus, with matplotlib. Layout, units and limits are the
dashboard's; what Grafana draws looks like Grafana.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy.observability.dashboard import DASHBOARD, HERE
from deploy.observability.prometheus import Prometheus, running, tool
from loadtests.mix import load
from loadtests.stack import Stack, free_port
from serving.startup import StartError

PICTURE = HERE / "overview.png"
STAGES = ((2, 25), (8, 35), (24, 25), (4, 35))
"""Clients at once, and seconds."""
SCRAPE_SECONDS = 1
VARIABLES = {
    "$gateway": ".*",
    "$engine": ".*",
    "$adapter": ".*",
    "$__rate_interval": "10s",
}
COLOURS = {"green": "#3d9a50", "orange": "#e08b2b", "red": "#d14343"}
LINES = ("#3274d9", "#e0b400", "#8f3bb8", "#37872d", "#e02f44", "#ff780a")


def expression(query: str) -> str:
    """``query`` with the dashboard's variables at "All"."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def panels(dashboard: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each panel, after its row's title."""
    row = ""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            for inside in panel.get("panels") or []:
                yield row, inside
        else:
            yield row, panel


def shown(value: float, unit: str) -> str:
    """A value as Grafana would write it in ``unit``."""
    if math.isnan(value):
        return "no data"
    if unit == "percentunit":
        return f"{100 * value:.4g} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if value < 1 else f"{value:.3g} s"
    return f"{value:.3g}" + (" /s" if unit == "reqps" else "")


def legend(pattern: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


def _number(axes: Any, panel: dict[str, Any], prometheus: Prometheus, end: float) -> None:
    field = panel["fieldConfig"]["defaults"]
    (target,) = panel["targets"]
    found = prometheus.range(expression(target["expr"]), end, end, 1)
    value = float(found[0]["values"][-1][1]) if found else math.nan
    colour = field["thresholds"]["steps"][0]["color"]
    for step in field["thresholds"]["steps"][1:]:
        colour = step["color"] if value >= step["value"] else colour
    text = shown(value, field["unit"])
    for mapping in field.get("mappings") or []:
        text = mapping["options"].get(f"{value:g}", {}).get("text", text)
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=17, color=COLOURS[colour])
    axes.set_title(panel["title"], fontsize=9, loc="center")


def _lines(
    axes: Any, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float
) -> None:
    field = panel["fieldConfig"]["defaults"]
    series: list[tuple[str, list[float], list[float]]] = []
    for target in panel["targets"]:
        for one in prometheus.range(expression(target["expr"]), start, end, SCRAPE_SECONDS):
            times = [float(at) - start for at, _ in one["values"]]
            values = [float(value) for _, value in one["values"]]
            series.append((legend(target["legendFormat"], one["metric"]), times, values))
    if field["custom"].get("stacking", {}).get("mode") == "normal":
        at = sorted({time for _, times, _ in series for time in times})
        rows = [_on(at, times, values) for _, times, values in series]
        axes.stackplot(at, rows, labels=[name for name, _, _ in series], colors=LINES, alpha=0.75)
    else:
        for colour, (name, times, values) in zip(LINES * 2, series, strict=False):
            axes.plot(times, values, label=name, color=colour, linewidth=1.6)
    highest = max((v for _, _, values in series for v in values if math.isfinite(v)), default=0)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1e-3) if highest else 1)
    for step in field["thresholds"]["steps"][1:]:
        if step["value"] <= axes.get_ylim()[1]:
            axes.axhline(step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=1)
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, field["unit"]))
    axes.set_xlim(0, end - start)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.set_title(panel["title"], fontsize=9, loc="left")
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize=7, ncols=4, loc="upper left", frameon=False)


def _on(at: Sequence[float], times: Sequence[float], values: Sequence[float]) -> list[float]:
    """``values`` at each of ``at``; 0 where there are none."""
    known = dict(zip(times, values, strict=True))
    return [0.0 if math.isnan(known.get(time, 0.0)) else known.get(time, 0.0) for time in at]


def draw(prometheus: Prometheus, start: float, end: float, path: Path) -> None:
    """The overview row from ``start`` to ``end`` (Unix times), as a picture."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    dashboard = json.loads(DASHBOARD.read_text())
    overview = [panel for row, panel in panels(dashboard) if row == "Overview"]
    top = min(panel["gridPos"]["y"] for panel in overview)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in overview) - top
    figure = pyplot.figure(figsize=(14, 0.42 * height), facecolor="#f4f5f5")
    for panel in overview:
        place = panel["gridPos"]
        # Inches, from the upper left corner; the axis's words stand in the margin.
        x, y = 14 * place["x"] / 24, 0.42 * (place["y"] - top)
        w, h = 14 * place["w"] / 24, 0.42 * place["h"]
        number = panel["type"] == "stat"
        left, below = (0.06, 0.06) if number else (0.62, 0.32)
        box = (x + left, y + 0.34, w - left - 0.12, h - below - 0.34)
        axes = figure.add_axes(
            (
                box[0] / 14,
                1 - (box[1] + box[3]) / (0.42 * height),
                box[2] / 14,
                box[3] / (0.42 * height),
            )
        )
        axes.spines[:].set_color("#c7cacf")
        if number:
            _number(axes, panel, prometheus, end)
        else:
            _lines(axes, panel, prometheus, start, end)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    try:
        tool("prometheus")
    except StartError as error:
        sys.exit(f"dashboard-preview: {error}")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        stack = Stack.start(folder / "serve.log")
        try:
            stack.wait_ready()
            targets = {
                "gateway": stack.url.removeprefix("http://"),
                "engine": stack.engine_url.removeprefix("http://"),
            }
            with running(folder, targets, SCRAPE_SECONDS, free_port()) as prometheus:
                time.sleep(5 * SCRAPE_SECONDS)
                start = time.time()
                seen = asyncio.run(load(stack.url, STAGES))
                draw(prometheus, start, time.time(), PICTURE)
        finally:
            stack.kill()
    sys.stdout.write(f"{dict(sorted(seen.items()))}\nwrote {PICTURE}\n")


if __name__ == "__main__":
    main()
