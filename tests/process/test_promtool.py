"""What Prometheus is given, as its own promtool sees it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from deploy.observability.preview import expression, panels
from deploy.observability.prometheus import HERE, HINT, configuration, tool
from serving.gateway.metrics import Metrics
from serving.process import StartError
from serving.tasks.registry import TASKS
from serving.vllm_plugin.metrics import DrafterMetrics
from tests.kit.helm import named, of

RULES = HERE / "rules"


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    try:
        binary = tool("promtool")
    except StartError:
        pytest.skip(HINT)
    command = [str(binary), *map(str, arguments)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


def test_the_configuration_is_prometheus_s(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "config", HERE / "prometheus.yml")
    local = configuration(tmp_path, {"gateway": "127.0.0.1:1", "engine": "127.0.0.1:2"}, 1)
    assert "SUCCESS" in promtool("check", "config", local)
    jobs = yaml.safe_load(local.read_text())["scrape_configs"]
    assert [job["job_name"] for job in jobs] == ["gateway", "engine"]


def test_alerts_fire_and_keep_quiet_as_promtool_s_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULES / "tests.yaml")


def of_chart(folder: Path, namespace: str) -> Path:
    """The rules' tests for the chart's copy of the rules, with all series in ``namespace``."""
    rules = named(of("cpu"), "PrometheusRule", "routine")["spec"]
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    cases = yaml.safe_load((RULES / "tests.yaml").read_text())
    for case in cases["tests"]:
        case.pop("promql_expr_test", None)
        for series in case["input_series"]:
            name, brace, rest = series["series"].partition("{")
            series["series"] = f'{name}{{namespace="{namespace}"' + (f", {rest}" if brace else "}")
        case["alert_rule_test"] = [
            expected_of_chart(alert, namespace)
            for alert in case.get("alert_rule_test", ())
            if namespace == "routine" or "Down" not in alert["alertname"]  # nothing is up here
        ]
    path = folder / f"{namespace}.yaml"
    path.write_text(yaml.safe_dump({**cases, "rule_files": ["rules.yml"]}, sort_keys=False))
    return path


def expected_of_chart(alert: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The chart's alerts name their namespace, and where the runbook is to be read."""
    if namespace != "routine":
        return {**alert, "exp_alerts": []}
    expected = []
    for one in alert.get("exp_alerts") or ():
        anchor = one["exp_annotations"]["runbook_url"].partition("#")[2]
        link = {"runbook_url": f"https://example.org/runbook.md#{anchor}"}
        labels = {**one["exp_labels"], "namespace": namespace}
        expected.append(
            {"exp_labels": labels, "exp_annotations": {**one["exp_annotations"], **link}}
        )
    return {**alert, "exp_alerts": expected}


@pytest.mark.parametrize("namespace", ["routine", "another"])
def test_the_chart_s_alerts_are_of_its_namespace_alone(namespace: str, tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", of_chart(tmp_path, namespace))


SCALING = """
rule_files: []
tests:
  - interval: 15s
    input_series:
      - {{series: 'vllm:num_requests_running{{namespace="routine", instance="1"}}', values: '40x9'}}
      - {{series: 'vllm:num_requests_running{{namespace="routine", instance="2"}}', values: '8x9'}}
      - {{series: 'vllm:num_requests_waiting{{namespace="routine", instance="1"}}', values: '3x9'}}
      - {{series: 'vllm:num_requests_running{{namespace="other"}}', values: '999x9'}}
      - {{series: 'vllm:num_requests_waiting{{namespace="other"}}', values: '999x9'}}
      - {{series: 'routine_queued_requests{{namespace="{queued}", pool="tasks"}}', values: '7x9'}}
    promql_expr_test:
      - {{expr: '{query}', eval_time: 1m, exp_samples: {samples}}}
"""


@pytest.mark.parametrize(("queued", "samples"), [("routine", "[{value: 58}]"), ("other", "[]")])
def test_scaling_counts_what_runs_and_waits_here_and_no_data_is_no_zero(
    queued: str, samples: str, tmp_path: Path
) -> None:
    (trigger,) = named(of("cpu"), "ScaledObject", "engine")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    path = tmp_path / "tests.yaml"
    path.write_text(SCALING.format(queued=queued, samples=samples, query=query))
    assert "SUCCESS" in promtool("test", "rules", path)


def test_the_dashboard_s_queries_parse(tmp_path: Path) -> None:
    """Each as a recording rule, which is what promtool reads."""
    queries = [expression(target["expr"]) for _, panel in panels() for target in panel["targets"]]
    rules = [{"record": f"panel:query{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(queries)} rules found" in promtool("check", "rules", path)


def test_metrics_are_named_as_prometheus_wants_it() -> None:
    for registry in (Metrics().registry, DrafterMetrics(TASKS).registry):
        assert promtool("check", "metrics", given=generate_latest(registry)) == ""
