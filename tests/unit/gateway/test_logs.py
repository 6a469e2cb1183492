"""Logs are JSON with the request's ids, and say nothing of what was asked or answered."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.gateway import logs
from serving.gateway.errors import EngineFault, EngineTimeout
from serving.tasks.rate import answer as rate
from tests.kit.bad_requests import GOOD
from tests.unit.gateway.fake_engine import FakeEngine, completion_body, wait_ready

RATE = "/gen/routine/rate"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
IDS = {"x-request-id": "abc-1", "traceparent": TRACE}
JSON = {"content-type": "application/json"}
SECRETS = ("243.5", "비밀")


class Log:
    def __init__(self) -> None:
        self.written = io.StringIO()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written.getvalue().splitlines()]

    def of_requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["message"] == "request"]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Log]:
    found, root = Log(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.stderr", found.written)
    logs.set_up(getattr(request, "param", "info"))
    yield found
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


def test_a_request_leaves_one_line_with_its_ids(client: TestClient, log: Log) -> None:
    wait_ready(client)
    client.post(RATE, json=GOOD, headers=IDS)
    (line,) = log.of_requests()
    assert line["level"] == "INFO"
    assert (line["request_id"], line["trace_id"]) == ("abc-1", TRACE.split("-")[1])
    assert (line["route"], line["method"], line["status"]) == (RATE, "POST", 200)
    assert 0 < line["seconds"] < 5
    assert line["time"].endswith("Z")
    assert "error" not in line


def test_failures_are_warnings_with_the_error_s_code(
    client: TestClient, engine: FakeEngine, log: Log
) -> None:
    wait_ready(client)
    engine.error = EngineTimeout("x")
    client.post(RATE, json=GOOD)
    client.post(RATE, content=b"{}")
    first, second = log.of_requests()
    assert (first["level"], first["status"], first["error"]) == ("WARNING", 504, "engine_timeout")
    expected = ("INFO", 415, "unsupported_media_type")
    assert (second["level"], second["status"], second["error"]) == expected


def ask_everything(client: TestClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, refusals, faults and a crash, each with a client's own words in it."""

    def broken(values: object) -> str:
        raise RuntimeError(f"a bug with {SECRETS}")

    wait_ready(client)
    profile = {**GOOD, "rm_weight": {**GOOD["rm_weight"], "squat": 243.5}}
    client.post(RATE, json=profile)
    client.post(RATE, json={**profile, "gender": "비밀"})
    client.post(RATE, json={**profile, "비밀": 1})
    client.post(RATE, content="비밀".encode(), headers=JSON)
    client.post("/v1/completions", content=completion_body(prompt="비밀"), headers=JSON)
    client.get("/비밀?q=비밀")
    engine.text = "비밀"
    client.post(RATE, json=profile)
    engine.text, engine.error = None, EngineFault("비밀")
    client.post(RATE, json=profile)
    engine.error = None
    monkeypatch.setattr(rate.OUTPUT, "text", broken)
    assert client.post(RATE, json=profile).status_code == 500


def test_nothing_of_a_prompt_or_profile_is_logged_at_the_default_level(
    client: TestClient, engine: FakeEngine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_everything(client, engine, monkeypatch)
    assert len(log.of_requests()) == 9
    (crash,) = [line for line in log.lines() if "exception" in line]
    assert crash["exception"].endswith("RuntimeError")
    assert "test_logs.py" in crash["exception"]
    for secret in SECRETS:
        assert secret not in log.written.getvalue()


@pytest.mark.parametrize("log", ["debug"], indirect=True)
def test_the_level_debug_tells_what_errors_say(
    client: TestClient, engine: FakeEngine, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_everything(client, engine, monkeypatch)
    assert "a bug with" in log.written.getvalue()
    assert 'gender cannot be \\"비밀\\"' in log.written.getvalue()


def test_machines_that_look_in_every_few_seconds_leave_no_line(
    client: TestClient, log: Log
) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path)
    assert log.of_requests() == []


def test_warnings_are_logged_like_everything_else(log: Log) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    (line,) = log.lines()
    assert line["level"] == "WARNING"
    assert "old thing" in line["message"]
