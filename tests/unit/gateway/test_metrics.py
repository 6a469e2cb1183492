"""Names and labels that dashboards and alerts lean on, and what is counted under them."""

import re
from itertools import pairwise

import pytest
from starlette.testclient import TestClient

from serving.gateway.errors import EngineFault, EngineRefused, EngineTimeout, EngineUnavailable
from serving.gateway.metrics import LATENCY_BUCKETS, Metrics
from serving.tasks.registry import TASKS
from tests.kit.bad_requests import GOOD
from tests.kit.exposition import samples
from tests.kit.waiting import wait_for
from tests.unit.gateway.fake_engine import FakeEngine, completion_body, wait_ready

RATE = "/gen/routine/rate"
JSON = {"content-type": "application/json"}
FROZEN = """routine_adapter_ready{adapter}
routine_admissions_total{adapter,outcome}
routine_answer_characters_total{adapter,origin}
routine_build_info{python,version}
routine_check_duration_seconds{adapter}
routine_cpu_seconds_total{}
routine_decisions_total{adapter}
routine_engine_duration_seconds{adapter}
routine_engine_errors_total{adapter,kind}
routine_engine_retries_total{adapter}
routine_event_loop_lag_seconds{}
routine_http_request_duration_seconds{method,route,status}
routine_in_flight_limit_requests{pool}
routine_in_flight_requests{pool}
routine_queue_duration_seconds{adapter}
routine_queue_expected_wait_seconds{pool}
routine_queue_wait_limit_seconds{pool}
routine_queued_requests{pool}
routine_ready{}
routine_resident_memory_bytes{}
routine_semantic_violations_total{adapter,rule}
routine_time_to_first_token_seconds{adapter}
routine_tokens_total{adapter,direction}"""


class Scrape:
    """What /metrics says now."""

    def __init__(self, client: TestClient) -> None:
        self.text = client.get("/metrics").text
        self._samples = samples(self.text)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self._samples.get((f"routine_{name}", tuple(sorted(labels.items()))))


def test_metric_names_and_labels_are_frozen(client: TestClient, engine: FakeEngine) -> None:
    """Renaming one breaks its users' dashboards: say so in the release, then change it here."""
    wait_ready(client)
    client.post(RATE, json=GOOD)
    engine.text = "x"
    client.post(RATE, json=GOOD)
    engine.content_type = "text/event-stream"
    client.post("/v1/completions", content=completion_body(), headers=JSON)
    found = set()
    for series, labels in samples(client.get("/metrics").text):
        name = re.sub(r"_(bucket|sum|count)$", "", series)
        found.add(f"{name}{{{','.join(key for key, _ in labels if key != 'le')}}}")
    assert "\n".join(sorted(found)) == FROZEN
    described = {f"{m.name}{{{','.join(sorted(m.labels))}}}" for m in Metrics().described}
    assert described - found == {  # where there are keys
        "routine_key_requests_total{key,status}",
        "routine_key_tokens_total{key}",
    }
    assert found <= described


def test_requests_are_counted_by_route_and_status_and_no_user_input_is_a_label(
    client: TestClient,
) -> None:
    wait_ready(client)
    client.post(RATE, json=GOOD)
    client.post(RATE, json={})
    client.post(RATE, content=b"x")
    client.get("/secret-path")
    client.request("SECRET", RATE)
    for fields in ({"model": "secret"}, {"model": ["secret"]}, {"secret": "secret"}):
        client.post("/v1/completions", content=completion_body(**fields), headers=JSON)
    scrape = Scrape(client)
    for status in ("200", "415", "422"):
        labels = {"route": RATE, "method": "POST", "status": status}
        assert scrape("http_request_duration_seconds_count", **labels) == 1
    assert scrape("engine_duration_seconds_count", adapter="other") == 1
    assert scrape("tokens_total", adapter="rate", direction="in") == 80
    assert scrape("tokens_total", adapter="rate", direction="out") == 23
    assert scrape("decisions_total", adapter="rate") == 4
    generated = scrape("answer_characters_total", adapter="rate", origin="generated")
    derived = scrape("answer_characters_total", adapter="rate", origin="derived")
    assert generated and derived and generated + derived == len(client.post(RATE, json=GOOD).text)
    for stage in ("queue", "engine", "check"):
        assert scrape(f"{stage}_duration_seconds_count", adapter="rate") == 1
    assert "secret" not in scrape.text.lower()


