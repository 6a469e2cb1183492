"""Ids, metrics, operations and the pages around the answers."""

import asyncio
import json
import re
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from unicodedata import normalize

import msgspec
import pytest
from starlette.testclient import TestClient
from starlette.types import Message
from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn

from dataset.coaches.rate import coach_rate
from loadtests.bench.upstream import BASE_SEED, legal
from serving.gateway.app import create_app
from serving.gateway.deadline import TIMEOUT
from serving.gateway.engine import Model
from serving.gateway.errors import EngineUnavailable
from serving.gateway.readiness import MISSED_CHECKS
from serving.gateway.settings import GatewaySettings
from serving.tasks.profile import PUBLISHED
from serving.tasks.rate import answer as rate
from tests.kit.bad_requests import GOOD
from tests.kit.oracle import faults
from tests.kit.oracle_month import month_faults
from tests.kit.waiting import wait_for
from tests.unit.gateway.fake_engine import (
    ADAPTERS,
    BASE,
    FakeEngine,
    completion_body,
    factory,
    wait_ready,
)

RATE = "/gen/routine/rate"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JSON = {"content-type": "application/json"}
GOLDEN = ADAPTERS[0].golden or []
OTHER = legal(rate.OUTPUT.decided_regex, BASE_SEED)


def served(golden: list[str] | None) -> list[Model]:
    """The base and the adapters, the first of which was evaluated to other answers."""
    return [BASE, msgspec.structs.replace(ADAPTERS[0], golden=golden), *ADAPTERS[1:]]


def test_request_ids_are_taken_returned_and_passed_to_the_engine(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    response = client.post(RATE, json=GOOD, headers={"x-request-id": "abc-1", "traceparent": TRACE})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["traceparent"] == TRACE
    assert engine.calls[-1].headers == {"x-request-id": "abc-1", "traceparent": TRACE}


@pytest.mark.parametrize("bad", ["", "with space", "x" * 129, "00-0-0-00", "ff" + TRACE[2:]])
def test_ids_that_are_malformed_are_replaced(client: TestClient, bad: str) -> None:
    response = client.get("/healthz", headers={"x-request-id": bad, "traceparent": bad})
    assert re.fullmatch(r"[0-9a-f]{32}|00-0-0-00|ff-.*", response.headers["x-request-id"])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", response.headers["traceparent"])


def test_errors_carry_the_request_id_too(client: TestClient) -> None:
    response = client.post(RATE, content=b"x", headers={"x-request-id": "abc"})
    assert response.status_code == 415
    assert response.headers["x-request-id"] == "abc"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nix", 404, "not_found"),
        ("GET", RATE, 405, "method_not_allowed"),
        ("POST", f"{RATE}/", 404, "not_found"),
        ("GET", "/readyz/", 404, "not_found"),
        ("GET", "/v1/models/nix", 404, "model_not_found"),
        ("DELETE", "/v1/models/rate", 405, "method_not_allowed"),
    ],
)
def test_unknown_routes_have_the_one_error_shape(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/embeddings", "/v1/completions/"])
def test_what_there_is_not_of_openai_s_api_names_what_there_is(
    client: TestClient, path: str
) -> None:
    error = client.post(path, json={}).json()["error"]
    assert error["code"] == "not_found"
    assert "there are GET /v1/models, POST /v1/completions and" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/nix", 404), ("POST", "/healthz", 405)]
)
def test_a_body_without_a_route_is_not_asked_for_its_type(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, path, content=b"x")
    assert response.status_code == status
    assert status == 404 or response.headers["allow"] == "GET"


@pytest.mark.parametrize("length", ["abc", "-5"])
def test_a_length_that_is_no_number_is_not_believed(client: TestClient, length: str) -> None:
    response = client.post(RATE, content=b"{}", headers={**JSON, "content-length": length})
    assert response.status_code == 422


