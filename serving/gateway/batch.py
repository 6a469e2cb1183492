"""``/gen/routine/{task}/batch``: many requests as JSON lines, answered as they finish, a line each.

A line is a request of the task, or a request in OpenAI's batch file format; an answer has that
format's. At the engine, lines stand still while a task is computed: see
``vllm_plugin.patches.priority``.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any, Literal

import msgspec
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from serving.gateway.chat import ChatRequest, completed, question
from serving.gateway.deadline import TIMEOUT
from serving.gateway.errors import BodyTooLarge, GatewayError, InvalidRequest, Overloaded
from serving.gateway.exchange import Exchange
from serving.gateway.generate import Generator
from serving.gateway.readiness import Readiness
from serving.gateway.validation import validated
from serving.tasks.base import Task

JSON_LINES = "application/x-ndjson"
KINDS = (JSON_LINES, "application/jsonl")
"""Content types of a batch."""
MOST_LINES, MOST_BYTES = 10_000, 2**24
MOST_BATCHES = 4
"""As many may be under way; each may hold ``MOST_BYTES``."""
RETRY_SECONDS = 30
"""Retry-After when there are more."""
CHAT = "/v1/chat/completions"

Tell = Callable[[bytes], Awaitable[None]]
"""Sends a line of the answer."""


class BatchLine(BaseModel):
    """A line of OpenAI's batch file format."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    custom_id: str = Field(max_length=512)
    method: Literal["POST"]
    url: str
    body: Any


@lru_cache
def _line_of(request: type[BaseModel], url: str) -> type[BatchLine]:
    """Return the line whose body is a ``request``, to ``url`` or as a chat."""
    urls: Any = Literal[url, CHAT]
    return create_model("BatchLine", __base__=BatchLine, url=(urls, ...), body=(request, ...))


class Batches:
    """Answers batches.

    Args:
        generator: answers lines.
        readiness: of the engine.
        most: upper bound of lines of a batch under way at once.
    """

    def __init__(self, generator: Generator, readiness: Readiness, most: int) -> None:
        self._generator, self._readiness, self._most = generator, readiness, most
        self._running = 0

    async def answer(self, task: Task[Any], url: str, exchange: Exchange) -> Response:
        """Return a response that answers line by line.

        Args:
            task: the task of all lines.
            url: the path of the task's route, which lines in OpenAI's format name.
            exchange: the request.

        Raises:
            GatewayError: ClientError, Overloaded, EngineUnavailable or Stopping: none of the lines
                is answered.
        """
        if TIMEOUT.encode() in exchange.head:
            raise InvalidRequest(f"{TIMEOUT} is for one answer; leave it out of a batch", TIMEOUT)
        exchange.caller.require("tasks", task.name)
        self._readiness.check()
        if self._running >= MOST_BATCHES:
            raise Overloaded(
                f"{self._running} batches are under way; try again in {RETRY_SECONDS} s",
                RETRY_SECONDS,
            )
        with ExitStack() as stack:
            stack.enter_context(self._one_more())
            lines = _lines(await exchange.body(KINDS, MOST_BYTES))
            return _Answers(partial(self._run, task, url, lines, exchange), stack.pop_all())

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _run(
        self,
        task: Task[Any],
        url: str,
        lines: Iterable[tuple[int, bytes]],
        exchange: Exchange,
        tell: Tell,
    ) -> None:
        """Tell the answers to ``lines``, each as soon as there is one."""
        waiting = iter(lines)

        async def work() -> None:
            for number, line in waiting:  # shared by all workers
                await tell(await self._answer(task, url, number, line, exchange))
                await asyncio.sleep(0)  # lines that fail at once wait for nothing

        async with asyncio.TaskGroup() as group:
            for _ in range(self._most):
                group.create_task(work())

    async def _answer(
        self, task: Task[Any], url: str, number: int, line: bytes, exchange: Exchange
    ) -> bytes:
        """Return the answer to a line, as a line."""
        request_id, fields = f"{exchange.headers['x-request-id']}-{number}", _fields(line)
        name = fields.get("custom_id")
        try:
            asked, is_chat = _read(task, url, fields, line)
            headers = {**exchange.headers, "x-request-id": request_id}
            caller = exchange.caller
            generated = await self._generator.answer(task, asked, headers, None, caller)
            status, body = 200, generated.text.encode()
            if is_chat:
                body = msgspec.json.encode(completed(task, generated))
        except GatewayError as error:
            status, body = error.status, error.encoded()
        answer = {
            "id": f"batch_req_{request_id}",
            "custom_id": name if isinstance(name, str) else str(number),
            "response": {
                "status_code": status,
                "request_id": request_id,
                "body": msgspec.Raw(body),
            },
            "error": None,
        }
        return msgspec.json.encode(answer) + b"\n"


