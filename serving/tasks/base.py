"""The task interface: builds the prompt for a model and the answer from its output.

Route, constraint, drafts, readiness, metrics, dataset, evaluation, load test and documentation
are all derived from the registry; none of them refers to a task by name.
"""

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
class Question(Generic[Request]):
    """The input for a model."""

    request: Request
    """The complete request that it asks."""
    prompt: str
    """Ends right before the first byte of the answer."""
    output: Output
    """The output language of the model."""

    @property
    def prefilled(self) -> str:
        """The prompt followed by the output's forced head: the engine's input."""
        return self.prompt + self.output.head


@dataclass(frozen=True)
class Answer:
    """The answer for a client."""

    values: dict[str, Any]
    """The model's decisions."""
    text: str
    """The answer as JSON."""
    broken: Sequence[str]
    """Names of the violated rules; empty if the answer is valid."""


class QueryError(ValueError):
    """A query parameter of a form is missing or invalid.

    Args:
        parameter: name of the query parameter.
        message: describes the valid values.
    """

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class Form:
    """An answer format other than JSON."""

    media_type: str
    prepare: Callable[[Mapping[str, str]], Callable[[str], str | bytes]]
    """Take the request's query; return the converter from answer JSON. Raises QueryError."""
    parameters: tuple[dict[str, Any], ...] = ()
    """Query parameters, as OpenAPI parameter objects."""
    file_name: str = ""
    """Suggested name for the downloaded file."""


@dataclass(frozen=True)
class BadRequest:
    """A request that must be rejected with 422, beyond the cases derived from the schema."""

    changes: Mapping[str, Any]
    """Changes to the first example, by field."""
    parameter: str
    """Field named in the error."""
    words: str
    """Expected text in the error message."""


@dataclass(frozen=True)
class Calculation(Generic[Request]):
    """A route that needs no model: its answer follows from the request alone."""

    name: str
    """Route segment."""
    summary: str
    """One-line summary in Korean for the API documentation."""
    request: type[Request]
    """Request body model."""
    response: type[BaseModel]
    """Response body model."""
    examples: tuple[Request, ...]
    """Requests for documentation."""
    compute: Callable[[Request], BaseModel]
    """Return the answer to a request."""
    bad: tuple[BadRequest, ...] = ()
    """Specific invalid requests."""


class Task(ABC, Generic[Request]):
    """One task that a model is trained for."""

    name: ClassVar[str]
    """Route segment, adapter name and metric label."""
    summary: ClassVar[str]
    """One-line summary in Korean for the API documentation."""
    title: ClassVar[str]
    """First line of the prompt; unique among tasks."""
    request: type[Request]
    """Request body model."""
    response: ClassVar[type[BaseModel]]
    """Response body model."""
    rules: ClassVar[tuple[str, ...]]
    """All rules that ``check`` can report."""
    examples: tuple[Request, ...]
    """Complete requests for documentation and golden prompts; with the edges they cover every
    output."""
    edges: tuple[Request, ...]
    """Edge cases beyond the examples; the prompt fingerprint covers them too."""
    example_answer: ClassVar[Values]
    """Good decisions for the first example."""
    bad: ClassVar[tuple[BadRequest, ...]] = ()
    """Task-specific invalid requests."""
    part: ClassVar[str] = "answer"
    """Display name for one of the ``parts``."""
    least_score: ClassVar[float] = 0.97
    """Minimum share of parts that an adapter must decide exactly as the coach does."""
    prerequisite: ClassVar[str] = ""
    """Task to run first when ``missing`` returns a request."""

    @abstractmethod
    def facts(self, request: Request) -> Facts:
        """Return what the model must know about a complete request."""

    @abstractmethod
    def output(self, facts: Facts) -> Output:
        """Return the output language for these facts, which may have been parsed from a prompt.

        Raises:
            KeyError, ValueError: the facts do not belong to this task.
        """

    @abstractmethod
    def render(self, request: Request, values: Values) -> str:
        """Return the answer as JSON, given a complete request and the model's decisions."""

    @abstractmethod
    def check(self, request: Request, answer: Mapping[str, Any]) -> list[str]:
        """Return the names of the rules that an answer violates. Shares no code with ``render``."""

    @abstractmethod
    def draw(self, rng: Random) -> Request:
        """Draw a realistic, complete request; no two are alike."""

    def describe(self, request: Request) -> str:
        """Describe an example in a few words for the API documentation."""
        return ""

    def missing(self, request: Request) -> BaseModel | None:
        """Return the request for the prerequisite, or None if ``request`` is complete."""
        return None

    def complete(self, request: Request, values: Values) -> Request:
        """Return ``request`` completed with the prerequisite's decisions."""
        return request

    def parts(self, values: Values) -> list[Values]:
        """Split the decisions into the parts that evaluation scores separately."""
        return [values]

    def forms(self) -> tuple[Form, ...]:
        """Return the answer formats other than JSON. Imports their dependencies lazily, because
        only the gateway has them installed."""
        return ()

    def question(self, request: Request) -> Question[Request]:
        """Build the model input for a complete request."""
        facts = self.facts(request)
        return Question(request, question(self.title, facts), self.output(facts))

    def answer(self, asked: Question[Request], written: str) -> Answer:
        """Build and check the answer to a question.

        Args:
            asked: as ``question`` built it.
            written: constrained model output after ``Question.prefilled``.

        Raises:
            OutputError: ``written`` is not in the output language.
        """
        values = asked.output.read(written)
        text = self.render(asked.request, values)
        return Answer(values, text, self.check(asked.request, from_json(text)))

    def outputs(self) -> list[Output]:
        """Return the task's distinct outputs."""
        found = [self.question(request).output for request in self.examples + self.edges]
        return list(dict.fromkeys(found))

    def prompt_fingerprint(self) -> str:
        """Hash the prompts of examples and edges; changes if any prompt byte changes."""
        return _digest(self.question(request).prompt for request in self.examples + self.edges)

    def output_fingerprint(self) -> str:
        """Hash the full languages of the outputs, derived text included."""
        return _digest(output.regex for output in self.outputs())


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]
