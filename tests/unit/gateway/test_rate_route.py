"""POST /gen/routine/rate: what comes in, what is asked of the engine, what leaves."""

import json
from random import Random

import pytest
from starlette.testclient import TestClient

from loadtests.bench.upstream import ADAPTER_SEED
from serving.gateway.errors import EngineTimeout, EngineUnavailable
from serving.gateway.routes import PASSES, TOKENS
from serving.gateway.settings import GatewaySettings
from serving.tasks.profile import PUBLISHED
from serving.tasks.rate import answer as rate
from serving.tasks.registry import TASKS
from tests.kit.bad_requests import GOOD
from tests.kit.oracle import faults
from tests.unit.gateway.fake_engine import FakeEngine, wait_ready

RATE = "/gen/routine/rate"
SHAPE = {"message", "type", "param", "code"}


def test_a_profile_is_answered_with_the_six_keys(client: TestClient) -> None:
    response = client.post(RATE, json=GOOD)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert faults(response.json()) == []
    decided = rate.OUTPUT.sample(Random(ADAPTER_SEED))
    assert decided.items() <= response.json().items()
    assert response.headers[TOKENS] == "23"
    assert response.headers[PASSES] == "3"


def test_the_engine_is_asked_with_prompt_and_forced_head(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.calls.clear()
    client.post(RATE, json=GOOD)
    (call,) = engine.calls
    assert call.prompt == TASKS["rate"].question(PUBLISHED[0]).prompt + rate.OUTPUT.head


def test_whole_kilograms_and_fractions_are_both_weights(client: TestClient) -> None:
    weights = {"bench_press": 41, "squat": 50.3, "dead_lift": 55.0, "over_head_press": 30}
    assert client.post(RATE, json={**GOOD, "rm_weight": weights}).status_code == 200


@pytest.mark.parametrize(
    ("error", "status"), [(EngineUnavailable("down"), 503), (EngineTimeout("slow"), 504)]
)
def test_engine_errors_keep_the_shape_and_say_when_to_retry(
    client: TestClient, engine: FakeEngine, error: EngineUnavailable, status: int
) -> None:
    engine.error = error
    response = client.post(RATE, json=GOOD)
    assert response.status_code == status
    assert set(response.json()["error"]) == SHAPE
    assert int(response.headers["retry-after"]) > 0


def test_an_answer_outside_the_language_is_held_back_and_counted(
    client: TestClient, engine: FakeEngine
) -> None:
    engine.text = "65 and something else"
    response = client.post(RATE, json=GOOD)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "engine_fault"
    line = 'routine_semantic_violations_total{adapter="rate",rule="language"} 1.0'
    assert line in client.get("/metrics").text


def test_an_answer_that_breaks_a_rule_is_held_back_and_counted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate.OUTPUT, "text", lambda values: json.dumps({"wrong": 1}))
    response = client.post(RATE, json=GOOD)
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "answer_rejected"
    line = 'routine_semantic_violations_total{adapter="rate",rule="keys"} 1.0'
    assert line in client.get("/metrics").text


def test_a_bug_is_a_500_in_the_same_shape(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(values: object) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr(rate.OUTPUT, "text", broken)
    response = client.post(RATE, json=GOOD)
    assert response.status_code == 500
    assert set(response.json()["error"]) == SHAPE
    assert "bug" not in response.text
    assert response.headers["x-request-id"]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="port"):
        GatewaySettings(port=70_000)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (9.5, "9.5"),
        (True, "true"),
        ("9", '"9"'),
        (None, "null"),
        ([], "an empty list"),
        ([1], "a list"),
        ({}, "an empty object"),
        ({"a": 1}, "an object"),
    ],
)
def test_errors_show_a_value_as_json_has_it(value: object, shown: str, client: TestClient) -> None:
    response = client.post(RATE, json={**GOOD, "experience": value})
    assert response.json()["error"]["message"].startswith(f"experience cannot be {shown}; ")
