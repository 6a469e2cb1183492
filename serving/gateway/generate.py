"""The data path: from a validated request to a checked answer.

request → (prerequisite task) → prompt + forced head → engine (adapter, constraint) → decisions →
full answer → check
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random

from serving.gateway.access import Caller
from serving.gateway.admission import Admission, Flow, Usage
from serving.gateway.deadline import Deadline
from serving.gateway.engine import TASK_PRIORITY, Completion, Engine
from serving.gateway.errors import EngineFault, EngineSilent, EngineUnavailable, WrongAnswer
from serving.gateway.head import Head
from serving.gateway.metrics import LANGUAGE
from serving.gateway.readiness import Readiness
from serving.gateway.telemetry import Telemetry
from serving.language.fields import OutputError
from serving.tasks.base import Answer, Question, Task
from serving.tasks.registry import TASKS

RETRY_SECONDS = (0.1, 0.3)
"""Range of the random delay before the third attempt; the second attempt is immediate."""


def _another_may_answer(error: BaseException) -> bool:
    """Return whether another engine behind the same address may succeed."""
    return isinstance(error, EngineUnavailable) and not isinstance(error, EngineSilent)


@dataclass(frozen=True)
class Generated:
    """An answer and what it took."""

    text: str
    """The answer as JSON, exactly as rendered by the task."""
    usage: Usage


class Generator:
    """Answers task requests using one engine client.

    Args:
        engine: the engine.
        admission: the share of the engine to use.
        readiness: of the engine.
        telemetry: receives metrics and traces.
        timeout_seconds: how long an answer may take.
        priority: of the requests at the engine; lower numbers go first.
    """

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        readiness: Readiness,
        telemetry: Telemetry,
        timeout_seconds: float,
        priority: int = TASK_PRIORITY,
    ) -> None:
        self._engine, self._admission, self._readiness = engine, admission, readiness
        self._telemetry, self._metrics = telemetry, telemetry.metrics
        self._timeout_seconds, self._priority = timeout_seconds, priority

    @property
    def is_free(self) -> bool:
        """Whether a request that comes now would not wait."""
        return self._admission.is_free

    def deadline(self, head: Head) -> Deadline:
        """Return the deadline of a request.

        Raises:
            InvalidRequest: the caller's own is malformed.
        """
        return head.deadline(self._timeout_seconds)

    def refuse(self, task: Task[Any], head: Head, caller: Caller) -> None:
        """Raise if a request for ``task`` that comes now would not be answered; ``answer`` does so
        itself.

        Raises:
            GatewayError: EngineUnavailable, Stopping, Overloaded or InvalidRequest.
        """
        self._readiness.check()
        self._admission.refuse_late(Flow(task.name, caller.name), self.deadline(head))

    async def answer(
        self,
        task: Task[Any],
        request: BaseModel,
        headers: Mapping[str, str],
        deadline: Deadline | None,
        caller: Caller,
    ) -> Generated:
        """Return the checked answer to ``request``.

        Args:
            task: the requested task; its prerequisite runs first if needed.
            request: a validated ``task.request``.
            headers: forwarded to the engine (request id, trace).
            deadline: when the answer is no longer of use; None if it may wait for its turn as long
                as it takes, also until the caller may take more tokens.
            caller: who asks.

        Raises:
            GatewayError: Forbidden, LimitReached, InvalidRequest, Overloaded, an engine error, or
                WrongAnswer.
        """
        caller.require("tasks", task.name)
        await caller.require_tokens(waits=deadline is None)
        self._readiness.require()
        async with self._admission.slot(Flow(task.name, caller.name), deadline) as usage:
            deadline = deadline or Deadline.after(self._timeout_seconds)
            try:
                if (first := task.missing(request)) is not None:
                    asked = TASKS[task.prerequisite]
                    before = await self._ask(asked, first, headers, deadline, usage)
                    request = task.complete(request, before.values)
                answer = await self._ask(task, request, headers, deadline, usage)
            finally:
                await caller.spend(usage.tokens)
        return Generated(answer.text, usage)

    async def _ask(
        self,
        task: Task[Any],
        request: BaseModel,
        headers: Mapping[str, str],
        deadline: Deadline,
        usage: Usage,
    ) -> Answer:
        """Return the checked answer to a complete request."""
        question = task.question(request)
        with self._telemetry.stage("engine", task.name):
            completion = await self._asked(
                task.name,
                partial(
                    self._engine.complete,
                    model=task.name,
                    prompt=question.prefilled,
                    max_tokens=question.output.max_new_tokens,
                    regex=question.output.decided_regex,
                    headers=headers,
                    deadline=deadline,
                    priority=self._priority,
                ),
            )
        self._readiness.progressed()
        usage.add(completion)
        self._metrics.tokens.labels(task.name, "in").inc(completion.prompt_tokens)
        self._metrics.tokens.labels(task.name, "out").inc(completion.completion_tokens)
        with self._telemetry.stage("check", task.name):
            answer = self._checked(task, question, completion.text)
        self._metrics.decisions.labels(task.name).inc(len(answer.values))
        generated = len(completion.text)
        self._metrics.characters.labels(task.name, "generated").inc(generated)
        self._metrics.characters.labels(task.name, "derived").inc(len(answer.text) - generated)
        return answer

    async def _asked(self, adapter: str, ask: Callable[[], Awaitable[Completion]]) -> Completion:
        """Call the engine; retry on failure, because several engines may share its address.

        A retry is safe: decoding is greedy, and nothing has been sent to the client. The request
        keeps its slot, so retries do not add concurrent load to a failing engine.
        """
        try:
            return await ask()
        except EngineUnavailable as error:
            if not _another_may_answer(error):
                raise
        return await self._asked_again(adapter, ask)

    @retry(
        retry=retry_if_exception(_another_may_answer),
        stop=stop_after_attempt(2),
        wait=wait_random(*RETRY_SECONDS),
        reraise=True,
    )
    async def _asked_again(
        self, adapter: str, ask: Callable[[], Awaitable[Completion]]
    ) -> Completion:
        self._metrics.retries.labels(adapter).inc()
        return await ask()

    def _checked(self, task: Task[Any], question: Question[Any], written: str) -> Answer:
        """Build the answer from the engine's text; reject it if it is invalid."""
        violations = self._metrics.violations
        try:
            answer = task.answer(question, written)
        except OutputError as error:
            violations.labels(task.name, LANGUAGE).inc()
            raise EngineFault(f"the engine violated the constraint: {error}") from error
        for rule in answer.broken:
            violations.labels(task.name, rule).inc()
        if answer.broken:
            raise WrongAnswer(f"the answer violates {', '.join(answer.broken)} and was rejected")
        return answer
