"""Deriving the tail gives the bytes that decoding it would: for every answer that there is."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from serving.contract import month, rate
from serving.contract.output import Tail
from serving.contract.tasks import TASKS, Task
from serving.gateway.admission import Admission
from serving.gateway.generate import Generator
from serving.gateway.metrics import Metrics
from serving.gateway.telemetry import Telemetry
from tests.unit.gateway.fake_engine import FakeEngine


async def answer(task: Task, request: Any, values: Mapping[str, Any], tail: Tail) -> str:
    """What the gateway says when the engine writes these decisions, under its constraint."""
    output = task.output(request)
    part = output.part(tail)
    written = output.decided(values) if tail == "derive" else output.text(values)
    assert re.fullmatch(part.regex, written)
    assert part.prefix + written == output.text(values)[: len(part.prefix + written)]
    engine, telemetry = FakeEngine(text=written), Telemetry(Metrics(tail), None)
    generator = Generator(engine, Admission(1, 1, telemetry), telemetry, tail)
    text = await generator.answer(task, request, {})
    assert engine.calls[0].regex == part.regex
    return text


async def test_every_combination_of_rates_is_answered_alike() -> None:
    task = TASKS["rate"]
    compared = 0
    for values in rate.OUTPUT.enumerate():
        derived = await answer(task, task.examples[0], values, "derive")
        assert derived == await answer(task, task.examples[0], values, "decode")
        assert derived == rate.OUTPUT.text(values)
        compared += 1
    assert compared == 135


async def test_months_are_answered_alike() -> None:
    task, chance = TASKS["month"], random.Random(6)
    for example in task.examples * 8:
        request = month.with_rates(example, rate.OUTPUT.sample(chance))
        values = task.output(request).sample(chance)
        derived = await answer(task, request, values, "derive")
        assert derived == await answer(task, request, values, "decode")
