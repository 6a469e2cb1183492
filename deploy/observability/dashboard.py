"""Writes the Grafana dashboard, the table of metrics and the Prometheus operator's rules:
``make dashboards``. They are committed; a test fails when they are not what this module writes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from tabulate import tabulate

from deploy.observability.engine_panels import DECODING, ENGINE, GPUS
from deploy.observability.panels import Panel
from deploy.observability.service_panels import ADAPTERS, GATEWAY, OVERVIEW
from serving.contract.tasks import TASKS
from serving.engine.metrics import DrafterMetrics
from serving.gateway.metrics import Metrics
from serving.instruments import Described

HERE = Path(__file__).parent
DASHBOARD = HERE / "grafana" / "dashboards" / "routine.json"
TABLE = HERE / "metrics.md"
OPERATOR_RULES = HERE.parent / "kubernetes" / "base" / "rules.yaml"
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

ROWS = (
    ("Overview", OVERVIEW),
    ("Adapters", ADAPTERS),
    ("Decoding", DECODING),
    ("Engine", ENGINE),
    ("Gateway", GATEWAY),
    ("GPU", GPUS),
)

_Builder = timeseries.Panel | stat.Panel


def dashboard_json() -> str:
    """The dashboard as Grafana's JSON."""
    board = (
        grafana.Dashboard("Routine serving")
        .uid("routine-serving")
        .description("5/3/1 plans from vLLM: up, fast, right, full, which adapter, what was saved.")
        .tags(["routine", "vllm"])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .timezone(common.TimeZoneBrowser)
        .refresh("10s")
        .time("now-1h", "now")
        .with_variable(
            grafana.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(_variable("gateway", 'label_values(up{job="gateway"}, instance)'))
        .with_variable(_variable("engine", 'label_values(up{job="engine"}, instance)'))
        .with_variable(
            _variable("adapter", "label_values(routine_engine_duration_seconds_count, adapter)")
        )
    )
    for title, panels in ROWS:
        row = grafana.Row(title)
        if title == "GPU":  # closed: most machines have none
            row = row.collapsed(True)
            for panel in panels:
                row = row.with_panel(_built(panel))
            board = board.with_row(row)
            continue
        board = board.with_row(row)
        for panel in panels:
            board = board.with_panel(_built(panel))
    return str(JSONEncoder(sort_keys=True, indent=1).encode(board.build())) + "\n"


def _variable(name: str, query: str) -> grafana.QueryVariable:
    return (
        grafana.QueryVariable(name)
        .label(name.capitalize())
        .query(query)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _built(panel: Panel) -> _Builder:
    built = _number(panel) if panel.kind == "number" else _lines(panel)
    steps = [models.Threshold(value=None, color=panel.base)]
    steps += [models.Threshold(value=value, color=colour) for value, colour in panel.limits]
    built = (
        built.title(panel.title)
        .description(panel.meaning)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .thresholds(grafana.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    )
    if panel.names:
        words = {value: models.ValueMappingResult(text=text) for value, text in panel.names}
        built = built.mappings([models.ValueMap(options=words)])
    for legend, expr in panel.queries.items():
        query = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto")
        built = built.with_target(query.instant() if panel.kind == "number" else query)
    return built


def _number(panel: Panel) -> stat.Panel:
    """What holds now: asked at one instant, so that it does not outlive what it tells of."""
    named = any("{{" in legend for legend in panel.queries)
    return (
        stat.Panel()
        .height(4)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.NAME if named else common.BigValueTextMode.AUTO)
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _lines(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .height(7)
        .min(0)
        .line_width(2)
        .fill_opacity(40 if panel.kind == "stacked" else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    )
    if panel.kind == "stacked":
        built = built.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.limits:
        style = GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        built = built.thresholds_style(style)
    if panel.most is not None:
        built = built.max(panel.most)
    return built


def metrics_table() -> str:
    """All metrics of our own, as Markdown."""

    def table(described: list[Described]) -> str:
        rows = [
            (f"`{m.name}`", m.kind, ", ".join(f"`{name}`" for name in m.labels), m.text)
            for m in sorted(described, key=lambda m: m.name)
        ]
        return tabulate(rows, ["metric", "kind", "labels", "meaning"], tablefmt="pipe")

    return "\n\n".join(
        [
            "# Metrics",
            "Written by `make dashboards` from the code. A test freezes names and labels. No label "
            "has a value that a client can choose.",
            "## The gateway's (`/metrics` of the gateway)",
            "An adapter's label is its name, which is also its task's; the base model has its own, "
            "and a model that the engine does not serve is `other`.",
            table(Metrics().described),
            "## The drafter's (`/metrics` of the engine, beside vLLM's `vllm:*`)",
            table(DrafterMetrics(TASKS).described) + "\n",
        ]
    )


def operator_rules() -> str:
    """The recording rules and alerts as the Prometheus operator's PrometheusRule."""
    files = sorted((HERE / "rules").glob("*.yml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "routine"},
        "spec": {"groups": groups},
    }
    text: str = yaml.safe_dump(resource, sort_keys=False, allow_unicode=True, width=120)
    return "# Written by `make dashboards` from deploy/observability/rules.\n" + text


def main() -> None:
    DASHBOARD.write_text(dashboard_json())
    TABLE.write_text(metrics_table())
    OPERATOR_RULES.write_text(operator_rules())
    sys.stdout.write(f"wrote {DASHBOARD}, {TABLE} and {OPERATOR_RULES}\n")


if __name__ == "__main__":
    main()