def test_every_violation_and_error_is_there_from_the_start_with_zero(client: TestClient) -> None:
    """Or the first one would be no increase, and would raise no alarm."""
    scrape = Scrape(client)
    for task in TASKS.values():
        assert scrape("engine_retries_total", adapter=task.name) == 0
        for rule in ("language", *task.rules):
            assert scrape("semantic_violations_total", adapter=task.name, rule=rule) == 0
        for kind in ("unavailable", "timeout", "refused", "fault"):
            assert scrape("engine_errors_total", adapter=task.name, kind=kind) == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EngineUnavailable("x"), "unavailable"),
        (EngineTimeout("x"), "timeout"),
        (EngineFault("x"), "fault"),
        (EngineRefused(404, "x", None), "refused"),
    ],
)
def test_engine_errors_are_counted_by_adapter_and_kind(
    error: EngineUnavailable, kind: str, client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.error = error
    client.post("/v1/completions", content=completion_body(model="month"), headers=JSON)
    assert Scrape(client)("engine_errors_total", adapter="month", kind=kind) == 1


def test_adapters_that_are_not_served_are_seen_in_metrics(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    assert Scrape(client)("adapter_ready", adapter="month") == 1
    engine.error = EngineUnavailable("down")
    wait_ready(client, 503)
    assert Scrape(client)("adapter_ready", adapter="rate") == 0
    engine.served, engine.error = engine.served[:-1], None
    wait_for(lambda: Scrape(client)("adapter_ready", adapter="rate") == 1, 5)
    scrape = Scrape(client)
    assert scrape("adapter_ready", adapter="month") == 0
    assert scrape("ready") == 0


ESCAPED = '{"choices":[{"text":"\\"usage\\":{}"}],'
USAGE = '"usage":{"prompt_tokens":7,"total_tokens":12,"completion_tokens":5}'


@pytest.mark.parametrize(
    ("kind", "chunks", "tokens"),
    [
        ("application/json", [ESCAPED, USAGE[:9], USAGE[9:] + "}"], 5),
        ("application/json", ['{"choices":[]}'], None),
        ("application/json", ['{"usage":null}'], None),
        (
            "text/event-stream",
            ['data: {"choices":[],"usage":null}\n\n', f"data: {{{USAGE}}}\n\n", "data: [DONE]\n\n"],
            5,
        ),
        ("text/event-stream", ["data: {}\n\n", "data: [DONE]\n\n"], None),
    ],
)  # fmt: skip
def test_tokens_of_completions_are_those_the_engine_tells(
    kind: str, chunks: list[str], tokens: int | None, client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.content_type, engine.chunks = kind, [chunk.encode() for chunk in chunks]
    response = client.post("/v1/completions", content=completion_body(), headers=JSON)
    assert response.text == "".join(chunks)
    scrape = Scrape(client)
    assert scrape("tokens_total", adapter="rate", direction="out") == tokens
    assert scrape("tokens_total", adapter="rate", direction="in") == (7 if tokens else None)
    streams = 1 if kind == "text/event-stream" else None
    assert scrape("time_to_first_token_seconds_count", adapter="rate") == streams


def test_buckets_tell_latencies_apart() -> None:
    """A quantile that is read from the buckets is off by no more than half above 20 ms."""
    for low, high in pairwise(LATENCY_BUCKETS):
        assert high / low <= (1.7 if low >= 0.02 else 2.5)