def _lines(body: bytes) -> list[tuple[int, bytes]]:
    """Return a batch's lines that are not blank, with their numbers.

    Raises:
        ClientError: there are none, or too many.
    """
    if (count := body.count(b"\n") + (not body.endswith(b"\n"))) > MOST_LINES:
        raise BodyTooLarge(f"a batch may have at most {MOST_LINES} lines; this has {count}")
    lines = [(n, line) for n, line in enumerate(body.split(b"\n"), 1) if line.strip()]
    if not lines:
        raise InvalidRequest("the body has no lines; send a request as JSON in each")
    return lines


def _fields(line: bytes) -> dict[str, Any]:
    """Return a line's fields; none if it is no JSON object."""
    try:
        found = from_json(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(
    task: Task[Any], url: str, fields: Mapping[str, Any], line: bytes
) -> tuple[BaseModel, bool]:
    """Return the request in a line, and whether it was asked as a chat.

    Raises:
        ClientError: it is not a request of ``task``.
    """
    request: type[BaseModel] = task.request
    if not fields.keys() & BatchLine.model_fields.keys():
        return validated(request, line), False
    if fields.get("url") != CHAT:
        return validated(_line_of(request, url), line).body, False
    chat = validated(_line_of(ChatRequest, url), line).body
    if chat.model != task.name:
        words = f"body.model cannot be {chat.model[:80]!r}; this batch is of {task.name}"
        raise InvalidRequest(words, "body.model")
    if chat.stream:
        raise InvalidRequest("body.stream cannot be true in a batch", "body.stream")
    return question(chat)[1], True


class _Answers(Response):
    """The answers of a batch. Each is sent by who got it, so a client that does not read them holds
    up those that follow.

    Args:
        run: tells all answers.
        stack: closed at the end.
    """

    media_type = JSON_LINES

    def __init__(self, run: Callable[[Tell], Awaitable[None]], stack: ExitStack) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._run, self._stack = run, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(answer: bytes) -> None:
            await send({"type": "http.response.body", "body": answer, "more_body": True})

        with self._stack:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._run(tell)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def described(task: Task[Any], url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Describe a batch's answer and its request, with examples, for the API page."""
    request = task.examples[0].model_dump(mode="json")
    line = {"custom_id": "lifter-2", "method": "POST", "url": url, "body": request}
    response = {
        "status_code": 200,
        "request_id": "1-1",
        "body": json.loads(task.render(task.examples[0], task.example_answer)),
    }
    answer = {"id": "batch_req_1-1", "custom_id": "1", "response": response, "error": None}
    asked, answered = (
        {
            "schema": {"type": "string", "format": "binary"},
            "example": "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines),
        }
        for lines in ([request, line], [answer])
    )
    words = (
        f"한 줄에 요청 하나, 또는 OpenAI 배치 파일의 한 줄. {MOST_LINES:,}줄, "
        f"{MOST_BYTES // 2**20} MiB까지. 대화형 요청이 먼저다."
    )
    body = {"required": True, "description": words, "content": {JSON_LINES: asked}}
    return {"content": {JSON_LINES: answered}}, {"requestBody": body}
