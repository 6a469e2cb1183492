"""An output: one declaration, and everything the system needs of it.

``fields`` says how it is declared. From the declaration come the whole text (training target), the
text before the first decision (``head``), the regular expression of what is decided after it (built
by Outlines, without free whitespace), a bound on its length, and the values read back from a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from random import Random
from typing import Any

from pydantic import BaseModel

from serving.language.fields import (
    Computed,
    Decision,
    OutputError,
    Scalar,
    Text,
    Values,
    segments_of,
)
from serving.language.following import Following
from serving.language.regex import regex_of

REMEMBERED = 1024
"""Texts and values kept: the answers of a task with few decisions repeat."""


class Output:
    """The language of one model output.

    Args:
        model: the pydantic model that declares it.

    Raises:
        TypeError: ``model`` declares no output; the message says where.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self.segments = segments_of(model)
        found = [i for i, segment in enumerate(self.segments) if isinstance(segment, Decision)]
        if not found:
            raise TypeError(f"{model.__name__} decides nothing: serve it without a model")
        self._first, self._stop = found[0], found[-1] + 1
        self.decisions = tuple(s for s in self.segments if isinstance(s, Decision))
        """In the order of the text."""
        self.head = self._render({}, 0, self._first)
        """The text before the first decision; the same for every answer."""
        self.following = Following(self.segments, self._stop)
        self._text = lru_cache(REMEMBERED, typed=True)(self._checked_text)
        self._read = lru_cache(REMEMBERED)(self._values_of_decided)

    def text(self, values: Values) -> str:
        """The whole output text for these decisions: the training target.

        Raises:
            OutputError: a decision is missing or not among its options.
        """
        return self._text(*[_value(values, decision.path) for decision in self.decisions])

    def decided(self, values: Values) -> str:
        """The text from the first to the last decision, both included.

        Raises:
            OutputError: as for ``text``.
        """
        self._check(values)
        return self._render(values, self._first, self._stop)

    def decision_spans(self, values: Values) -> list[tuple[int, int]]:
        """Character ranges ``[start, end)`` of the decisions within ``text(values)``."""
        spans, at = [], 0
        for segment in self.segments:
            length = len(segment.render(values))
            if isinstance(segment, Decision):
                spans.append((at, at + length))
            at += length
        return spans

    def read(self, decided: str) -> dict[str, Any]:
        """The decisions in the text that follows ``head``, up to the last of them.

        Args:
            decided: what the engine generated under ``decided_regex``.

        Raises:
            OutputError: it is not in the language, or not finished.
        """
        return dict(self._read(decided))

    def parse(self, text: str) -> dict[str, Any]:
        """The decisions in a whole output text; ``parse(text(values)) == values``.

        Raises:
            OutputError: ``text`` is not byte for byte an output of this definition.
        """
        return self._values(text, len(self.segments), f"an output of {self.model.__name__}")

    def sample(self, rng: Random) -> dict[str, Any]:
        """Decisions drawn one after the other, each evenly from what is still allowed."""
        values: dict[str, Any] = {}
        for decision in self.decisions:
            values[decision.path] = rng.choice(decision.allowed(values)).value
        return values

    def enumerate(self) -> Iterator[dict[str, Any]]:
        """Every combination of decisions, in the order of the options."""
        return _combinations(self.decisions, {})

    @cached_property
    def decided_regex(self) -> str:
        """The regular expression of ``decided``: what the engine may generate after ``head``."""
        return regex_of(self.segments, self._first, self._stop)

    @cached_property
    def regex(self) -> str:
        """The regular expression of ``text``."""
        return regex_of(self.segments, 0, len(self.segments))

    @cached_property
    def max_new_tokens(self) -> int:
        """Tokens that a generation after ``head`` may take.

        A token is at least one byte, so one for each UTF-8 byte of the longest decided text, and
        one for end-of-text, always closes it, whichever way the tokenizer splits the text.
        """
        total = 1
        for segment in self.segments[self._first : self._stop]:
            if isinstance(segment, Decision):
                total += max(len(option.text.encode()) for option in segment.options)
            elif isinstance(segment, Text):
                total += len(segment.text.encode())
            else:
                cases = _combinations(self._behind(segment), {})
                total += max(len(segment.render(values).encode()) for values in cases)
        return total

    def _behind(self, segment: Computed) -> tuple[Decision, ...]:
        """The decisions that ``segment`` follows from, and those that limit these, in order."""
        needed = set(segment.needs)
        for decision in reversed(self.decisions):
            if decision.path in needed:
                needed |= set(decision.needs)
        return tuple(decision for decision in self.decisions if decision.path in needed)

    def _render(self, values: Values, start: int, stop: int) -> str:
        return "".join(segment.render(values) for segment in self.segments[start:stop])

    def _checked_text(self, *decided: Scalar) -> str:
        values = {d.path: value for d, value in zip(self.decisions, decided, strict=True)}
        self._check(values)
        return self._render(values, 0, len(self.segments))

    def _check(self, values: Values) -> None:
        for decision in self.decisions:
            value = _value(values, decision.path)
            options = [option.value for option in decision.allowed(values)]
            # As JSON text does, 1, 1.0 and True are kept apart.
            if not any(type(value) is type(option) and value == option for option in options):
                raise OutputError(f"{decision.path}: {value!r} is not one of {options}")

    def _values_of_decided(self, decided: str) -> dict[str, Any]:
        return self._values(self.head + decided, self._stop, "a complete decided text")

    def _values(self, text: str, end: int, what: str) -> dict[str, Any]:
        for position in self.following.positions(text):
            if position.at == end and position.rest == "":
                return dict(position.decisions)
        raise OutputError(f"not {what}: {text[:200]!r}")


def _value(values: Values, path: str) -> Any:
    if path not in values:
        raise OutputError(f"no value for {path}")
    return values[path]


def _combinations(
    decisions: Sequence[Decision], values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if not decisions:
        yield values
        return
    first, *others = decisions
    for option in first.allowed(values):
        yield from _combinations(others, {**values, first.path: option.value})
