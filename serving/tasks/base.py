"""A task: a question to a model, and the answer made of what it writes.

Route, constraint, drafts, readiness, metrics, dataset, evaluation, load test and documentation
follow from the registry; none of them names a task.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel
from pydantic_core import from_json

from serving.language.fields import Values
from serving.language.output import Output
from serving.tasks.prompt import Facts, question

Request = TypeVar("Request", bound=BaseModel)


@dataclass(frozen=True)
class Question:
    """What a model is asked."""

    prompt: str
    """Up to where the answer's first byte follows."""
    output: Output
    """The language of what the model writes."""

    @property
    def prefilled(self) -> str:
        """The prompt with the output's forced head: what the engine goes on from."""
        return self.prompt + self.output.head


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    values: dict[str, Any]
    """The model's decisions."""
    text: str
    """JSON."""
    broken: Sequence[str]
    """Names of the rules that it breaks; empty if it is right."""


class QueryError(ValueError):
    """A query parameter of a form is missing or wrong.

    Args:
        parameter: its name.
        message: says what it must be.
    """

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class Form:
    """A form in which an answer can leave, beside JSON."""

    media_type: str
    prepare: Callable[[Mapping[str, str]], Callable[[str], str | bytes]]
    """From a request's query to what makes this form of an answer's JSON; raises QueryError."""
    parameters: tuple[dict[str, Any], ...] = ()
    """The query parameters, as OpenAPI describes them."""
    file_name: str = ""
    """What a client that saves it should call it."""


@dataclass(frozen=True)
class BadRequest:
    """A request that must be refused with 422, beyond what its schema tells."""

    changes: Mapping[str, Any]
    """To the first example, by field."""
    parameter: str
    """The field that the error names."""
    words: str
    """What its message says."""


class Task(ABC, Generic[Request]):
    """One thing a model was trained to answer."""

    name: ClassVar[str]
    """Route segment, adapter name and metric label."""
    summary: ClassVar[str]
    """One line in Korean for the API's page."""
    title: ClassVar[str]
    """The first line of the prompt; unique among tasks."""
    request: type[Request]
    """The request's body."""
    response: ClassVar[type[BaseModel]]
    """The answer's."""
    rules: ClassVar[tuple[str, ...]]
    """All rules that ``check`` can find broken."""
    examples: tuple[Request, ...]
    """Complete requests for documentation and golden prompts; each output is among theirs."""
    edges: tuple[Request, ...]
    """Further requests whose prompts the fingerprint covers: what the examples do not show."""
    example_answer: ClassVar[Values]
    """Decisions that answer the first example well."""
    bad: ClassVar[tuple[BadRequest, ...]] = ()
    """Requests that only this task refuses."""
    part: ClassVar[str] = "answer"
    """What ``parts`` are called."""
    least_score: ClassVar[float] = 0.97
    """Share of parts that an adapter must decide exactly as the coach does."""
    prerequisite: ClassVar[str] = ""
    """The task that is asked first where ``missing`` says so."""

    @abstractmethod
    def facts(self, request: Request) -> Facts:
        """What the model must know of a complete request."""

    @abstractmethod
    def output(self, facts: Facts) -> Output:
        """The language of what the model writes, from the facts, also as read from a prompt.

        Raises:
            KeyError, ValueError: the facts are no task's of this kind.
        """

    @abstractmethod
    def render(self, request: Request, values: Values) -> str:
        """The answer as JSON, from a complete request and the model's decisions."""

    @abstractmethod
    def check(self, request: Request, answer: Mapping[str, Any]) -> list[str]:
        """Names of the rules that an answer breaks. Shares no code with ``render``."""

    @abstractmethod
    def draw(self, rng: Random) -> Request:
        """Any everyday request, complete; no two are alike."""

    def describe(self, request: Request) -> str:
        """An example in a few words, for the API's page."""
        return ""

    def missing(self, request: Request) -> BaseModel | None:
        """The request to the prerequisite, or None where ``request`` is complete."""
        return None

    def complete(self, request: Request, values: Values) -> Request:
        """``request`` with what the prerequisite decided."""
        return request

    def parts(self, values: Values) -> list[Values]:
        """The decisions in the parts that evaluation counts one by one."""
        return [values]

    def forms(self) -> tuple[Form, ...]:
        """The forms in which an answer can leave, beside JSON. Imports what they need, which only
        the gateway has."""
        return ()

    def question(self, request: Request) -> Question:
        """What the model is asked for a complete request."""
        facts = self.facts(request)
        return Question(question(self.title, facts), self.output(facts))

    def answer(self, request: Request, written: str) -> Answer:
        """The checked answer to a complete request.

        Args:
            request: the request.
            written: what the model wrote after ``Question.prefilled``, under its constraint.

        Raises:
            OutputError: ``written`` is not in the output's language.
        """
        values = self.output(self.facts(request)).read(written)
        text = self.render(request, values)
        return Answer(values, text, self.check(request, from_json(text)))

    def outputs(self) -> list[Output]:
        """Every output of the task, once."""
        found = [self.question(request).output for request in self.examples]
        return list(dict.fromkeys(found))

    def prompt_fingerprint(self) -> str:
        """A hash over the prompts of examples and edges: changes when a prompt's bytes change."""
        return _digest(self.question(request).prompt for request in self.examples + self.edges)

    def output_fingerprint(self) -> str:
        """A hash over the outputs' whole languages (derived text included)."""
        return _digest(output.regex for output in self.outputs())


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]