async def test_a_client_that_leaves_frees_its_place_and_is_counted(
    settings: GatewaySettings,
) -> None:
    """Driven as a server drives it: the ASGI callable, its messages, then a disconnect."""
    engine = FakeEngine()
    quiet = settings.model_copy(update={"probe_interval_seconds": 1000.0})
    app = create_app(quiet, factory(engine))
    headers = [(b"content-type", b"application/json")]

    async def nothing() -> Message:
        return await asyncio.Future()

    async def ask(
        method: str, path: str, receive: Callable[[], Awaitable[Message]] = nothing
    ) -> list[Message]:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
        }
        await asyncio.wait_for(app(scope, receive, send), 5)
        return sent

    messages = [{"type": "http.request", "body": json.dumps(GOOD).encode(), "more_body": False}]

    async def leave() -> Message:
        if messages:
            return messages.pop()
        await engine.reached.wait()
        return {"type": "http.disconnect"}

    lifespan = LifespanOn(Config(app))
    await lifespan.startup()
    try:
        for _ in range(500):
            if (await ask("GET", "/readyz"))[0]["status"] == 200:
                break
            await asyncio.sleep(0.01)
        engine.gate = asyncio.Event()
        assert await ask("POST", RATE, leave) == []
        text = (await ask("GET", "/metrics"))[1]["body"].decode()
    finally:
        await lifespan.shutdown()
    assert engine.finished == 0
    counted = 'routine_http_request_duration_seconds_count{method="POST",route="/gen/routine/rate"'
    assert f'{counted},status="499"}} 1.0' in text
    assert 'routine_admissions_total{adapter="rate",outcome="admitted"} 1.0' in text
    assert 'routine_in_flight_requests{pool="tasks"} 0.0' in text


@pytest.mark.parametrize("path", [RATE, "/v1/completions"])
@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ("60000", 200, ""),
        ("999999999", 200, ""),
        ("-1", 422, "send milliseconds"),
        ("1.5", 422, "send milliseconds"),
        ("", 422, "send milliseconds"),
        ("9" * 10, 422, "send milliseconds"),
        ("0", 422, "leaves 0 ms"),
    ],
)
def test_a_caller_s_deadline_is_milliseconds(
    client: TestClient, path: str, given: str, status: int, words: str
) -> None:
    body = json.dumps(GOOD).encode() if path == RATE else completion_body()
    client.post(path, content=body, headers=JSON)  # now it is known how long one takes
    response = client.post(path, content=body, headers={**JSON, TIMEOUT: given})
    assert response.status_code == status, response.text
    if words:
        assert response.json()["error"]["param"] == TIMEOUT
        assert words in response.json()["error"]["message"]


def test_what_the_engine_cannot_answer_is_refused_before_it_is_asked(
    client: TestClient, engine: FakeEngine
) -> None:
    engine.error = EngineUnavailable("down")
    wait_ready(client, 503)
    asked = len(engine.calls)
    for path, body in ((RATE, json.dumps(GOOD).encode()), ("/v1/completions", completion_body())):
        response = client.post(path, content=body, headers=JSON)
        assert (response.status_code, response.headers["retry-after"]) == (503, "2")
        assert response.json()["error"]["message"].startswith("not ready: ")
    assert len(engine.calls) == asked
    assert engine.bodies == []


def test_alive_even_while_not_ready(client: TestClient, engine: FakeEngine) -> None:
    engine.error = EngineUnavailable("down")
    wait_ready(client, 503)
    assert client.get("/healthz").json() == {"status": "alive"}


