"""A task's request that an engine lost is sent again; nothing else is."""

import time

import pytest
from starlette.testclient import TestClient

from serving.gateway.errors import (
    EngineFault,
    EngineSilent,
    EngineTimeout,
    EngineUnavailable,
    GatewayError,
)
from serving.gateway.generate import RETRY_SECONDS
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.fake_engine import FakeEngine, completion_body, wait_ready

RATE = "/gen/routine/rate"
LOST = EngineUnavailable("dropped")


LEAST, MOST = RETRY_SECONDS


def post(client: TestClient, engine: FakeEngine) -> tuple[int, int]:
    """The answer's status, and how many times the engine was asked."""
    wait_ready(client)
    before = len(engine.calls)
    response = client.post(RATE, json=GOOD)
    return response.status_code, len(engine.calls) - before


def test_one_lost_request_is_sent_again_at_once_and_counted(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    start, engine.losses = time.monotonic(), [LOST]
    assert post(client, engine) == (200, 2)
    assert time.monotonic() - start < LEAST
    metrics = client.get("/metrics").text
    assert 'routine_engine_retries_total{adapter="rate"} 1.0' in metrics
    assert 'routine_engine_errors_total{adapter="rate",kind="unavailable"} 0.0' in metrics
    assert engine.calls[-1] == engine.calls[-2]


def test_the_third_try_comes_after_a_moment_and_is_the_last(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    for losses, status in ((2, 200), (3, 503)):
        start, engine.losses = time.monotonic(), [LOST] * losses
        assert post(client, engine) == (status, 3)
        assert LEAST <= time.monotonic() - start < 10 * MOST
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
