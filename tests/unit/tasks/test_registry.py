"""What every registered task promises to those who iterate over the registry."""

import json
from random import Random
from typing import Any

import pytest

from serving.tasks.base import Task
from serving.tasks.registry import TASKS, parse_prompt

EVERY_TASK = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


@EVERY_TASK
def test_drawn_requests_are_valid_complete_and_distinct(task: Task[Any]) -> None:
    rng = Random(5)
    drawn = [task.draw(rng) for _ in range(200)]
    assert len({request.model_dump_json() for request in drawn}) == len(drawn)
    for request in drawn:
        assert task.request.model_validate_json(request.model_dump_json()) == request
        assert task.missing(request) is None


@EVERY_TASK
def test_any_legal_decisions_for_a_drawn_request_make_a_right_answer(task: Task[Any]) -> None:
    rng = Random(6)
    for _ in range(50):
        question = task.question(task.draw(rng))
        decided = question.output.sample(rng)
        answer = task.answer(question, question.output.decided(decided))
        assert (answer.values, answer.broken) == (decided, [])
        task.response.model_validate(json.loads(answer.text))
        parts = task.parts(decided)
        assert {name: value for part in parts for name, value in part.items()} == decided
        assert sum(map(len, parts)) == len(decided)


@EVERY_TASK
def test_its_prompt_is_read_back_with_any_part_of_the_answer(task: Task[Any]) -> None:
    question = task.question(task.examples[0])
    text = question.output.text(task.example_answer)
    for end in (0, len(question.output.head), len(text) // 2, len(text)):
        read = parse_prompt(question.prompt + text[:end])
        assert read is not None
        assert (read.task, read.output, read.answer) == (task, question.output, text[:end])


def test_what_is_not_a_prompt_of_ours_is_not_read() -> None:
    known = TASKS["month"].question(TASKS["month"].examples[0]).prompt
    assert parse_prompt(known)
    for other in (
        "",
        known[1:],  # begins otherwise
        known.replace("## 답변", "## 대답"),  # no answer to come
        known.replace(TASKS["month"].title, "다른 제목"),  # no such task
        known.replace("**운동경험**: 1", "**운동경험**: 9"),  # no such output
        known.replace("**운동경험**: 1", "**운동경험**: 하나"),
        known.replace("- **운동경험**: 1\n", ""),
    ):
        assert other != known
        assert parse_prompt(other) is None
