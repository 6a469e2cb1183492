"""Keys: what they open, for whom, how often; and what is open without."""

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from serving.gateway.access import HEALTH, OPEN, OPEN_FOLDERS
from serving.gateway.app import create_app
from serving.gateway.settings import GatewaySettings
from serving.keys import create, digest, read, revoke
from serving.process import StartError
from tests.kit.bad_requests import GOOD, good
from tests.unit.gateway.fake_engine import HERE, FakeEngine, factory, wait_ready
from tests.unit.gateway.running import running

RATE, CHAT, COMPLETIONS = "/gen/routine/rate", "/v1/chat/completions", "/v1/completions"
COMPLETION = {"model": "demo", "prompt": "a", "max_tokens": 10}
Make = Callable[..., dict[str, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys.json"
    file.write_text('{"keys": []}')
    return file


@pytest.fixture
def keyed(file: Path) -> GatewaySettings:
    return GatewaySettings(probe_interval_seconds=0.01, keys=file)


@pytest.fixture
def make(file: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Adds a key to the file; returns the headers of who has it."""
    monkeypatch.setattr("serving.gateway.access.POLL_SECONDS", 0.01)

    def one(name: str = "app", **fields: Any) -> dict[str, str]:
        secret = create(file, name, fields)
        time.sleep(0.1)  # the gateway reads it again
        return {"authorization": f"Bearer {secret}"}

    return one


@pytest.fixture
def closed(keyed: GatewaySettings, engine: FakeEngine, make: Make) -> Iterator[TestClient]:
    with TestClient(create_app(keyed, factory(engine)), HERE) as client:
        wait_ready(client)
        yield client


def code(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_every_route_but_those_named_needs_a_key(closed: TestClient) -> None:
    tried = 0
    for route in closed.app.routes:  # type: ignore[attr-defined]
        if isinstance(route, Mount):
            assert f"{route.path}/".startswith(OPEN_FOLDERS)
            continue
        assert isinstance(route, Route | APIRoute)
        path = route.path.replace("{model:path}", "demo")
        for method in route.methods or ():
            answer = closed.request(method, path)
            if path in OPEN:
                assert answer.status_code == 200, path
            elif path == "/metrics":
                assert answer.status_code == 404
            elif path == "/docs/oauth2-redirect":
                assert answer.status_code == 401
            else:
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == "Bearer"
                assert method == "HEAD" or code(answer) == (401, "invalid_api_key")
            tried += 1
    assert tried > 15
    assert code(closed.get("/nothing")) == (401, "invalid_api_key")
    assert code(closed.get("/static/../v1/models")) == (401, "invalid_api_key")


def test_a_key_opens_every_door(closed: TestClient, make: Make, engine: FakeEngine) -> None:
    closed.headers.update(make())
    assert closed.post(RATE, json=GOOD).status_code == 200
    assert closed.post("/gen/routine/next", json=good("next")).status_code == 200
    assert closed.get("/v1/models").status_code == 200
    assert closed.post(COMPLETIONS, json=COMPLETION).status_code == 200
    message = {"role": "user", "content": json.dumps(GOOD)}
    assert closed.post(CHAT, json={"model": "rate", "messages": [message]}).status_code == 200
    lines = json.dumps(GOOD).encode()
    kind = {"content-type": "application/x-ndjson"}
    assert closed.post(f"{RATE}/batch", content=lines, headers=kind).status_code == 200
    assert code(closed.get("/nothing")) == (404, "not_found")


def test_how_a_key_is_sent(closed: TestClient, make: Make, file: Path) -> None:
    secret = make()["authorization"].removeprefix("Bearer ")
    for good_one in (f"Bearer {secret}", f"bearer {secret}", f"BEARER  {secret} "):
        answer = closed.post(RATE, json=GOOD, headers={"authorization": good_one})
        assert answer.status_code == 200, good_one
    basic = base64.b64encode(f"app:{secret}".encode()).decode()
    bad = ["", "Bearer", "Bearer ", f"Bearer {secret[:-1]}", f"Bearer {secret}a", secret]
    bad += [f"Bearer {secret.upper()}", f"Bearer {digest(secret.encode())}", f"Basic {basic}"]
    bad += [f"Bearer {read(file).keys[0].sha256}", f"Token {secret}", f"Bearer a {secret}"]
    bad += ["Bearer app", "Bearer \xff", f"Bearer {'a' * 9000}"]
    for one in bad:
        sent = {"authorization": one.encode("latin-1")}
        answer = closed.post(RATE, json=GOOD, headers=sent)  # type: ignore[arg-type]
        assert code(answer) == (401, "invalid_api_key"), one
        assert secret not in answer.text
    assert code(closed.post(f"{RATE}?api_key={secret}", json=GOOD))[0] == 401


def test_an_expired_key_is_told_so(closed: TestClient, make: Make) -> None:
    headers = make(expires=datetime.now(UTC) + timedelta(seconds=0.5))
    assert closed.post(RATE, json=GOOD, headers=headers).status_code == 200
    time.sleep(0.6)
    answer = closed.post(RATE, json=GOOD, headers=headers)
    assert code(answer) == (401, "invalid_api_key")
    assert "expired" in answer.text


def test_a_key_is_for_its_tasks_at_every_door(closed: TestClient, make: Make) -> None:
    closed.headers.update(make(tasks=["next"], models=[]))
    assert closed.post("/gen/routine/next", json=good("next")).status_code == 200
    message = {"role": "user", "content": json.dumps(GOOD)}
    kind = {"content-type": "application/x-ndjson"}
    refused = [
        closed.post(RATE, json=GOOD),
        closed.post("/gen/routine/month", json=good("month")),
        closed.post(CHAT, json={"model": "rate", "messages": [message]}),
        closed.post(f"{RATE}/batch", content=json.dumps(GOOD), headers=kind),
        closed.post(COMPLETIONS, json=COMPLETION),
    ]
    assert [code(answer) for answer in refused] == [(403, "forbidden")] * len(refused)
    assert "is for tasks next, not for 'rate'" in refused[0].text
    assert "is for models none" in refused[-1].text
    call = {"name": "rate", "arguments": GOOD}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
    accept = {"accept": "application/json, text/event-stream"}
    answer = closed.post("/mcp", json=asked, headers=accept).json()["result"]
    assert answer["isError"]
    assert "not for 'rate'" in answer["content"][0]["text"]


def test_requests_a_second(closed: TestClient, make: Make) -> None:
    closed.headers.update(make(requests_per_second=2))
    answers = [closed.post(RATE, json=GOOD) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    told = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert told == ["1", "0", "0", "0"]
    assert code(answers[2]) == (429, "rate_limit_exceeded")
    assert answers[2].headers["retry-after"] == "1"
    assert closed.get("/readyz").status_code == 200, "health is not counted"
    time.sleep(1.1)
    assert closed.post(RATE, json=GOOD).status_code == 200


def test_tokens_a_minute_are_those_that_were_taken(
    closed: TestClient, make: Make, engine: FakeEngine
) -> None:
    def left(headers: dict[str, str]) -> int:
        answer = closed.get("/v1/models", headers=headers)
        return int(answer.headers["x-ratelimit-remaining-tokens"])

    app, other = make(tokens_per_minute=1000), make("other", tokens_per_minute=1000)
    assert closed.post(RATE, json=GOOD, headers=app).status_code == 200
    assert left(app) == 1000 - 103  # the fake engine's
    engine.chunks = [b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}']
    assert closed.post(COMPLETIONS, json=COMPLETION, headers=app).status_code == 200
    assert left(app) == 897 - 12
    engine.chunks = [b"data: {}\n\n"]  # a stream that was not asked to tell
    engine.content_type = "text/event-stream"
    streamed = {**COMPLETION, "stream": True, "n": 3, "max_tokens": 200}
    assert closed.post(COMPLETIONS, json=streamed, headers=app).status_code == 200
    assert left(app) == 885 - (1 + 3 * 200)
    for _ in range(3):
        closed.post(RATE, json=GOOD, headers=app)
    for door, body in ((RATE, GOOD), (COMPLETIONS, COMPLETION)):
        answer = closed.post(door, json=body, headers=app)
        assert code(answer) == (429, "rate_limit_exceeded")
        assert answer.headers["x-ratelimit-remaining-tokens"] == "0"
        assert 50 < int(answer.headers["retry-after"]) <= 60
    assert left(other) == 1000


def test_what_the_engine_refused_takes_no_tokens(
    closed: TestClient, make: Make, engine: FakeEngine
) -> None:
    from serving.gateway.errors import EngineRefused, EngineUnavailable

    headers = make(tokens_per_minute=1000)
    refused = [EngineRefused(400, "no", None), EngineRefused(404, "no such model", None)]
    engine.losses = [*refused, EngineUnavailable("down")]
    for status in (400, 404, 503):
        assert closed.post(COMPLETIONS, json=COMPLETION, headers=headers).status_code == status
    answer = closed.get("/v1/models", headers=headers)
    assert answer.headers["x-ratelimit-remaining-tokens"] == "1000"


async def test_requests_at_once(keyed: GatewaySettings, make: Make) -> None:
    headers = make(requests_at_once=2)
    async with running(keyed) as (found, session):
        found.engine.gate = asyncio.Event()

        async def ask() -> int:
            async with session.post(RATE, json=GOOD, headers=headers) as answer:
                return answer.status

        first = [asyncio.create_task(ask()) for _ in range(2)]
        await found.engine.reached.wait()
        await asyncio.sleep(0.1)
        assert await ask() == 429
        first[0].cancel()  # who leaves makes room
        await asyncio.sleep(0.1)
        third = asyncio.create_task(ask())
        await asyncio.sleep(0.1)
        found.engine.gate.set()
        assert [await first[1], await third] == [200, 200]
        found.server.should_exit = True


async def test_a_batch_waits_for_its_key_s_tokens(
    keyed: GatewaySettings, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limits import RateLimitItemPerSecond

    monkeypatch.setattr("serving.gateway.access.RateLimitItemPerMinute", RateLimitItemPerSecond)
    headers = make(tokens_per_minute=1) | {"content-type": "application/x-ndjson"}
    async with running(keyed) as (found, session):
        lines = b"\n".join([json.dumps(GOOD).encode()] * 3)
        start = time.monotonic()
        async with session.post(f"{RATE}/batch", data=lines, headers=headers) as answer:
            told = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert [one["response"]["status_code"] for one in told] == [200] * 3
        assert time.monotonic() - start < 10
        async with session.post(RATE, json=GOOD, headers=headers) as refused:
            assert refused.status == 415  # not a batch: the same key is refused, not kept waiting
        found.server.should_exit = True


def test_a_changed_file_is_in_force_and_a_broken_one_is_not(
    closed: TestClient, make: Make, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app, other = make(requests_per_second=1), make("other")
    assert closed.post(RATE, json=GOOD, headers=app).status_code == 200
    for broken in ("{", '{"keys": [{}]}', '{"keys": [{"name": "a", "requests_per_second": 0}]}'):
        kept = file.read_text()
        file.write_text(broken)
        time.sleep(0.1)
        assert closed.post(RATE, json=GOOD, headers=other).status_code == 200
        file.write_text(kept)
        time.sleep(0.1)
    for words in ("EOF while parsing an object", "keys.0.name: ", "keys.0.sha256: "):
        assert f"the keys of before stay in force: {file}" in caplog.text
        assert words in caplog.text
    kept = file.read_text()
    file.unlink()
    time.sleep(0.1)
    assert closed.post(RATE, json=GOOD, headers=other).status_code == 200
    file.write_text(kept)
    revoke(file, "other")
    time.sleep(0.1)
    assert closed.post(RATE, json=GOOD, headers=other).status_code == 401


def test_names_are_in_metrics_and_logs_and_keys_nowhere(
    keyed: GatewaySettings,
    engine: FakeEngine,
    make: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    headers = make(tokens_per_minute=1)
    app = create_app(keyed.model_copy(update={"metrics_port": 80}), factory(engine))
    with TestClient(app, "http://127.0.0.1:81") as client:
        wait_ready(client)
        for _ in range(2):
            client.post(RATE, json=GOOD, headers=headers)
        client.post(RATE, json=GOOD, headers={"authorization": "Bearer guess"})
        page = client.get(f"{HERE}:80/metrics").text
    assert 'routine_key_requests_total{key="app",status="200"} 1.0' in page
    assert 'routine_key_requests_total{key="app",status="429"} 1.0' in page
    assert 'routine_key_tokens_total{key="app"} 103.0' in page
    secret = headers["authorization"].removeprefix("Bearer ")
    records = [vars(record) for record in caplog.records]
    assert any(record.get("key") == "app" for record in records)
    for hidden in (secret, digest(secret.encode()), "guess"):
        assert hidden not in page
        assert not any(hidden in str(record) for record in records)


def test_a_broken_file_ends_the_start(file: Path, keyed: GatewaySettings) -> None:
    file.write_text("{")
    with pytest.raises(StartError, match="Invalid JSON"):
        create_app(keyed)


NAMES = {
    "localhost": 200,
    "localhost:8000": 200,
    "LOCALHOST": 200,
    "127.0.0.1:8000": 200,
    "[::1]:8000": 200,
    "evil.example": 403,
    "evil.example:8000": 403,
    "localhost.evil.example": 403,
    "127.0.0.1.evil.example": 403,
    "[::1].evil.example": 403,
    "evil.example:localhost": 403,
    "169.254.169.254": 403,
}


@pytest.mark.parametrize(("host", "status"), NAMES.items())
def test_a_page_whose_name_leads_here_is_refused(
    client: TestClient, host: str, status: int
) -> None:
    """DNS rebinding: the browser takes the answer for the page's own."""
    for method, path in (("POST", RATE), ("GET", "/v1/models"), ("GET", "/metrics")):
        body = GOOD if method == "POST" else None
        answer = client.request(method, path, json=body, headers={"host": host})
        assert answer.status_code == status, path
    for path in HEALTH:
        assert client.get(path, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("how", [{"allow_anonymous": True}, {"keys": None}])
def test_other_names_are_for_those_who_said_so(engine: FakeEngine, how: dict[str, Any]) -> None:
    settings = GatewaySettings(probe_interval_seconds=0.01, **how)
    with TestClient(create_app(settings, factory(engine)), "http://service.example") as client:
        wait_ready(client)
        answer = client.post(RATE, json=GOOD)
        assert answer.status_code == (200 if settings.allow_anonymous else 403)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "gateway.example"])
def test_a_start_that_asks_for_no_key_is_for_this_machine(host: str, file: Path) -> None:
    with pytest.raises(ValueError, match="set GATEWAY_KEYS"):
        GatewaySettings(host=host)
    assert GatewaySettings(host=host, keys=file)
    assert GatewaySettings(host=host, allow_anonymous=True)
    for near in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert GatewaySettings(host=near)


async def test_metrics_have_a_port_of_their_own(settings: GatewaySettings) -> None:
    from loadtests.service import free_port

    port = free_port()
    own = settings.model_copy(update={"metrics_port": port})
    async with running(own) as (found, _), aiohttp.ClientSession() as session:
        there, here = f"http://127.0.0.1:{port}", found.url
        paths = {
            f"{there}/metrics": 200,
            f"{there}/readyz": 200,
            f"{there}/v1/models": 404,
            f"{there}/": 404,
            f"{here}/metrics": 404,
            f"{here}/v1/models": 200,
        }
        for url, status in paths.items():
            async with session.get(url) as answer:
                assert answer.status == status, url
        async with session.post(f"{there}{RATE}", json=GOOD) as answer:
            assert answer.status == 404
        found.server.should_exit = True


def test_pages_can_be_left_out(settings: GatewaySettings, engine: FakeEngine) -> None:
    bare = settings.model_copy(update={"pages": False})
    with TestClient(create_app(bare, factory(engine)), HERE) as client:
        wait_ready(client)
        for path in (*OPEN, "/static/page.js"):
            assert client.get(path).status_code == (200 if path in HEALTH else 404), path
        assert client.post(RATE, json=GOOD).status_code == 200


def test_pages_of_other_origins_may_ask_if_they_are_named(
    settings: GatewaySettings, engine: FakeEngine, client: TestClient
) -> None:
    preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
    closed = client.options(RATE, headers=preflight)
    assert closed.status_code == 405
    assert "access-control-allow-origin" not in closed.headers
    named = settings.model_copy(update={"cors_origins": "https://a.example"})
    with TestClient(create_app(named, factory(engine)), HERE) as open_to_one:
        wait_ready(open_to_one)
        assert open_to_one.options(RATE, headers=preflight).status_code == 200
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            answer = open_to_one.post(RATE, json=GOOD, headers={"origin": origin})
            assert ("access-control-allow-origin" in answer.headers) == allowed
    for wrong in ("*", "a.example", "https://a.example/", "https://a.example, https://b.example"):
        with pytest.raises(ValueError, match="cors_origins"):
            GatewaySettings(cors_origins=wrong)
