"""Bad input: a clear error in the one shape, and the engine is not asked."""

import json
import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from tests.kit.bad_requests import CASES, GOOD, ROUTES, Case, good
from tests.unit.gateway.fake_engine import HERE, FakeEngine, factory, wait_ready


@pytest.mark.parametrize(("task", "case"), CASES, ids=[f"{t}: {c.name[:40]}" for t, c in CASES])
def test_bad_input_is_refused_with_field_and_allowed_values(
    task: str, case: Case, client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    asked = len(engine.calls)
    headers = {"content-type": case.content_type} if case.content_type else {}
    response = client.post(f"/gen/routine/{task}", content=case.body, headers=headers)
    assert response.status_code == case.status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == case.param
    assert case.words in error["message"]
    assert len(error["message"]) < 400
    assert len(engine.calls) == asked, "the engine was asked"


JSON = {"content-type": "application/json"}
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
DEEP = '{"a":' * 150 + '{"b":1,"b":2}' + "}" * 150


def twice(body: str) -> str:
    """The same, with the first field of each object once more, and another value before."""
    name = body[1:].partition(":")[0]
    return f"{{{name}: null, {body[1:]}"


def chat(content: str) -> str:
    return json.dumps({"model": "rate", "messages": [{"role": "user", "content": content}]})


PROFILE = json.dumps(GOOD)
NESTED = PROFILE.replace('"squat"', '"squat": 1, "squat"')
TWICE = {
    **{route: (f"/gen/routine/{route}", twice(json.dumps(good(route)))) for route in ROUTES},
    "nested": ("/gen/routine/rate", NESTED),
    "escaped": ("/gen/routine/rate", twice(PROFILE).replace('"e', '"\\u0065', 1)),
    "completion": (COMPLETIONS, '{"model": "demo", "prompt": "a", "max_tokens": 1, "prompt": "b"}'),
    "schema": (
        COMPLETIONS,
        f'{{"model": "demo", "prompt": "a", "structured_outputs": {{"json": {DEEP}}}}}',
    ),
    "chat": (CHAT, twice(chat(PROFILE))),
    "in a message": (CHAT, chat(NESTED)),
}


@pytest.mark.parametrize(("path", "body"), TWICE.values(), ids=TWICE)
def test_a_field_that_comes_twice_is_refused(
    client: TestClient, engine: FakeEngine, path: str, body: str
) -> None:
    asked = len(engine.bodies)
    answer = client.post(path, content=body.encode(), headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert "comes twice in one object" in answer.text
    assert len(engine.bodies) == asked


def test_a_line_whose_field_comes_twice_is_refused_alone(client: TestClient) -> None:
    lines = f"{PROFILE}\n{NESTED}\n".encode()
    kind = {"content-type": "application/x-ndjson"}
    answer = client.post("/gen/routine/rate/batch", content=lines, headers=kind)
    told = {one["custom_id"]: one["response"] for one in map(json.loads, answer.text.splitlines())}
    assert told["1"]["status_code"] == 200
    assert (told["2"]["status_code"], told["2"]["body"]["error"]["code"]) == (400, "invalid_json")


@pytest.fixture(scope="module")
def roomy() -> Iterator[TestClient]:
    """A gateway with the usual limits."""
    with TestClient(create_app(GatewaySettings(), factory(FakeEngine())), HERE) as client:
        wait_ready(client)
        yield client


HEAVY = {
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 40_000,
    "a long number": b'{"experience": ' + b"9" * 200_000 + b"}",
    "a long fraction": b'{"experience": 0.' + b"1" * 200_000 + b"}",
    "a huge exponent": b'{"experience": 1e' + b"9" * 200_000 + b"}",
    "many fields": json.dumps({f"a{n}": n for n in range(15_000)}).encode(),
    "many fields, one twice": b'{"a": 1, ' + json.dumps({f"{n}": n for n in range(9)}).encode()[1:],
    "escapes": b'{"gender": "' + b"\\u0000" * 40_000 + b'"}',
    "colliding fields": json.dumps({str(n * (2**61 - 1)): 0 for n in range(7_000)}).encode(),
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY)
@pytest.mark.parametrize("path", ["/gen/routine/month", COMPLETIONS, CHAT])
def test_a_body_that_is_heavy_to_read_is_refused_at_once(
    roomy: TestClient, path: str, body: bytes
) -> None:
    start = time.perf_counter()
    answer = roomy.post(path, content=body, headers=JSON)
    assert time.perf_counter() - start < 3
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 600
