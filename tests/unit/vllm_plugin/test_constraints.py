"""Callers' constraints: tried in a process of their own, and compiled once for tasks."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.request import get_structured_output_key

from serving.engine.settings import DEMO
from serving.tasks.registry import TASKS
from serving.vllm_plugin.patches import constraints
from serving.vllm_plugin.patches.constraints import Trials
from tests.kit.hostile import CONSTRAINTS

TOKENIZER = DEMO / "base" / "tokenizer.json"
LIMITED = {
    "multiple of a large prime": "it takes more than 0.3 s to compile",
    "array too big for a grammar": "",
    "a{100000}": "a token takes more than 30 ms",
    "a" * 40: "it has 70",
    "no grammar": "",
    r"a\Z": "invalid regex",
    "refers to itself": "",
}
REGEX = StructuredOutputOptions.REGEX


@pytest.fixture
async def trials() -> AsyncIterator[Trials]:
    tried = Trials(TOKENIZER)
    yield tried
    for child in psutil.Process().children():
        child.kill()
    await asyncio.sleep(0.1)


async def tried(trials: Trials, constraint: dict[str, Any]) -> str:
    return await trials.problem(*get_structured_output_key(StructuredOutputsParams(**constraint)))


async def test_no_hostile_constraint_takes_long_and_the_worst_are_refused(trials: Trials) -> None:
    for name, constraint in CONSTRAINTS.items():
        start = time.monotonic()
        said = await tried(trials, constraint)
        assert time.monotonic() - start < 5, name
        if name in LIMITED:
            assert said, name
            assert LIMITED[name] in said, name


async def test_constraints_of_tasks_may_be_used(trials: Trials) -> None:
    for task in TASKS.values():
        for output in task.outputs():
            for regex in (output.decided_regex, output.regex):
                assert await trials.problem(REGEX, regex) == ""


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (StructuredOutputOptions.REGEX, "(?=a)a", "look-around"),
        (StructuredOutputOptions.REGEX, "[[a]", "unclosed character class"),
        (StructuredOutputOptions.JSON, '{"type": "string", "pattern": "(?<!a)b"}', "look-around"),
        (StructuredOutputOptions.JSON, '{"type": "array", "uniqueItems": true}', '"uniqueItems"'),
        (StructuredOutputOptions.JSON, '{"type": "string", "format": "x"}', "Unknown format: x"),
    ],
)
async def test_what_the_compiler_cannot_enforce_is_refused_with_its_reason(
    trials: Trials, kind: StructuredOutputOptions, text: str, words: str
) -> None:
    problem = await trials.problem(kind, text)
    assert words in problem and "\n" not in problem


async def test_one_of_is_taken_as_outlines_took_it(trials: Trials) -> None:
    """Schemas of pydantic's discriminated unions have it."""
    assert await tried(trials, {"json": {"oneOf": [{"const": "a"}, {"const": "b"}]}}) == ""


async def test_trials_go_on_after_their_process_was_killed(trials: Trials) -> None:
    assert await trials.problem(REGEX, "a") == ""
    (child,) = psutil.Process().children()
    child.kill()
    await asyncio.sleep(0.2)
    assert await trials.problem(REGEX, "a") == ""  # remembered
    assert await trials.problem(REGEX, "b") == ""


async def test_a_trial_is_not_repeated(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await trials.problem(REGEX, "[[a")
    monkeypatch.setattr(trials, "_ask", None)
    assert first and await trials.problem(REGEX, "[[a") == first


async def test_one_slow_trial_holds_nobody_up(trials: Trials) -> None:
    slow = asyncio.create_task(tried(trials, CONSTRAINTS["multiple of a large prime"]))
    await asyncio.sleep(0.05)
    assert await trials.problem(REGEX, "c") == ""
    assert not slow.done()
    assert "to compile" in await slow


async def test_a_request_whose_constraint_fails_its_trial_is_the_caller_s_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: list[str] = []

    async def add(_: Any, request_id: str, *__: Any, **___: Any) -> None:
        added.append(request_id)

    engine: Any = object()
    monkeypatch.setattr(constraints, "vllm_add_request", add)
    monkeypatch.setitem(constraints._trials, engine, SimpleNamespace(problem=_refuse_b))

    async def ask(name: str, regex: str | None = None) -> None:
        params = StructuredOutputsParams(regex=regex) if regex else None
        await constraints.add_request(engine, name, "x", SamplingParams(structured_outputs=params))

    await ask("good", regex="a")
    await ask("free")
    with pytest.raises(VLLMValidationError, match="cannot be used: no b"):
        await ask("bad", regex="b")
    assert added == ["good", "free"]


async def _refuse_b(_: StructuredOutputOptions, text: str) -> str:
    return "no b" if text == "b" else ""
