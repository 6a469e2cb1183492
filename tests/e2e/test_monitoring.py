"""A real Prometheus and a real collector beside the real service, under a short load.

The service sends its traces.
"""

import asyncio
import json
import math
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from deploy.observability.preview import DASHBOARD, expression, panels
from deploy.observability.prometheus import HINT, Prometheus, running, tool
from loadtests.service import free_port
from serving.process import StartError
from tests.kit.bad_requests import GOOD
from tests.kit.collector import Collector, collector
from tests.kit.mix import KINDS, Seen, load
from tests.kit.stack import Stack

STAGES = ((2, 8), (12, 12))
"""Clients at once, and seconds."""
LEAST = 100
"""Answers to the most frequent kind of request; a slower machine takes longer."""
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass(frozen=True)
class Watched:
    """The service and what watched it."""

    stack: Stack
    collector: Collector
    prometheus: Prometheus
    seen: Seen


def enough(seen: Seen) -> bool:
    """Every kind was asked, the most frequent often."""
    return seen["rate 200"] >= LEAST and {kind.rpartition(" ")[0] for kind in seen} == set(KINDS)


@pytest.fixture(scope="module")
def spans() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(spans: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("traced")
    stack = Stack.start(
        folder / "serve.log",
        VLLM_CACHE_ROOT=str(folder / "cache"),  # as on a new machine
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=spans.url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_BSP_SCHEDULE_DELAY="500",
    )
    try:
        stack.wait_ready()
        yield stack
        stack.press_ctrl_c()
        stack.wait_stopped()
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def watched(
    traced: Stack, spans: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    try:
        tool("prometheus")
    except StartError:
        pytest.skip(HINT)
    targets = {
        "gateway": traced.url.removeprefix("http://"),
        "engine": traced.engine_url.removeprefix("http://"),
    }
    folder = tmp_path_factory.mktemp("prometheus")
    with running(folder, targets, 1, free_port()) as prometheus:
        time.sleep(3)  # counters that begin within the load would begin with its first requests
        seen = asyncio.run(load(traced.url, STAGES, enough))
        time.sleep(3)  # the last scrape, and rules over it
        yield Watched(traced, spans, prometheus, seen)


def test_every_query_of_every_panel_returns_data(watched: Watched) -> None:
    empty, asked = [], 0
    for row, panel in panels():
        if row == "GPU":  # this machine has none
            continue
        for target in panel["targets"]:
            asked += 1
            found = watched.prometheus.instant(expression(target["expr"]).replace("[10s]", "[30s]"))
            if not any(math.isfinite(float(series["value"][1])) for series in found):
                empty.append((row, panel["title"], target["expr"], found))
    assert empty == []
    assert asked > 50


def test_prometheus_shows_its_pages(watched: Watched) -> None:
    with urllib.request.urlopen(watched.prometheus.url, timeout=30) as response:
        assert response.status == 200
        assert "<title>Prometheus" in response.read().decode()


def test_the_dashboard_s_variables_have_values(watched: Watched) -> None:
    """All but the namespace, which there is in Kubernetes alone."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [v["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert len(queries) == 4
    for query in queries:
        metric, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
        values = watched.prometheus.get(f"label/{label}/values", **{"match[]": expression(metric)})
        assert bool(values) == (label != "namespace"), query


def test_every_request_is_counted_once(watched: Watched) -> None:
    """What clients saw is what Prometheus says."""

    def counted(route: str, status: str) -> float:
        labels = f'route="{route}",status="{status}"'
        (found,) = watched.prometheus.instant(
            f"sum(routine_http_request_duration_seconds_count{{{labels}}})"
        )
        return float(found["value"][1])

    seen = watched.seen
    assert {kind.rpartition(" ")[0] for kind in seen} == set(KINDS)
    assert counted("/gen/routine/rate", "422") == seen["wrong 422"]
    assert counted("/v1/completions", "200") == seen["stream 200"]
    months = seen["month 200"] + seen["month without rates 200"]
    assert counted("/gen/routine/month", "200") == months
    # A hasty client can leave as its answer leaves: it is counted once, as the one or the other.
    assert counted("/gen/routine/rate", "200") >= seen["rate 200"] >= LEAST
    rates = sum(counted("/gen/routine/rate", status) for status in ("200", "499"))
    assert seen["rate 200"] <= rates <= seen["rate 200"] + seen["hasty left"] + seen["hasty 200"]


def test_passes_saved_are_seen_by_task(watched: Watched) -> None:
    for task, most in (("rate", 6), ("month", 45)):
        (found,) = watched.prometheus.instant(
            f'routine_drafter_passes_total{{task="{task}"}} / routine_drafter_requests_total'
        )
        assert 1 < float(found["value"][1]) < most
    (failures,) = watched.prometheus.instant("routine_drafter_failures_total")
    assert failures["value"][1] == "0"


def test_a_service_that_does_its_work_raises_no_alarm(watched: Watched) -> None:
    """But for the latency's: two busy cores may take more than a second for some answers."""
    found = watched.prometheus.get("alerts")["alerts"]
    names = {alert["labels"]["alertname"] for alert in found}
    assert names <= {"RoutineLatencyBurn", "RoutineLatencyBurnSlow"}
    groups = watched.prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


async def test_one_trace_goes_from_the_caller_through_the_gateway_into_vllm(
    traced: Stack, spans: Collector
) -> None:
    caller = "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{TRACE_ID}-{caller}-01", "x-request-id": "traced-1"}
    async with (
        aiohttp.ClientSession(traced.url) as session,
        session.post("/gen/routine/rate", json=GOOD, headers=headers) as response,
    ):
        assert response.status == 200
    engine = await asyncio.to_thread(
        spans.wait, lambda s: s.trace_id == TRACE_ID and s.name == "llm_request"
    )
    server = await asyncio.to_thread(
        spans.wait, lambda s: s.trace_id == TRACE_ID and s.parent_id == caller
    )
    assert (server.service, server.name) == ("routine-gateway", "POST /gen/routine/rate")
    assert (engine.service, engine.parent_id) == ("routine-engine", server.span_id)
    assert engine.attributes["gen_ai.usage.completion_tokens"]
    assert "남성" not in str(spans.spans)


def test_the_gateway_s_log_is_json_with_ids_and_without_profiles(traced: Stack) -> None:
    text = Path(traced.log).read_text(encoding="utf-8")
    lines = [line.split(" | ", 1)[1] for line in text.splitlines() if "gateway | {" in line]
    requests = [entry for entry in map(json.loads, lines) if entry["message"] == "request"]
    ours = [entry for entry in requests if entry["request_id"] == "traced-1"]
    assert [(entry["trace_id"], entry["status"]) for entry in ours] == [(TRACE_ID, 200)]
    assert "남성" not in "".join(lines)