def test_models_are_listed_without_the_engine_s_folders(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert [set(card) for card in listed["data"]] == [{"id", "object", "created", "owned_by"}] * 3
    assert [card["id"] for card in listed["data"]] == ["demo", "rate", "month"]


@pytest.mark.parametrize("name", ["demo", "rate", "month"])
def test_a_model_has_its_card(client: TestClient, name: str) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert client.get(f"/v1/models/{name}").json() in listed


@pytest.mark.parametrize("name", ["nix", "EleutherAI/polyglot-ko-1.3b", "가", "a" * 500])
def test_what_is_no_model_is_answered_with_those_that_are(client: TestClient, name: str) -> None:
    error = client.get(f"/v1/models/{name}").json()["error"]
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert error["message"].endswith("it must be one of demo, rate, month")
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/rate", "/docs"]
)
def test_head_is_answered_wherever_get_is(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == client.get(path).status_code == 200
    assert client.head(RATE).status_code == 405


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
def test_a_compressed_body_is_refused_by_name(client: TestClient, encoding: str) -> None:
    headers = {**JSON, "content-encoding": encoding}
    response = client.post(RATE, content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 415
    assert f"content-encoding is '{encoding.lower()}'" in response.json()["error"]["message"]
    plain = client.post(RATE, json=GOOD, headers={"content-encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
def test_hangul_may_come_as_its_letters(client: TestClient, form: Any) -> None:
    for gender in ("남성", "여성"):
        body = {**GOOD, "gender": normalize(form, gender)}
        assert client.post(RATE, json=body).json() == client.post(RATE, json=GOOD).json()


@pytest.mark.parametrize("path", [RATE, "/v1/completions"])
def test_a_byte_order_mark_is_ignored(client: TestClient, path: str, engine: FakeEngine) -> None:
    body = json.dumps(GOOD if path == RATE else {"model": "rate", "prompt": "x"}).encode()
    assert client.post(path, content=BOM_UTF8 + body, headers=JSON).status_code == 200
    assert all(sent == body for sent in engine.bodies)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"served": served(golden=None)}, "rate was never evaluated: run"),
        ({"served": served(golden=[])}, "rate gives 0 of 0 golden answers"),
        ({"served": served(golden=GOLDEN * 2)}, f"gives {len(GOLDEN)} of {2 * len(GOLDEN)} golden"),
        ({"served": served(golden=[OTHER] * 2 + GOLDEN[2:])}, f"gives {len(GOLDEN) - 2} of"),
        ({"text": OTHER}, f"rate gives 0 of {len(GOLDEN)} golden answers"),
        ({"served": [BASE]}, "missing: rate, month"),
        ({"served": [BASE, ADAPTERS[0]]}, "missing: month"),
        ({"served": ADAPTERS}, "missing: the base"),
        ({"base_text": "free verse"}, "is not enforced"),
        (
            {"free_text": OTHER},
            "does not test",
        ),
        ({"error": EngineUnavailable("down")}, "down"),
    ],
)
def test_not_ready_says_why(
    change: dict[str, object], reason: str, engine: FakeEngine, client: TestClient
) -> None:
    engine.error = EngineUnavailable("down")
    wait_ready(client, 503)
    engine.error = None
    for name, value in change.items():
        setattr(engine, name, value)
    wait_for(lambda: reason in client.get("/readyz").text, 5, lambda: client.get("/readyz").text)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"


