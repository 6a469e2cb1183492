"""An engine that computes nothing: ``uvicorn loadtests.bench.upstream:app``.

Answers every completion request over real HTTP with a text that the constraint allows. It is the
upstream of gateways whose own cost is measured, and accepts the spans they send.
"""

import json
from functools import cache
from random import Random
from typing import Any

from starlette.types import Receive, Scope, Send

from serving.tasks.base import Task
from serving.tasks.registry import TASKS

BASE, FREE_TEXT = "demo", "자유로운 시"
ADAPTER_SEED, BASE_SEED = 1, 2


@cache
def legal(regex: str, seed: int = ADAPTER_SEED) -> str:
    """Return a text that one of our constraints allows."""
    for output in (output for task in TASKS.values() for output in task.outputs()):
        if regex == output.decided_regex:
            return output.decided(output.sample(Random(seed)))
    raise ValueError(f"no output of ours has the constraint {regex[:200]!r}")


def golden(task: Task[Any]) -> list[str]:
    """Return an adapter's answers to its task's examples and edges."""
    questions = map(task.question, task.examples + task.edges)
    return [legal(question.output.decided_regex) for question in questions]


MODELS = {
    "data": [
        {"id": BASE, "created": 1},
        *(
            {"id": name, "created": 1, "parent": BASE, "golden": golden(task)}
            for name, task in TASKS.items()
        ),
    ]
}


def completion(body: bytes) -> dict[str, Any]:
    """Answer a ``/v1/completions`` request; the base and the adapters answer differently."""
    asked = json.loads(body)
    seed = BASE_SEED if asked["model"] == BASE else ADAPTER_SEED
    regex = asked.get("structured_outputs", {}).get("regex")
    text = FREE_TEXT if regex is None else legal(regex, seed)
    return {
        "id": "cmpl-0",
        "object": "text_completion",
        "created": 1,
        "model": asked["model"],
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 80, "completion_tokens": 23, "total_tokens": 103},
    }


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application."""
    if scope["type"] != "http":
        return
    answer: dict[str, Any] = {}
    if scope["path"] == "/v1/models":
        answer = MODELS
    elif scope["path"] == "/v1/completions":
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        answer = completion(body)
    content = json.dumps(answer, ensure_ascii=False).encode() if answer else b""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
