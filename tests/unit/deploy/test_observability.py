"""What Prometheus and Grafana are given: current, valid, and with a page for every alert."""

import json
import re
from typing import Any

import yaml

from deploy.documents import DOCUMENTS
from deploy.observability.preview import DASHBOARD, panels
from deploy.observability.prometheus import HERE
from serving.gateway.metrics import Metrics
from serving.tasks.registry import TASKS
from serving.vllm_plugin.metrics import DrafterMetrics

RULES = HERE / "rules"


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_every_alert_is_seen_to_fire_and_to_keep_quiet() -> None:
    fires: set[str] = set()
    quiet: set[str] = set()
    for test in yaml.safe_load((RULES / "tests.yaml").read_text())["tests"]:
        for case in test.get("alert_rule_test", ()):
            (fires if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert fires == quiet == set(alerts())


def test_every_alert_has_a_severity_and_a_section_in_the_runbook() -> None:
    sections = re.findall(r"^## (\w+)$", (HERE / "runbook.md").read_text(), re.M)
    for name, rule in alerts().items():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "deploy/observability/runbook.md", name
        assert anchor in {section.lower() for section in sections}, name
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_the_runbook_points_at_what_there_is() -> None:
    text = (HERE / "runbook.md").read_text()
    titles = {panel["title"] for _, panel in panels()}
    named = re.findall(r'\*[\w ]+,\s+"([^"]+)"\*', text)
    assert len(named) > 5
    assert set(named) <= titles
    sections = {section.lower() for section in re.findall(r"^## (\w+)$", text, re.M)}
    assert set(re.findall(r"\(#(\w+)\)", text)) <= sections
    for path in re.findall(r"\]\(([^#)]+)\)", text):
        assert (HERE / path).exists(), path


def test_documents_are_what_the_code_writes() -> None:
    for path, write in DOCUMENTS.items():
        assert path.read_text() == write(), "run make documents"


def test_every_panel_says_what_it_shows_in_which_unit_and_where_it_is_bad() -> None:
    rows = [row for row, _ in panels()]
    assert list(dict.fromkeys(rows)) == [
        "Overview", "Adapters", "Decoding", "Engine", "Gateway", "GPU",
    ]  # fmt: skip
    with_limits = 0
    for _, panel in panels():
        field = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), panel["title"]
        assert field["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        steps = field["thresholds"]["steps"]
        assert steps[0]["value"] is None
        assert [step["value"] for step in steps[1:]] == sorted(s["value"] for s in steps[1:])
        assert {step["color"] for step in steps} <= {"green", "orange", "red"}  # the theme's own
        with_limits += len(steps) > 1
    assert with_limits > 30
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    names = [variable["name"] for variable in variables]
    assert names == ["datasource", "namespace", "gateway", "engine", "adapter"]


def test_every_query_of_a_panel_is_of_the_chosen_namespace() -> None:
    name = re.compile(r"\b(?:routine_\w+|routine:[\w:]+|vllm:\w+|up)\b")
    for _, panel in panels():
        for target in panel["targets"]:
            query = target["expr"]
            for found in name.finditer(query):
                assert query[found.end() :].startswith('{namespace=~"$namespace"'), query


def test_own_metrics_in_panels_and_alerts_exist_with_their_labels() -> None:
    labels = {m.name: m.labels for m in (*Metrics().described, *DrafterMetrics(TASKS).described)}
    queries = [target["expr"] for _, panel in panels() for target in panel["targets"]]
    written = "\n".join([*queries, *(p.read_text() for p in RULES.glob("*.yml"))])
    used = re.findall(r"\b(routine_\w+)(?:\{([^}]*)\})?", written)
    assert len(used) > 50
    for name, selector in used:
        known = labels[re.sub(r"_(bucket|sum|count)$", "", name)]
        known = (*known, "namespace", "instance", "le")
        assert set(re.findall(r"(\w+)(?==|!=)", selector)) <= {*known}, name
    recorded = set(re.findall(r"record: (\S+)", (RULES / "objectives.yml").read_text()))
    assert set(re.findall(r"routine:\w+:\w+", written)) <= recorded


def test_grafana_finds_the_dashboard_and_its_source() -> None:
    provisioning = HERE / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    scrape = yaml.safe_load((HERE / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "routine.yml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
