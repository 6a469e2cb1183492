"""The engine on a Ray cluster of this machine: replicas come, are lost, and go."""

import ast
import asyncio
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from deploy.observability.preview import panels
from deploy.ray.cluster import HERE
from loadtests.service import ROOT
from serving.gateway.metrics import TASK_POOL
from serving.tasks.month.answer import MonthRequest
from serving.tasks.profile import PUBLISHED
from tests.kit.asking import ask_all, capacity
from tests.kit.doors import open_doors
from tests.kit.exposition import scrape
from tests.kit.helm import named, of
from tests.kit.oracle import faults
from tests.kit.oracle_month import month_faults
from tests.kit.stack import ENGINE_KEY, Stack
from tests.kit.waiting import wait_for

pytestmark = pytest.mark.timeout(1800)

AUTOSCALING = {
    "min_replicas": 1,
    "max_replicas": 2,
    "target_ongoing_requests": 0.05,
    "upscale_delay_s": 2,
    "downscale_delay_s": 10,
    "metrics_interval_s": 1,
    "look_back_period_s": 15,
}
"""As the GPU's configuration has it, in less time. Ray counts requests once a second: of a few that
take 80 ms each it sees none for seconds, and must not take that for the end of the load."""
RULES = ROOT / "deploy" / "observability" / "rules"
REPLICA = "ray::ServeReplica"
STATUS = """
import sys, ray
ray.init(address="auto", namespace="serve", log_to_driver=False)
from ray import serve
for line in sys.stdin:
    states = serve.status().applications["engine"].deployments["Engine"].replica_states
    print("states:", states, flush=True)
"""
"""Tells them for every line that it is given: importing Ray for each question would take a core."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """``make serve-cluster``, with one replica that may become two."""
    folder = tmp_path_factory.mktemp("cluster")
    config = yaml.safe_load((HERE / "cpu.yaml").read_text(encoding="utf-8"))
    (deployment,) = config["applications"][0]["deployments"]
    assert deployment.pop("num_replicas") == 2
    deployment["autoscaling_config"] = AUTOSCALING
    (folder / "auto.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    stack = Stack.start(
        folder / "log", target="serve-cluster", SERVE_CONFIG=str(folder / "auto.yaml")
    )
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.kill()


@pytest.fixture
def running(cluster: Stack) -> Iterator[Callable[[], int]]:
    """How many replicas answer."""
    with subprocess.Popen(
        [sys.executable, "-c", STATUS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as told:

        def count() -> int:
            assert told.stdin and told.stdout
            print(file=told.stdin, flush=True)
            while not (line := told.stdout.readline()).startswith("states: "):
                assert line, "Ray cannot be asked"
            states = ast.literal_eval(line.removeprefix("states: "))
            return int(states.get("RUNNING", 0))

        yield count
        told.kill()


def test_an_engine_on_ray_serves_the_gateway_alone(cluster: Stack) -> None:
    assert open_doors(cluster.engine_url, ENGINE_KEY) == []


def test_the_chart_gives_ray_s_metrics_the_names_that_rules_and_dashboard_have(
    cluster: Stack,
) -> None:
    """All of them but those that count from the first preemption on."""
    (endpoint,) = named(of("ray"), "PodMonitor", "engine")["spec"]["podMetricsEndpoints"]
    (change,) = endpoint["metricRelabelings"]
    assert (change["sourceLabels"], change["targetLabel"]) == (["__name__"], "__name__")
    (port,) = Path("/tmp/ray/session_latest").glob("metrics_export_port_*")
    url = f"http://127.0.0.1:{port.read_text()}/metrics"
    written = [target["expr"] for _, panel in panels() for target in panel["targets"]]
    written += [path.read_text() for path in RULES.glob("*.yml")]
    wanted = set(re.findall(r"\bvllm:\w+", " ".join(written))) - {"vllm:num_preemptions_total"}
    assert len(wanted) > 10

    def missing() -> set[str]:
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        names = set(re.findall(r"^(\w+)\{", text, re.M))
        found = {re.fullmatch(change["regex"], name) for name in names} - {None}
        return wanted - {change["replacement"].replace("${1}", f[1]) for f in found if f}

    wait_for(lambda: not missing(), 60)


def pids(cluster: Stack, title: str) -> set[int]:
    return {pid for pid, command in cluster.processes().items() if command.startswith(title)}


def retries(cluster: Stack) -> float:
    """Requests that the gateway has sent again."""
    found = scrape(cluster.url)
    return sum(value for (name, _), value in found.items() if name.endswith("retries_total"))


def answered(cluster: Stack) -> float:
    """Task requests answered with 200."""
    return sum(
        value
        for (name, labels), value in scrape(cluster.url).items()
        if name == "routine_http_request_duration_seconds_count"
        and {("method", "POST"), ("status", "200")} <= set(labels)
    )


def has_stuck_request(cluster: Stack) -> bool:
    """Whether a request is at the engine for a whole second: far longer than one takes."""
    for _ in range(5):
        if not scrape(cluster.url)["routine_in_flight_requests", (("pool", TASK_POOL),)]:
            return False
        time.sleep(0.2)
    return True


def lose(cluster: Stack, part: str, running: Callable[[], int]) -> None:
    """Kill one of two, under load; wait until its replica has ended and is replaced."""
    replicas, before = pids(cluster, REPLICA), pids(cluster, part)
    assert len(before) == 2
    # The older: the other may have had no requests yet.
    victim = min(before, key=lambda pid: psutil.Process(pid).create_time())
    os.kill(victim, signal.SIGSTOP)
    wait_for(lambda: has_stuck_request(cluster))  # or it would die without one
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(pids(cluster, REPLICA) - replicas) == 1, 300)
    wait_for(lambda: running() == 2 and len(pids(cluster, REPLICA)) == 2, 300)


async def test_both_tasks_are_answered(cluster: Stack, running: Callable[[], int]) -> None:
    assert running() == 1
    months = [
        MonthRequest.model_validate({**p.model_dump(), "days_per_week": 3, "rates": None})
        for p in PUBLISHED
    ]
    for text in await ask_all(cluster.url, PUBLISHED, at_once=4):
        assert faults(json.loads(text)) == []
    for asked, text in zip(months, await ask_all(cluster.url, months, at_once=4), strict=True):
        assert month_faults(asked.model_dump(), json.loads(text)) == []


def test_replicas_come_with_load_are_lost_without_loss_and_go(
    cluster: Stack, running: Callable[[], int], tmp_path: Path
) -> None:
    """One replica loses its engine, which it must not outlive; then one is lost whole. The other
    answers for both until it is replaced, on cores that the replacement's start takes too: an
    eighth of what one can do is asked, and one in twenty answers may be late."""
    assert running() == 1
    rate = str(max(1, int(asyncio.run(capacity(cluster.url)) / 8)))
    before = answered(cluster)
    with (tmp_path / "load.log").open("wb") as log:
        load = subprocess.Popen(
            [sys.executable, "-m", "locust", "-f", "loadtests/load/locustfile.py", "--headless",
             "--host", cluster.url, "--csv", tmp_path / "locust", "--arrivals", "-u", rate, "-r",
             rate, "--deadline", "30", "--leave", "0", "--max-failed", "0.05", "RateClient"],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: running() == 2, 300)
        lose(cluster, "VLLM::EngineCore", running)
        assert retries(cluster) > 0
        lose(cluster, REPLICA, running)  # what it has not begun, Serve gives to another
        wait_for(lambda: answered(cluster) - before >= 200, 600)
        os.killpg(load.pid, signal.SIGINT)
        assert load.wait(60) == 0, (tmp_path / "load.log").read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(load.pid, signal.SIGKILL)
        load.wait()
    with (tmp_path / "locust_failures.csv").open(encoding="utf-8") as file:
        assert [row for row in csv.DictReader(file) if "'late'" not in row["Error"]] == []
    with (tmp_path / "locust_stats.csv").open(encoding="utf-8") as file:
        (total,) = (row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    assert int(total["Request Count"]) - int(total["Failure Count"]) >= 150
    wait_for(lambda: running() == 1, 300)


def test_ctrl_c_leaves_nothing(cluster: Stack) -> None:
    assert any("raylet" in command for command in cluster.processes().values())
    cluster.press_ctrl_c()
    cluster.wait_stopped()
    assert "stopped: cluster (exit status 143)" in cluster.log.read_text()  # in order, not aborted


def test_what_cannot_be_deployed_ends_with_one_line(tmp_path: Path) -> None:
    """Serve itself gives up and goes on without it."""
    config = yaml.safe_load((HERE / "cpu.yaml").read_text(encoding="utf-8"))
    config["applications"][0]["args"] = {}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    stack = Stack.start(
        tmp_path / "log", target="serve-cluster", SERVE_CONFIG=str(tmp_path / "bad.yaml")
    )
    try:
        assert stack.process.wait(timeout=300) != 0
        assert stack.wait_stopped() != 0
    finally:
        stack.kill()
    said = [line for line in stack.log.read_text().splitlines() if "cannot be deployed" in line]
    assert len(said) == 1
    assert said[0].endswith("cluster: engine cannot be deployed: KeyError: 'bundle'")
