"""From what the engine writes to the whole answer: the bytes that decoding all of it would give."""

import json
import random
import re
from collections.abc import Mapping
from typing import Any

from serving.gateway.access import ANYBODY
from serving.gateway.admission import Admission
from serving.gateway.deadline import Deadline
from serving.gateway.generate import Generator
from serving.gateway.metrics import TASK_POOL, Metrics
from serving.gateway.readiness import Readiness
from serving.gateway.server import Drain
from serving.gateway.settings import GatewaySettings
from serving.gateway.telemetry import Telemetry
from serving.limit import Limit
from serving.tasks.base import Task
from serving.tasks.rate import answer as rate
from serving.tasks.registry import TASKS
from tests.unit.gateway.fake_engine import FakeEngine


async def answer(task: Task[Any], request: Any, values: Mapping[str, Any]) -> str:
    """What the gateway says when the engine writes these decisions, under its constraint."""
    output = task.question(request).output
    engine, telemetry = FakeEngine(text=output.decided(values)), Telemetry(Metrics(), None)
    admission = Admission(TASK_POOL, Limit(1), 1, telemetry)
    readiness = Readiness(engine, GatewaySettings(), Drain(), telemetry.metrics, lambda: None)
    readiness.ready = True
    generator = Generator(engine, admission, readiness, telemetry, timeout_seconds=60)
    text = (await generator.answer(task, request, {}, Deadline.after(60), ANYBODY)).text
    (call,) = engine.calls
    assert call.regex and re.fullmatch(call.regex, output.decided(values))
    whole = output.text(values)
    assert (
        call.prompt + output.decided(values)
        == (task.question(request).prompt + whole)[: len(call.prompt + output.decided(values))]
    )
    assert text == task.render(request, output.parse(whole))
    return text


async def test_every_combination_of_rates_is_answered_with_the_outputs_own_text() -> None:
    task = TASKS["rate"]
    combinations = list(rate.OUTPUT.enumerate())
    assert len(combinations) == 104
    for values in combinations:
        assert await answer(task, task.examples[0], values) == rate.OUTPUT.text(values)


async def test_months_are_answered_with_what_their_whole_text_decides() -> None:
    task, chance = TASKS["month"], random.Random(6)
    for example in task.examples * 8:
        request = TASKS["month"].complete(example, rate.OUTPUT.sample(chance))
        text = await answer(task, request, task.question(request).output.sample(chance))
        assert json.loads(text)["rates"] == request.rates.model_dump()
