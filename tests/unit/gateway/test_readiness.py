"""An engine that hangs is not ready, one that is busy is, and one that moves again is again."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serving.gateway import readiness
from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.fake_engine import HERE, FakeEngine, factory, wait_ready

RATE = "/gen/routine/rate"
STALL_SECONDS = 0.2


@pytest.fixture
def watched(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A gateway that looks for progress all the time."""
    monkeypatch.setattr(readiness, "QUIET_SECONDS", 0.0)
    settings = GatewaySettings(probe_interval_seconds=0.01, stall_seconds=STALL_SECONDS)
    with TestClient(create_app(settings, factory(engine)), HERE) as client:
        wait_ready(client)
        yield client


def test_a_hung_engine_s_requests_are_refused_at_once_until_it_moves(
    watched: TestClient, engine: FakeEngine
) -> None:
    proofs = len([call for call in engine.calls if call.regex])
    engine.gate = asyncio.Event()
    wait_ready(watched, 503)
    start = time.monotonic()
    response = watched.post(RATE, json=GOOD)
    assert time.monotonic() - start < STALL_SECONDS
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert "made no step in 0.1 s" in response.json()["error"]["message"]
    engine.gate = None
    wait_ready(watched)
    assert watched.post(RATE, json=GOOD).status_code == 200
    # It is the same engine: its adapters need no new proof.
    assert len([call for call in engine.calls if call.regex]) == proofs + 1


def test_an_engine_that_is_busy_with_others_is_ready(
    watched: TestClient, engine: FakeEngine
) -> None:
    engine.gate, engine.moves = asyncio.Event(), True
    for _ in range(10):
        time.sleep(STALL_SECONDS / 4)
        assert watched.get("/readyz").status_code == 200


def test_answers_show_progress_enough(
    watched: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "QUIET_SECONDS", 60.0)
    watched.post(RATE, json=GOOD)
    time.sleep(0.05)
    asked = len(engine.calls)
    time.sleep(0.1)
    assert len(engine.calls) == asked
