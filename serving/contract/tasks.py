"""The task registry: what this deployment can be asked, one entry a task.

A new task is a module like ``rate`` and an entry here. Its name is its route
(``/gen/routine/<name>``), its adapter and its label in metrics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from serving.contract import rate
from serving.contract.check import check_rate
from serving.contract.output import Output
from serving.contract.profile import EDGES, PUBLISHED, Profile


@dataclass(frozen=True)
class Task:
    """One thing a model was trained to answer."""

    name: str
    """Route segment, adapter name and metric label."""
    summary: str
    """One line in Korean for the API's page."""
    request: type[BaseModel]
    answer: type[BaseModel]
    prompt: Callable[[Any], str]
    """From a validated request to the prompt's text, up to the answer's first byte."""
    output: Callable[[Any], Output]
    """From a validated request to the language of what the model writes."""
    check: Callable[[Any, Mapping[str, Any]], list[str]]
    """From request and answer to the names of the rules the answer breaks."""
    examples: tuple[BaseModel, ...]
    """Requests for documentation and golden prompts."""
    edges: tuple[BaseModel, ...]
    """Further requests whose prompts the fingerprint covers: what the examples do not show."""
    worked: Mapping[str, Any]
    """Decisions that answer the first example well, for documentation."""

    def prepare(self) -> None:
        """Build the constraints now (Outlines takes about a second to import), not in a request."""
        for request in self.examples:
            _ = self.output(request).decided_regex

    def prompt_fingerprint(self) -> str:
        """A hash over the prompts of examples and edges: changes when a prompt's bytes change."""
        return _digest(self.prompt(request) for request in self.examples + self.edges)

    def output_fingerprint(self) -> str:
        """A hash over the output's whole language (derived text included)."""
        return _digest(self.output(request).regex for request in self.examples)


def _digest(texts: Any) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


def _rate_output(_: Profile) -> Output:
    return rate.OUTPUT


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="rate",
            summary="한 달 5/3/1 진행표: 네 가지 비율과 4주 계획",
            request=Profile,
            answer=rate.RateAnswer,
            prompt=rate.prompt,
            output=_rate_output,
            check=check_rate,
            examples=PUBLISHED,
            edges=EDGES,
            worked={
                "init_weight_rate": 55,
                "increase_rate_week": 10,
                "increase_rate_set": 5,
                "deloading_rate": 50,
            },
        ),
    )
}
