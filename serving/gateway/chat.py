"""``/v1/chat/completions``: a task asked as a chat, so that any chat client can.

The model is a task's name, the last user message is its request as JSON, and the assistant's
message is the answer as JSON. Nothing is sampled, so what steers sampling has no effect.
"""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from serving.gateway.completions import StreamOptions
from serving.gateway.errors import ClientError, InvalidRequest, ModelNotFound
from serving.gateway.exchange import Exchange
from serving.gateway.generate import Generated, Generator
from serving.gateway.relay import STREAM
from serving.gateway.validation import validated
from serving.tasks.base import Task
from serving.tasks.registry import TASKS


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message; of all, the last of the user is read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(BaseModel):
    """The fields of OpenAI's that mean something here, and those without effect that clients send
    by themselves."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    model: str = Field(description=f"작업의 이름: {', '.join(TASKS)}")
    messages: list[Message] = Field(
        min_length=1, description="마지막 user 메시지가 작업의 요청(JSON)"
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = Field(
        default=None, description="`include_usage`: 토큰 수를 마지막 이벤트로"
    )
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    temperature: float | None = Field(default=None, description="효과 없음: 표본을 뽑지 않음")
    top_p: float | None = Field(default=None, description="효과 없음")
    seed: int | None = Field(default=None, description="효과 없음")
    max_tokens: int | None = Field(default=None, description="효과 없음: 답의 길이는 정해져 있음")
    max_completion_tokens: int | None = Field(default=None, description="효과 없음")
    user: str | None = Field(default=None, description="효과 없음")


def _content(task: Task[Any]) -> str:
    """Return a request of ``task`` as the text of a message."""
    return json.dumps(task.examples[0].model_dump(mode="json"), ensure_ascii=False)


_TASK = next(iter(TASKS.values()))
EXAMPLE = {"model": _TASK.name, "messages": [{"role": "user", "content": _content(_TASK)}]}
"""A request."""


class Chat:
    """Answers chats with the answers of tasks."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    async def answer(self, exchange: Exchange) -> Response:
        """Return the answer, whole or as a stream of events.

        Raises:
            GatewayError: ModelNotFound, InvalidRequest, Overloaded, or an engine error.
        """
        deadline = self._generator.deadline(exchange.head)
        asked = validated(ChatRequest, await exchange.body())
        task, request = question(asked)
        generated = await self._generator.answer(
            task, request, exchange.headers, deadline, exchange.caller
        )
        completion = completed(task, generated)
        if not asked.stream:
            return JSONResponse(completion)
        return StreamingResponse(_stream(completion, asked), media_type=STREAM)


def completed(task: Task[Any], generated: Generated) -> dict[str, Any]:
    """Return an answer as OpenAI's chat completion."""
    message = {"role": "assistant", "content": generated.text}
    usage = generated.usage
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": task.name,
        "choices": [{"index": 0, "logprobs": None, "finish_reason": "stop", "message": message}],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }


def question(asked: ChatRequest) -> tuple[Task[Any], BaseModel]:
    """Return the task that a chat asks, and the task's request in the last message of the user.

    Raises:
        ModelNotFound: there is no such task.
        InvalidRequest: there is no request.
    """
    if (task := TASKS.get(asked.model)) is None:
        raise ModelNotFound(asked.model, list(TASKS))
    example = _content(task)
    for number, message in reversed(list(enumerate(asked.messages))):
        if message.role == "user":
            place = f"messages.{number}.content"
            try:
                request: BaseModel = validated(task.request, message.text.encode(errors="replace"))
            except ClientError as error:
                words = f"{error.message}; send {task.name}'s request as JSON, such as {example}"
                raise InvalidRequest(f"{place}: {words}", place) from error
            return task, request
    words = f"messages has none of the user; send one with JSON such as {example}"
    raise InvalidRequest(words, "messages")


async def _stream(completion: dict[str, Any], asked: ChatRequest) -> AsyncIterator[str]:
    """Yield a completion as the events of a stream."""
    usage, (choice,) = completion.pop("usage"), completion.pop("choices")
    message = choice.pop("message")
    events: list[dict[str, Any]] = [
        {"choices": [{**choice, "finish_reason": None, "delta": message}]},
        {"choices": [{**choice, "delta": {}}]},
    ]
    if asked.stream_options and asked.stream_options.include_usage:
        events.append({"choices": [], "usage": usage})
    made = {**completion, "object": "chat.completion.chunk"}
    for event in events:
        yield f"data: {json.dumps(made | event, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"
