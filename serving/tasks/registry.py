"""The registry: one line per task (docs/new-task.md) or calculation."""

from dataclasses import dataclass
from typing import Any

from serving.language.output import Output
from serving.tasks.base import Calculation, Task
from serving.tasks.cycle import NEXT
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
CALCULATIONS: dict[str, Calculation[Any]] = {one.name: one for one in (NEXT,)}
_BY_TITLE = {task.title: task for task in TASKS.values()}


@dataclass(frozen=True)
class ParsedPrompt:
    """The contents of a text that begins with a known prompt."""

    task: Task[Any]
    facts: Facts
    """Single-line facts only."""
    output: Output
    answer: str
    """The partial answer."""


def parse_prompt(text: str) -> ParsedPrompt | None:
    """Parse ``text``; return None if it does not begin with a known prompt."""
    read = read_question(text)
    if read is None or (task := _BY_TITLE.get(read[0])) is None:
        return None
    _, facts, answer = read
    try:
        return ParsedPrompt(task, facts, task.output(facts), answer)
    except (KeyError, ValueError):
        return None
