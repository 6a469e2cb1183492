"""The task registry: what this deployment can be asked, one entry a task.

A new task is a module like ``rate`` and an entry here. Its name is its route
(``/gen/routine/<name>``), its adapter and its label in metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import BaseModel

from serving.contract import assistance, check_month, check_rate, month, rate
from serving.contract.output import Output
from serving.contract.profile import EDGES, PUBLISHED, Profile
from serving.contract.prompt import Facts, question, read_question

Values = Mapping[str, Any]


def _whole(values: Values) -> list[Values]:
    return [values]


@dataclass(frozen=True)
class Before:
    """Another task that is asked first where a request leaves its answer out."""

    task: str
    missing: Callable[[Any], BaseModel | None]
    """From a request to that task's request, or None where the answer is there already."""
    add: Callable[[Any, Values], Any]
    """From a request and that task's decisions to the request that has them."""


@dataclass(frozen=True)
class Task:
    """One thing a model was trained to answer."""

    name: str
    """Route segment, adapter name and metric label."""
    summary: str
    """One line in Korean for the API's page."""
    request: type[BaseModel]
    answer: type[BaseModel]
    title: str
    """The first line of the question; unique."""
    facts: Callable[[Any], Facts]
    """From a validated request to what the model must know."""
    output_of: Callable[[Facts], Output]
    """From these facts, also as read from a prompt, to the language of what the model writes."""
    render: Callable[[Any, Values], str]
    """From a validated request and the model's decisions to the answer, as JSON text."""
    check: Callable[[Any, Mapping[str, Any]], list[str]]
    """From request and answer to the names of the rules the answer breaks."""
    rules: tuple[str, ...]
    """All rules that ``check`` can name."""
    examples: tuple[Any, ...]
    """Complete requests for documentation and golden prompts; each output is among theirs."""
    edges: tuple[Any, ...]
    """Further requests whose prompts the fingerprint covers: what the examples do not show."""
    draw: Callable[[Random], Any]
    """Any complete request, to measure with."""
    worked: Values
    """Decisions that answer the first example well, for documentation."""
    before: Before | None = None
    parts: Callable[[Values], list[Values]] = _whole
    """The decisions in the parts that evaluation counts one by one."""
    part: str = "answer"
    """What such a part is called."""

    def ask(self, request: Any) -> tuple[str, Output]:
        """The prompt's text, up to the answer's first byte, and the language of what the model
        writes after it."""
        facts = self.facts(request)
        return question(self.title, facts), self.output_of(facts)

    def prompt(self, request: Any) -> str:
        """The first of ``ask``."""
        return self.ask(request)[0]

    def output(self, request: Any) -> Output:
        """The second of ``ask``."""
        return self.ask(request)[1]

    def outputs(self) -> list[Output]:
        """Every output of the task, once."""
        return list({id(output): output for output in map(self.output, self.examples)}.values())

    def prepare(self) -> None:
        """Build the constraints now (Outlines takes about a second to import), not in a request."""
        for output in self.outputs():
            assert output.decided_regex

    def prompt_fingerprint(self) -> str:
        """A hash over the prompts of examples and edges: changes when a prompt's bytes change."""
        return _digest(self.prompt(request) for request in self.examples + self.edges)

    def output_fingerprint(self) -> str:
        """A hash over the outputs' whole languages (derived text included)."""
        return _digest(output.regex for output in self.outputs())


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="rate",
            summary="한 달 5/3/1 진행표: 네 가지 비율과 4주 계획",
            request=Profile,
            answer=rate.RateAnswer,
            title=rate.PROGRAM,
            facts=rate.facts,
            output_of=lambda _: rate.OUTPUT,
            render=lambda _, values: rate.OUTPUT.text(values),
            check=check_rate.check_rate,
            rules=check_rate.RULES,
            examples=PUBLISHED,
            edges=EDGES,
            draw=rate.draw,
            worked=dict(zip(rate.RATES, (55, 10, 5, 50), strict=True)),
        ),
        Task(
            name="month",
            summary="한 달 5/3/1 루틴: 날마다 메인 리프트의 중량(kg)과 보조 운동",
            request=month.MonthRequest,
            answer=month.MonthAnswer,
            title=month.TITLE,
            facts=month.facts,
            output_of=month.output_of,
            render=month.answer,
            check=check_month.check_month,
            rules=check_month.RULES,
            examples=month.EXAMPLES,
            edges=month.EDGES,
            draw=month.draw,
            worked=month.WORKED,
            before=Before("rate", month.without_rates, month.with_rates),
            parts=assistance.days_of,
            part="day",
        ),
    )
}


@dataclass(frozen=True)
class Asked:
    """What a text that begins with one of our prompts says."""

    task: Task
    facts: Facts
    """Those that stand on one line."""
    output: Output
    answer: str
    """The answer so far."""


def read_prompt(text: str) -> Asked | None:
    """What ``text`` asks, or None if it does not begin with one of our prompts."""
    read = read_question(text)
    if read is None or (task := _BY_TITLE.get(read[0])) is None:
        return None
    _, facts, answer = read
    try:
        return Asked(task, facts, task.output_of(facts), answer)
    except (KeyError, ValueError):
        return None


_BY_TITLE = {task.title: task for task in TASKS.values()}
