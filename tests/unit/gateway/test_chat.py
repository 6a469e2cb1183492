"""Tasks asked as chats."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.tasks.registry import TASKS
from tests.kit.bad_requests import GOOD, good
from tests.unit.gateway.fake_engine import FakeEngine, wait_ready

PATH = "/v1/chat/completions"


def body(content: Any, model: str = "rate", **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


@pytest.mark.parametrize("task", TASKS)
def test_a_chat_s_answer_is_the_route_s(client: TestClient, task: str) -> None:
    request = good(task)
    answer = client.post(PATH, json=body(json.dumps(request), task)).json()
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
    used = answer["usage"]
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"] > 0
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    routed = client.post(f"/gen/routine/{task}", json=request)
    assert choice["message"]["content"] == routed.text


def streamed(client: TestClient, asked: dict[str, Any], **options: object) -> list[Any]:
    response = client.post(PATH, json={**asked, "stream": True, **options})
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def test_a_stream_that_is_asked_for_usage_ends_with_it(client: TestClient) -> None:
    asked = body(json.dumps(GOOD))
    last = streamed(client, asked, stream_options={"include_usage": True})[-1]
    assert last["choices"] == []
    assert last["usage"] == client.post(PATH, json=asked).json()["usage"]


def test_a_stream_has_the_same_answer(client: TestClient) -> None:
    asked = body(json.dumps(GOOD))
    whole = client.post(PATH, json=asked).json()["choices"][0]["message"]["content"]
    chunks = streamed(client, asked)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == whole
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]


def test_the_last_message_of_the_user_counts(client: TestClient) -> None:
    messages = [
        {"role": "system", "content": "You are a coach."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": [{"type": "text", "text": json.dumps(GOOD)}], "name": "me"},
        {"role": "assistant", "content": "{"},
    ]
    asked = {"model": "rate", "messages": messages, "temperature": 0.7, "max_tokens": 5}
    assert client.post(PATH, json=asked).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "param", "words"),
    [
        (body("give me a plan"), 422, "messages.0.content", "not JSON"),
        (body("give me a plan"), 422, "messages.0.content", 'such as {"experience": 1'),
        (body(json.dumps({**GOOD, "purpose": 9})), 422, "messages.0.content", "from 1 to 6"),
        (body(json.dumps(GOOD), "month"), 422, "messages.0.content", "days_per_week is missing"),
        (body(json.dumps(GOOD), "gpt-4o"), 404, "model", "it must be one of rate, month"),
        (body(json.dumps(GOOD), "demo"), 404, "model", "it must be one of rate, month"),
        ({"messages": []}, 422, "messages", "must be a list"),
        ({"messages": [{"role": "system", "content": "x"}]}, 422, "messages", "none of the user"),
        ({"messages": "x"}, 422, "messages", "must be a list"),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            422,
            "messages.0.role",
            "one of system",
        ),
        ({"messages": [{"role": "user"}]}, 422, "messages.0.content", "missing"),
        (body([{"type": "image_url", "image_url": "x"}]), 422, "messages.0.content", "a text or"),
        (body(json.dumps(GOOD), n=2), 422, "n", "1"),
        (body(json.dumps(GOOD), tools=[]), 422, "tools", "not a known field"),
    ],
)
def test_what_is_no_task_s_request_is_refused_with_an_example(
    client: TestClient,
    engine: FakeEngine,
    changes: dict[str, Any],
    status: int,
    param: str | None,
    words: str,
) -> None:
    wait_ready(client)
    asked = len(engine.calls)
    response = client.post(PATH, json={"model": "rate", **changes})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert words in error["message"]
    assert len(engine.calls) == asked
