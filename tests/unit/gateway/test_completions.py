"""``/v1/completions``: what is refused before the engine sees it, and what comes back."""

import asyncio
import http.client
import json
from contextlib import closing
from typing import Any

import pytest
import uvicorn
from pydantic import ValidationError
from starlette.testclient import TestClient

from loadtests.service import free_port
from serving.gateway.app import create_app
from serving.gateway.completions import CompletionRequest
from serving.gateway.errors import EngineRefused
from serving.gateway.settings import GatewaySettings
from tests.kit.waiting import wait_for
from tests.unit.gateway.fake_engine import FakeEngine, completion_body, factory, wait_ready

PATH, JSON = "/v1/completions", {"content-type": "application/json"}
ERROR = {"message": "no legal token is left", "type": "InternalServerError", "param": None}
STREAM = "text/event-stream"


def status_counted(client: TestClient, status: int) -> bool:
    """Whether one completion was counted with this status."""
    labels = f'{{method="POST",route="{PATH}",status="{status}"}}'
    return f"routine_http_request_duration_seconds_count{labels} 1.0" in client.get("/metrics").text


def test_completions_pass_through_byte_for_byte(client: TestClient, engine: FakeEngine) -> None:
    body = completion_body(stream=False, top_k=3)
    response = client.post(PATH, content=body, headers=JSON)
    assert response.status_code == 200
    assert response.content == b'{"choices":[]}'
    assert engine.bodies == [body]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 4, "max_tokens": 512},
        {"prompt": ["a", "b", "c", "d"], "max_tokens": 512},
        {"prompt": list(range(500)), "max_tokens": 2048},
        {"prompt": [[1, 2], [3]], "n": 2, "max_tokens": 512},
        {"max_tokens": None},
        {"logprobs": 5, "echo": False},
        {"echo": True},
        {"structured_outputs": {"regex": "a"}, "stop": ["\U0001f3cb"]},
    ],
)
def test_what_the_limits_allow_passes(
    client: TestClient, engine: FakeEngine, fields: dict[str, Any]
) -> None:
    assert client.post(PATH, content=completion_body(**fields), headers=JSON).status_code == 200
    assert len(engine.bodies) == 1


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"n": 5}, 422, "n", "prompts times n is 5; it must be from 1 to 4"),
        ({"prompt": ["a"] * 3, "n": 2}, 422, "n", "is 6; it must be from 1 to 4"),
        ({"prompt": [[1]] * 5}, 422, "n", "from 1 to 4"),
        ({"max_tokens": 4096}, 422, "max_tokens", "take 4097 tokens"),
        ({"max_tokens": 2048, "n": 2}, 422, "max_tokens", "must be at most 4096"),
        ({"max_tokens": None, "n": 2}, 422, "max_tokens", "must be at most 4096"),
        ({"prompt": "가" * 400, "max_tokens": 2900}, 422, "max_tokens", "take 4100 tokens"),
        ({"prompt": [[1] * 300] * 4, "max_tokens": 800}, 422, "max_tokens", "take 4400 tokens"),
        ({"prompt": [{}] * 2}, 422, "prompt", "a text or a list of texts or a list of integers"),
        ({"prompt": None}, 422, "prompt", "a text or"),
        ({"prompt": ""}, 422, "prompt", 'prompt cannot be ""; it must be a text'),
        ({"prompt": []}, 422, "prompt", "a text or"),
        ({"prompt": ["x", ""]}, 422, "prompt", "a text or"),
        ({"prompt": [[1], []]}, 422, "prompt", "a text or"),
        ({"prompt": [-1]}, 422, "prompt", "a text or"),
        ({"temperature": "hot"}, 422, "temperature", "a number from 0 to 2"),
        ({"temperature": 2.5}, 422, "temperature", "a number from 0 to 2"),
        ({"top_p": 0}, 422, "top_p", "a number above 0, at most 1"),
        ({"stop": 5}, 422, "stop", "a text or a list of texts"),
        ({"stop": [5]}, 422, "stop", "a text or a list of texts"),
        ({"stream": "yes"}, 422, "stream", "true or false"),
        ({"logit_bias": [1]}, 422, "logit_bias", "an object"),
        *(
            ({"logit_bias": {key: 1}}, 422, "logit_bias", "token ids, as in")
            for key in ("", "a", "-1", "1.5", " 1", "٣")
        ),
        ({"logit_bias": {"5": "x"}}, 422, "logit_bias", "an object"),
        ({"seed": 2**63}, 422, "seed", "an integer"),
        ({"seed": -(2**63) - 1}, 422, "seed", "an integer"),
        ({"suffix": "x"}, 422, "suffix", "null"),
        ({"stop_token_ids": "x"}, 422, "stop_token_ids", "a list of integers"),
        ({"max_tokens": -1}, 422, "max_tokens", "an integer of at least 0"),
        ({"n": 0}, 422, "n", "an integer of at least 1"),
        ({"n": 10**30}, 422, "n", "from 1 to 4"),
        ({"logprobs": 6}, 422, "logprobs", "an integer from 0 to 5"),
        ({"model": None}, 422, "model", "a text"),
        ({"echo": True, "logprobs": 0}, 422, "echo", "echo with logprobs"),
        *(
            ({"structured_outputs": given}, 422, "structured_outputs", "give one of json, regex")
            for given in (
                {},
                {"json": None},
                {"whitespace_pattern": "x"},
                {"regex": "a", "choice": ["b"]},
                {"json": {}, "json_object": True},
            )
        ),
        *(
            ({"structured_outputs": {kind: given}}, 422, f"structured_outputs.{kind}", words)
            for kind, given, words in (
                ("regex", 1, "a text"),
                ("choice", "a", "a list of texts"),
                ("choice", [], "cannot be an empty list; it must be a list of texts"),
                ("grammar", "", "a text"),
                ("json", 1, "an object or a text"),
                ("json", "", "an object or a text"),
                ("json_object", False, "cannot be false; it must be true"),
                ("structural_tag", "{}", "not a known field"),
                ("_backend", "outlines", "not a known field"),
                ("jsn", {}, "not a known field"),
            )
        ),
        *(
            ({"response_format": given}, 422, f"response_format{place}", words)
            for given, place, words in (
                ({}, ".type", "is missing; it must be one of text"),
                ({"type": "x"}, ".type", "must be one of text, json_object, json_schema"),
                ({"type": "structural_tag"}, ".type", "must be one of text"),
                ({"type": "json_schema"}, "", "json_schema goes with type json_schema"),
                ({"type": "text", "json_schema": {"name": "a", "schema": {}}}, "", "goes with"),
                ({"type": "text", "x": 1}, ".x", "not a known field"),
                ({"type": "json_schema", "json_schema": {}}, ".json_schema.name", "is missing"),
                (
                    {"type": "json_schema", "json_schema": {"name": "a", "schema": None}},
                    ".json_schema.schema",
                    "cannot be null; it must be an object",
                ),
            )
        ),
        ({"stop": ""}, 422, "stop", "a text or a list of texts"),
        ({"stop": ["a", ""]}, 422, "stop", "a text or a list of texts"),
        ({"bad_words": [""]}, 422, "bad_words.0", "a text"),
        ({"stream_options": {"include_usage": True}}, 422, "stream_options", "stream true"),
        ({"stream_options": {}, "stream": None}, 422, "stream_options", "stream true"),
        ({"stream_options": {"x": True}}, 422, "stream_options.x", "not a known field"),
        ({"stream_options": {"include_usage": 1}}, 422, "stream_options.include_usage", "true or"),
        # vLLM would ignore the first, and the others concern other requests, too.
        ({"guided_regex": "a"}, 422, "guided_regex", "not a known field"),
        ({"priority": -5}, 422, "priority", "not a known field"),
        ({"request_id": "x"}, 422, "request_id", "not a known field"),
        ({"use_beam_search": True}, 422, "use_beam_search", "not a known field"),
        ({"prompt_logprobs": 20}, 422, "prompt_logprobs", "not a known field"),
        ({"stop": "\ud800"}, 400, None, "not JSON"),
    ],
)
def test_what_harms_others_or_means_nothing_is_refused(
    client: TestClient,
    engine: FakeEngine,
    fields: dict[str, Any],
    status: int,
    param: str | None,
    words: str,
) -> None:
    response = client.post(PATH, content=completion_body(**fields), headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert words in error["message"]
    assert engine.bodies == []


@pytest.mark.parametrize("field", CompletionRequest.model_fields)
def test_null_is_refused_where_the_engine_refuses_it(field: str) -> None:
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest as Theirs

    body = {"model": "rate", "prompt": "x", field: None}
    try:
        CompletionRequest.model_validate(body)
    except ValidationError:
        return
    assert Theirs.model_validate(body).to_sampling_params(16)


@pytest.mark.parametrize(
    "fields",
    [
        {"structured_outputs": {"regex": ""}},
        {"structured_outputs": {"regex": "a", "json": None, "whitespace_pattern": " "}},
        {"structured_outputs": {"choice": ["a", ""]}},
        {"structured_outputs": {"json": {}}},
        {"structured_outputs": {"json": "{}", "disable_any_whitespace": True}},
        {"structured_outputs": {"grammar": "start: /a/"}},
        {"structured_outputs": {"json_object": True, "disable_additional_properties": True}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object", "json_schema": None}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"continuous_usage_stats": None}},
    ],
)
def test_what_is_allowed_inside_a_field_the_engine_allows(
    client: TestClient, fields: dict[str, Any]
) -> None:
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest as Theirs

    assert client.post(PATH, content=completion_body(**fields), headers=JSON).status_code == 200
    body = json.loads(completion_body(**fields))
    assert Theirs.model_validate(body).to_sampling_params(16)


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"{", 400), (b"[" * 4000, 400), (b"[]", 422), (b'"x"', 422)]
)
def test_what_is_no_object_does_not_reach_the_engine(
    client: TestClient, engine: FakeEngine, body: bytes, status: int
) -> None:
    assert client.post(PATH, content=body, headers=JSON).status_code == status
    assert engine.bodies == []


