"""What Prometheus is given, as its own promtool sees it."""

import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from deploy.observability.preview import expression, panels
from deploy.observability.prometheus import HERE, HINT, configuration, tool
from serving.gateway.metrics import Metrics
from serving.process import StartError
from serving.tasks.registry import TASKS
from serving.vllm_plugin.metrics import DrafterMetrics

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