def test_a_near_tie_decided_otherwise_is_no_other_adapter(
    client: TestClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """On another processor, or in another precision."""
    engine.error = EngineUnavailable("down")
    wait_ready(client, 503)
    engine.error, engine.served = None, served(golden=[OTHER, *GOLDEN[1:]])
    wait_ready(client)
    assert f"gives {len(GOLDEN) - 1} of {len(GOLDEN)} golden answers" in caplog.text


def test_readiness_follows_the_engine_down_and_up_again(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.error = EngineUnavailable("down")
    wait_ready(client, 503)
    assert "routine_ready 0.0" in client.get("/metrics").text
    engine.error = None
    wait_ready(client)
    assert "routine_ready 1.0" in client.get("/metrics").text


def test_a_busy_engine_that_misses_two_checks_stays_ready(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    asked = len(engine.calls)
    statuses = set()

    def has_checked(times: int) -> bool:
        statuses.add(client.get("/readyz").status_code)
        return engine.checks >= times

    for _ in range(2):
        engine.missed_checks = MISSED_CHECKS - 1
        wait_for(partial(has_checked, engine.checks + MISSED_CHECKS), 5)
    assert statuses == {200}
    assert len(engine.calls) == asked


def test_a_bug_behind_the_api_page_answers_like_any_other(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi.FastAPI.openapi", None)
    response = client.get("/openapi.json")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert response.headers["x-request-id"]


def test_the_api_page_has_worked_examples_and_our_error_shape(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    assert "cdn" not in client.get("/docs").text
    schema = client.get("/openapi.json").json()
    post = schema["paths"][RATE]["post"]
    examples = post["requestBody"]["content"]["application/json"]["examples"]
    assert [example["value"]["experience"] for example in examples.values()] == [1, 2, 3, 4, 5]
    assert "입문" in examples["1"]["summary"]
    answer = schema["components"]["schemas"]["RateAnswer"]["properties"]
    assert answer["init_weight_rate"]["enum"] == list(range(40, 80, 5))
    assert list(answer) == list(rate.RateAnswer.model_fields)
    assert "HTTPValidationError" not in str(schema)
    assert "422" in post["responses"]
    worked = post["responses"]["200"]["content"]["application/json"]["example"]
    assert faults(worked) == []
    month = schema["paths"]["/gen/routine/month"]["post"]
    assert [parameter["name"] for parameter in month["parameters"]] == [TIMEOUT, "start"]
    asked = month["requestBody"]["content"]["application/json"]["examples"]["1"]["value"]
    forms = month["responses"]["200"]["content"]
    assert set(forms) == {"application/json", "text/markdown", "text/calendar"}
    worked_month = forms["application/json"]["example"]
    assert month_faults(asked, {"training_max": None, **worked_month}) == []  # FastAPI drops nulls
    assert worked["init_weight_rate"] == coach_rate(PUBLISHED[0])["init_weight_rate"]


UNDESCRIBED = ("/v1/completions", "/v1/chat/completions")
"""Their answers are OpenAI's."""


def test_the_api_document_says_what_each_route_answers(client: TestClient) -> None:
    """Names of operations are what a generated client calls its functions."""
    paths = client.get("/openapi.json").json()["paths"]
    found = {
        operation["operationId"]: (path, list(operation["responses"]["200"]["content"]))
        for path, operations in paths.items()
        for operation in operations.values()
    }
    json_only = ["application/json"]
    assert found == {
        "rate": ("/gen/routine/rate", json_only),
        "month": ("/gen/routine/month", ["application/json", "text/calendar", "text/markdown"]),
        "next": ("/gen/routine/next", json_only),
        "rate_batch": ("/gen/routine/rate/batch", ["application/x-ndjson"]),
        "month_batch": ("/gen/routine/month/batch", ["application/x-ndjson"]),
        "models": ("/v1/models", json_only),
        "model": ("/v1/models/{model}", json_only),
        "completions": ("/v1/completions", ["application/json", "text/event-stream"]),
        "chat": ("/v1/chat/completions", ["application/json", "text/event-stream"]),
        "healthz": ("/healthz", json_only),
        "readyz": ("/readyz", json_only),
        "prometheus": ("/metrics", ["text/plain"]),
    }
    for path, operations in paths.items():
        for operation in operations.values():
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            answer = operation["responses"]["200"]["content"].get("application/json")
            assert path in UNDESCRIBED or not answer or answer["schema"]["$ref"]


def test_the_api_page_s_own_files_are_served_and_counted(client: TestClient) -> None:
    files = re.findall(r'(?:src|href)="(/[^"]+)"', client.get("/docs").text)
    assert len(files) >= 3
    for file in files:
        assert client.get(file).status_code == 200
    assert client.get("/static-offline-docs/nothing").status_code == 404
    labels = 'method="_OTHER",route="other"'
    count = "routine_http_request_duration_seconds_count"
    metrics = client.get("/metrics").text
    assert f'{count}{{{labels},status="200"}} {len(files)}.0' in metrics
    assert f'{count}{{{labels},status="404"}} 1.0' in metrics


@pytest.mark.parametrize("task", ["rate", "month"])
def test_no_answer_takes_a_thread(
    client: TestClient, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI runs what is not a coroutine function in one, which costs more than all the rest."""

    def refuse(function: object, *_: object, **__: object) -> None:
        raise AssertionError(f"{function} runs in a thread")

    wait_ready(client)
    monkeypatch.setattr("anyio.to_thread.run_sync", refuse)
    body = {**GOOD, "days_per_week": 3} if task == "month" else GOOD
    assert client.post(f"/gen/routine/{task}", json=body).status_code == 200
