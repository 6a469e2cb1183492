"""Plot the dashboard's overview under a short load on the demo model: ``make dashboard-preview``.

The dashboard's own queries run against a real Prometheus. The result is not a Grafana screenshot,
because neither PyPI nor Debian packages Grafana.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.observability.prometheus import HERE, Prometheus, running, tool
from loadtests.bench.figures import started
from loadtests.service import ROOT, free_port
from serving.process import StartError

DASHBOARD = HERE / "grafana" / "dashboards" / "routine.json"
PICTURE = HERE / "overview.png"
LOCUST = "-m locust -f loadtests/load/locustfile.py,loadtests/load/stairs.py --headless"
VARIABLES = {
    **dict.fromkeys(("$namespace", "$gateway", "$engine", "$adapter"), ".*"),
    "$__rate_interval": "10s",
}


def expression(query: str) -> str:
    """Return ``query`` with every dashboard variable set to "All"."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the row title and definition of each dashboard panel."""
    row = ""
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            for inside in panel["panels"]:  # collapsed row
                yield row, inside
        else:
            yield row, panel


def draw(prometheus: Prometheus, start: float, end: float, path: Path) -> None:
    """Plot the overview's charts from ``start`` to ``end`` (Unix times) to an image file."""
    from matplotlib.figure import Figure

    charts = [p for row, p in panels() if row == "Overview" and p["type"] == "timeseries"]
    figure = Figure(figsize=(14, 6), layout="constrained")
    for axis, panel in zip(figure.subplots(2, 3).flat, charts, strict=True):
        for target in panel["targets"]:
            for series in prometheus.range(expression(target["expr"]), start, end, 1):
                name = target["legendFormat"]
                for label, value in series["metric"].items():
                    name = name.replace("{{" + label + "}}", value)
                times, values = zip(*series["values"], strict=True)
                axis.plot([t - start for t in times], [float(v) for v in values], label=name)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axis.set_title(f"{panel['title']} ({unit})", loc="left", fontsize=10)
        axis.set(xlabel="seconds", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=100)


def main() -> None:
    try:
        tool("prometheus")
    except StartError as error:
        sys.exit(f"dashboard-preview: {error}")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with started(ROOT, folder / "serve.log") as (_, service):
            targets = {"gateway": service.url, "engine": str(service.metrics)}
            targets = {job: url.removeprefix("http://") for job, url in targets.items()}
            with running(folder, targets, 1, free_port()) as prometheus:
                time.sleep(5)  # let every series exist before the load starts
                start, options = time.time(), ["--host", service.url, "-u", "24", "-t", "120s"]
                command = [sys.executable, *LOCUST.split(), *options]
                subprocess.run(command, cwd=ROOT, check=False)  # Locust fails if requests are late
                draw(prometheus, start, time.time(), PICTURE)
    sys.stdout.write(f"wrote {PICTURE}\n")


if __name__ == "__main__":
    main()