def test_the_engine_s_refusal_leaves_in_the_one_shape(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.losses = [EngineRefused(400, "the prompt is too long", "prompt")]
    response = client.post(PATH, content=completion_body(), headers=JSON)
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "the prompt is too long",
        "type": "invalid_request_error",
        "param": "prompt",
        "code": "invalid_value",
    }


def test_a_wrong_model_is_answered_with_those_that_there_are(
    client: TestClient, engine: FakeEngine
) -> None:
    wait_ready(client)
    engine.losses = [EngineRefused(404, "The model `gpt` does not exist.", "model")]
    response = client.post(PATH, content=completion_body(model="gpt"), headers=JSON)
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "model cannot be 'gpt'; it must be one of demo, rate, month",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({**ERROR, "code": 500}, 502, "engine_fault"),
        ({**ERROR, "code": 400}, 400, "invalid_value"),
        ({**ERROR, "code": 503}, 503, "engine_unavailable"),
    ],
)
def test_a_stream_that_is_refused_has_the_status_that_it_has_unstreamed(
    client: TestClient, engine: FakeEngine, error: dict[str, Any], status: int, code: str
) -> None:
    engine.content_type = STREAM
    engine.chunks = [f"data: {json.dumps({'error': error})}\n\ndata: [DONE]\n\n".encode()]
    response = client.post(PATH, content=completion_body(stream=True), headers=JSON)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert status_counted(client, status)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({**ERROR, "code": 500}, 502, "engine_fault"),
        ({**ERROR, "code": 400}, 400, "invalid_value"),
        ({**ERROR, "code": 503}, 503, "engine_unavailable"),
        ({"message": "of another shape", "code": "x"}, 503, "engine_unavailable"),
    ],
)
def test_an_error_within_a_stream_is_rewritten_and_counted(
    client: TestClient,
    engine: FakeEngine,
    error: dict[str, Any],
    status: int,
    code: str,
    size: int,
) -> None:
    """Wherever the network cuts the stream."""
    text = {"choices": [{"text": '{"error"'}]}
    events = [f"data: {json.dumps(one)}\n\n" for one in (text, {"error": error})]
    whole = "".join([*events, "data: [DONE]\n\n"]).encode()
    engine.content_type = STREAM
    engine.chunks = [whole[at : at + size] for at in range(0, len(whole), size)]
    response = client.post(PATH, content=completion_body(stream=True), headers=JSON)
    first, last = response.text.removesuffix("\n\n").split("\n\n")
    assert f"{first}\n\n" == events[0]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    assert status_counted(client, status)


