"""What an adapter's answers are worth: shares, by decision, calibration, confusions.

Computed from answers; does not know where they come from.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from serving.language.fields import Values

BINS = 10
"""Of confidence, equally wide."""
MOST_CONFUSIONS = 20
MOST_MATRICES = 3


class Answered(NamedTuple):
    """A held-out request's answer beside the coach's."""

    wanted: Sequence[Values]
    """The coach's decisions, a mapping for each part of the answer."""
    given: Sequence[Values] | None
    """The model's; None if its text is not in the output's language."""
    is_valid: bool
    """Whether it also passes the check."""
    confidence: float
    """Probability that the model gives to its decisions, constraint aside."""
    is_known: bool
    """Whether the coach's completion occurs in the training data."""

    @property
    def right(self) -> list[bool]:
        """Of each part, whether every decision is the coach's."""
        if self.given is None:
            return [False] * len(self.wanted)
        return [one == other for one, other in zip(self.given, self.wanted, strict=True)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Share(_Section):
    """Shares of answers, from 0 to 1."""

    requests: int
    valid: float
    """In the output's language and past the check."""
    parts: float
    """Parts in which every decision is the coach's."""
    exact: float
    """Answers in which every part is."""

    @classmethod
    def of(cls, answers: Sequence[Answered]) -> Self:
        """Return the shares of ``answers``, at least one."""
        parts = [right for answer in answers for right in answer.right]
        return cls(
            requests=len(answers),
            valid=sum(answer.is_valid for answer in answers) / len(answers),
            parts=sum(parts) / len(parts),
            exact=sum(all(answer.right) for answer in answers) / len(answers),
        )


class Bin(_Section):
    """Answers of about the same confidence."""

    answers: int
    confidence: float
    """Their mean."""
    exact: float
    """Share that is the coach's in every decision."""


class Confusion(_Section):
    """A decision that is not the coach's."""

    decision: str
    wanted: str
    given: str
    times: int


class Evaluation(_Section):
    """Results of ``finetune.evaluate`` for one adapter."""

    part: str
    """What ``Share.parts`` counts."""
    setting: dict[str, str]
    """Machine and versions."""
    shares: dict[str, Share]
    """By kind of request and way of asking."""
    decisions: dict[str, float]
    """Share of usual requests in which it is the coach's, by decision, the lowest first."""
    confusions: list[Confusion]
    """The most frequent, of usual and odd requests."""
    matrices: dict[str, list[tuple[int, int, int]]]
    """The coach's number, the adapter's and how often, of usual and odd requests, by decision: of
    those that are numbers, the least often right."""
    calibration: list[Bin]
    """Of usual and odd requests, by confidence."""
    calibration_error: float
    """Mean distance of confidence and share of exact answers, weighted by answers."""
    parity: tuple[int, int]
    """Requests whose greedy tokens are PEFT's, and requests compared."""


def _taken(answers: Sequence[Answered]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each decision's name, the coach's and the model's, of answers in the language."""
    for answer in answers:
        for wanted, given in zip(answer.wanted, answer.given or (), strict=False):
            yield from ((name, value, given[name]) for name, value in wanted.items())


def decisions(answers: Sequence[Answered]) -> dict[str, float]:
    """Return each decision's share of right ones, the lowest first."""
    asked = Counter(name for answer in answers for wanted in answer.wanted for name in wanted)
    right = Counter(name for name, wanted, given in _taken(answers) if given == wanted)
    shares = {name: right[name] / times for name, times in asked.items()}
    return dict(sorted(shares.items(), key=lambda item: item[1]))


def confusions(answers: Sequence[Answered]) -> list[Confusion]:
    """Return the decisions that were most often taken otherwise than by the coach."""
    times = Counter(
        (name, str(wanted), str(given))
        for name, wanted, given in _taken(answers)
        if given != wanted
    )
    return [
        Confusion(decision=name, wanted=wanted, given=given, times=count)
        for (name, wanted, given), count in times.most_common(MOST_CONFUSIONS)
    ]


def matrices(answers: Sequence[Answered]) -> dict[str, list[tuple[int, int, int]]]:
    """Return how often each number was given for each, of the decisions least often right."""
    times: dict[str, Counter[tuple[int, int]]] = {}
    for name, wanted, given in _taken(answers):
        if isinstance(wanted, int):
            times.setdefault(name, Counter())[wanted, given] += 1
    shown = [name for name in decisions(answers) if name in times][:MOST_MATRICES]
    return {name: sorted((*pair, n) for pair, n in times[name].items()) for name in shown}


def calibration(answers: Sequence[Answered]) -> tuple[list[Bin], float]:
    """Return the answers by confidence, and the expected calibration error (Guo et al. 2017)."""
    groups: dict[int, list[Answered]] = {}
    for answer in answers:
        groups.setdefault(min(int(answer.confidence * BINS), BINS - 1), []).append(answer)
    bins = [
        Bin(
            answers=len(group),
            confidence=math.fsum(answer.confidence for answer in group) / len(group),
            exact=sum(all(answer.right) for answer in group) / len(group),
        )
        for _, group in sorted(groups.items())
    ]
    error = sum(one.answers * abs(one.confidence - one.exact) for one in bins) / len(answers)
    return bins, error
