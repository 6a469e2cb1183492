"""The data path: from a validated request to a checked answer.

request → (the task before) → prompt + forced head → engine (adapter, constraint) → decisions →
whole answer → check
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel

from serving.contract.output import OutputError, Part, Tail
from serving.contract.tasks import TASKS, Task
from serving.gateway.admission import Admission
from serving.gateway.engine import Engine
from serving.gateway.errors import EngineFault, WrongAnswer
from serving.gateway.metrics import LANGUAGE
from serving.gateway.telemetry import Telemetry


class Generator:
    """Answers task requests with one engine."""

    def __init__(
        self, engine: Engine, admission: Admission, telemetry: Telemetry, tail: Tail
    ) -> None:
        self._engine, self._admission = engine, admission
        self._telemetry, self._metrics = telemetry, telemetry.metrics
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
        prompt, output = task.ask(request)
        part = output.part(self._tail)
        async with self._admission.place(task.name):
            with self._telemetry.stage("engine", task.name):
                completion = await self._engine.complete(
                    model=task.name,
                    prompt=prompt + part.prefix,
                    max_tokens=part.max_tokens,
                    regex=part.regex,
                    headers=headers,
                )
        self._metrics.tokens.labels(task.name, "in").inc(completion.prompt_tokens)
        self._metrics.tokens.labels(task.name, "out").inc(completion.completion_tokens)
        with self._telemetry.stage("check", task.name):
            values, text = self._checked(task, request, part, completion.text)
        self._metrics.decisions.labels(task.name).inc(len(values))
        generated = len(completion.text)
        self._metrics.characters.labels(task.name, "generated").inc(generated)
        self._metrics.characters.labels(task.name, "derived").inc(len(text) - generated)
        return values, text

    def _checked(
        self, task: Task, request: BaseModel, part: Part, written: str
    ) -> tuple[dict[str, Any], str]:
        """Decisions and whole answer from what the engine wrote."""
        violations = self._metrics.violations
        try:
            values = part.read(written)
        except OutputError as error:
            violations.labels(task.name, LANGUAGE).inc()
            raise EngineFault(f"the engine did not keep to the constraint: {error}") from error
        text = task.render(request, values)
        broken = task.check(request, msgspec.json.decode(text))
        for rule in broken:
            violations.labels(task.name, rule).inc()
        if broken:
            raise WrongAnswer(f"the answer breaks {', '.join(broken)} and was held back")
        return values, text
