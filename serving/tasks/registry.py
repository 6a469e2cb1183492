"""The registry: one line a task (docs/new-task.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.language.output import Output
from serving.tasks.base import Task
from serving.tasks.month.task import MonthTask
from serving.tasks.prompt import Facts, read_question
from serving.tasks.rate.task import RateTask

TASKS: dict[str, Task[Any]] = {
    task.name: task
    for task in (
        RateTask(),
        MonthTask(),
    )
}
_BY_TITLE = {task.title: task for task in TASKS.values()}


@dataclass(frozen=True)
class ParsedPrompt:
    """What a text that begins with one of our prompts says."""

    task: Task[Any]
    facts: Facts
    """Those that stand on one line."""
    output: Output
    answer: str
    """The answer so far."""


def parse_prompt(text: str) -> ParsedPrompt | None:
    """What ``text`` asks, or None if it does not begin with one of our prompts."""
    read = read_question(text)
    if read is None or (task := _BY_TITLE.get(read[0])) is None:
        return None
    _, facts, answer = read
    try:
        return ParsedPrompt(task, facts, task.output(facts), answer)
    except (KeyError, ValueError):
        return None