@pytest.mark.parametrize("content_type", [STREAM, "application/json"])
def test_an_answer_that_breaks_off_is_counted_as_its_error(
    client: TestClient, engine: FakeEngine, content_type: str
) -> None:
    engine.content_type, engine.breaks_after = content_type, 1
    response = client.post(PATH, content=completion_body(), headers=JSON)
    assert ('"engine_unavailable"' in response.text) == (content_type == STREAM)
    assert status_counted(client, 503)


@pytest.mark.parametrize("size", [10_000, 10_000_000])
@pytest.mark.parametrize("path", [PATH, "/nowhere"])
async def test_a_refusal_reaches_a_client_that_sends_its_whole_body_first(
    settings: GatewaySettings, path: str, size: int
) -> None:
    """A connection that is closed with unread data is reset."""
    port = free_port()
    app = create_app(settings, factory(FakeEngine()))
    server = uvicorn.Server(uvicorn.Config(app, port=port, http="httptools", log_config=None))
    serving = asyncio.create_task(server.serve())
    await asyncio.to_thread(wait_for, lambda: server.started)

    def ask() -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("POST", path, b" " * size, {**JSON, "connection": "close"})
            with connection.getresponse() as response:
                return response.status

    assert await asyncio.to_thread(ask) == (413 if path == PATH else 404)
    server.should_exit = True
    await serving
