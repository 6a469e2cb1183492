"""The data path: from a validated request to a checked answer.

request → (the task before) → prompt + forced head → engine (adapter, constraint) → decisions →
whole answer → check
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from serving.contract.output import OutputError, Tail
from serving.contract.tasks import TASKS, Task
from serving.gateway.admission import Admission
from serving.gateway.engine import Engine
from serving.gateway.errors import EngineFault, WrongAnswer
from serving.gateway.metrics import Metrics


class Generator:
    """Answers task requests with one engine."""

    def __init__(self, engine: Engine, admission: Admission, metrics: Metrics, tail: Tail) -> None:
        self._engine, self._admission, self._metrics = engine, admission, metrics
        self._tail: Tail = tail

    async def answer(self, task: Task, request: BaseModel, headers: Mapping[str, str]) -> str:
        """The answer to ``request`` as JSON text, in the contract's own bytes.

        Args:
            task: what is asked; a task that comes before it is asked first where it must be.
            request: a validated ``task.request``.
            headers: passed to the engine (request id, trace).

        Raises:
            GatewayError: Overloaded, an engine error, or WrongAnswer.
        """
        if task.before and (first := task.before.missing(request)):
            values, _ = await self._ask(TASKS[task.before.task], first, headers)
            request = task.before.add(request, values)
        _, text = await self._ask(task, request, headers)
        return text

    async def _ask(
        self, task: Task, request: BaseModel, headers: Mapping[str, str]
    ) -> tuple[dict[str, Any], str]:
        """The model's decisions, and the checked answer that they make."""
        part = task.output(request).part(self._tail)
        async with self._admission.place():
            start = time.perf_counter()
            completion = await self._engine.complete(
                model=task.name,
                prompt=task.prompt(request) + part.prefix,
                max_tokens=part.max_tokens,
                regex=part.regex,
                headers=headers,
            )
            self._metrics.engine_time.labels(task.name).observe(time.perf_counter() - start)
        self._metrics.tokens.labels(task.name, "in").inc(completion.prompt_tokens)
        self._metrics.tokens.labels(task.name, "out").inc(completion.completion_tokens)
        try:
            values = part.read(completion.text)
        except OutputError as error:
            self._metrics.violations.labels(task.name, "language").inc()
            raise EngineFault(f"the engine did not keep to the constraint: {error}") from error
        text = task.render(request, values)
        broken = task.check(request, json.loads(text))
        for rule in broken:
            self._metrics.violations.labels(task.name, rule).inc()
        if broken:
            raise WrongAnswer(f"the answer breaks {', '.join(broken)} and was held back")
        return values, text
