"""A task's request that an engine lost is sent again; nothing else is."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from serving.gateway.errors import (
    EngineFault,
    EngineSilent,
    EngineTimeout,
    EngineUnavailable,
    GatewayError,
)
from serving.gateway.generate import RETRY_SECONDS, Generator
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.fake_engine import FakeEngine, completion_body, wait_ready

RATE = "/gen/routine/rate"
LOST = EngineUnavailable("dropped")


def post(client: TestClient, engine: FakeEngine) -> tuple[int, int]:
    """The answer's status, and how many times the engine was asked."""
    wait_ready(client)
    before = len(engine.calls)
    response = client.post(RATE, json=GOOD)
    return response.status_code, len(engine.calls) - before


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the gateway waited between tries, as it is told to; nobody waits here."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(Generator._asked_again.retry, "sleep", sleep)
    return waited


def test_one_lost_request_is_sent_again_at_once_and_counted(
    client: TestClient, engine: FakeEngine, waits: list[float]
) -> None:
    wait_ready(client)
    engine.losses = [LOST]
    assert post(client, engine) == (200, 2)
    assert waits == []
    metrics = client.get("/metrics").text
    assert 'routine_engine_retries_total{adapter="rate"} 1.0' in metrics
    assert 'routine_engine_errors_total{adapter="rate",kind="unavailable"} 0.0' in metrics
    assert engine.calls[-1] == engine.calls[-2]


def test_the_third_try_comes_after_a_moment_and_is_the_last(
    client: TestClient, engine: FakeEngine, waits: list[float]
) -> None:
    wait_ready(client)
    engine.losses = [LOST, LOST]
    assert post(client, engine) == (200, 3)
    engine.losses = [LOST, LOST, LOST]
    assert post(client, engine) == (503, 3)
    least, most = RETRY_SECONDS
    assert len(waits) == 2
    assert all(least <= seconds <= most for seconds in waits)
    metrics = client.get("/metrics").text
    assert 'routine_engine_retries_total{adapter="rate"} 4.0' in metrics
    assert 'routine_engine_errors_total{adapter="rate",kind="unavailable"} 1.0' in metrics


@pytest.mark.parametrize(
    ("error", "status"),
    [(EngineSilent("x"), 503), (EngineTimeout("x"), 504), (EngineFault("x"), 502)],
)
def test_what_took_its_time_or_would_fail_again_is_not_sent_again(
    error: GatewayError, status: int, client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.losses = [error]
    assert post(client, engine) == (status, 1)


def test_a_second_try_that_fails_in_another_way_is_the_last(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.losses = [LOST, EngineTimeout("x")]
    assert post(client, engine) == (504, 2)


def test_a_client_s_own_completion_is_not_sent_again(
    client: TestClient, engine: FakeEngine
) -> None:
    """Nobody has checked what is in it: it can be what kills an engine."""
    wait_ready(client)
    engine.losses = [LOST]
    response = client.post(
        "/v1/completions", content=completion_body(), headers={"content-type": "application/json"}
    )
    assert response.status_code == 503
    assert len(engine.bodies) == 1
