"""What a model may write: one definition, and everything that follows from it.

An output is declared once, as a pydantic model whose field order is the text's order. Each leaf is
one of three kinds:

- ``Literal`` with one value: a constant;
- ``Literal`` with several values: a *decision*, the only thing that is left to the language model
  (``OnlyIf`` removes options that earlier decisions rule out). Of a text, the model writes what
  stands between the quotation marks;
- any type annotated with ``Derived``: computed from earlier decisions.

From that declaration ``Output`` gives the whole text (training target), the parts that are fixed
before the first and after the last decision (``head``, ``tail``), the regular expression of what is
decided in between (built by Outlines, without free whitespace), a bound on its length, the text
that is forced after any prefix, and the values read back from a text.

This module knows JSON and regular expressions. It does not know tokens, models, HTTP or any task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Any

from pydantic import BaseModel

from serving.contract.pieces import (
    Computed,
    Decision,
    Json,
    Text,
    Values,
    pieces_of,
    render,
)


class OutputError(ValueError):
    """A text is not in the output's language: the message says where it leaves it."""


@dataclass(frozen=True)
class Position:
    """A place in the output: ``rest`` is still to come before piece ``index`` begins."""

    index: int
    values: dict[str, Any]
    rest: str


class Output:
    """The language of one model output; see the module's docstring.

    Args:
        model: the pydantic model that declares the output.

    Raises:
        TypeError: ``model`` declares no output; the message says where.
    """

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model
        self.pieces = pieces_of(model)
        decisions = [i for i, piece in enumerate(self.pieces) if isinstance(piece, Decision)]
        if not decisions:
            raise TypeError(f"{model.__name__} decides nothing: serve it without a model")
        self._first, self._stop = decisions[0], decisions[-1] + 1

    # -- texts ---------------------------------------------------------------------------------

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions in the order of the text."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Decision))

    @cached_property
    def head(self) -> str:
        """The text before the first decision; the same for every answer."""
        return self._span({}, 0, self._first)

    def decided(self, values: Values) -> str:
        """The text from the first to the last decision, both included."""
        self._check(values)
        return self._span(values, self._first, self._stop)

    def tail(self, values: Values) -> str:
        """The text after the last decision."""
        self._check(values)
        return self._span(values, self._stop, len(self.pieces))

    def text(self, values: Values) -> str:
        """The whole output text for these decisions: the training target.

        Raises:
            OutputError: a decision is missing or not among its options.
        """
        self._check(values)
        return self._span(values, 0, len(self.pieces))

    def decision_spans(self, values: Values) -> list[tuple[int, int]]:
        """Character ranges ``[start, end)`` of the decisions within ``text(values)``."""
        spans, at = [], 0
        for piece in self.pieces:
            length = len(render(piece, values))
            if isinstance(piece, Decision):
                spans.append((at, at + length))
            at += length
        return spans

    def _span(self, values: Values, start: int, stop: int) -> str:
        return "".join(render(piece, values) for piece in self.pieces[start:stop])

    def _check(self, values: Values) -> None:
        for decision in self.decisions:
            if decision.path not in values:
                raise OutputError(f"no value for {decision.path}")
            options = decision.allowed(values)
            if not any(_same(values[decision.path], option) for option in options):
                raise OutputError(
                    f"{decision.path}: {values[decision.path]!r} is not one of {list(options)}"
                )

    # -- reading -------------------------------------------------------------------------------

    def read(self, decided: str) -> dict[str, Any]:
        """The decisions in the text between ``head`` and ``tail``.

        Args:
            decided: what the engine generated under ``decided_regex``.

        Raises:
            OutputError: ``decided`` is not in the language, or not finished.
        """
        for position in self._positions(self.head + decided):
            if position.index == self._stop and position.rest == "":
                return position.values
        raise OutputError(f"not a complete decided part: {decided[:200]!r}")

    def parse(self, text: str) -> dict[str, Any]:
        """The decisions in a whole output text; ``parse(text(values)) == values``.

        Raises:
            OutputError: ``text`` is not byte for byte an output of this definition.
        """
        for position in self._positions(text):
            if position.index == len(self.pieces) and position.rest == "":
                return position.values
        raise OutputError(f"not an output of {self.model.__name__}: {text[:200]!r}")

    def forced(self, prefix: str) -> tuple[str, bool]:
        """The text that must follow ``prefix``, and whether the output then ends.

        Args:
            prefix: the output's text so far, from its very beginning.

        Returns:
            The longest text that every output beginning with ``prefix`` continues with, and True if
            there is exactly one such output, so that end-of-text follows.

        Raises:
            OutputError: no output begins with ``prefix``.
        """
        positions = list(self._positions(prefix))
        if not positions:
            raise OutputError(f"no {self.model.__name__} begins with {prefix[-200:]!r}")
        return _common([self._follow(position) for position in positions])

    def _positions(self, prefix: str) -> Iterator[Position]:
        """Every place in the output that ``prefix`` can lead to (several where one option's text
        begins another's)."""
        todo: list[tuple[int, dict[str, Any], str]] = [(0, {}, prefix)]
        while todo:
            index, values, left = todo.pop()
            if index == len(self.pieces) or (not left and index > 0):
                if not left:
                    yield Position(index, values, "")
                continue
            piece = self.pieces[index]
            if isinstance(piece, Decision):
                branches = [(o, piece.encode(o)) for o in piece.allowed(values)]
                steps = [({**values, piece.path: o}, text) for o, text in branches]
            else:
                steps = [(values, render(piece, values))]
            for after, text in steps:
                if left.startswith(text):
                    todo.append((index + 1, after, left[len(text) :]))
                elif text.startswith(left):
                    yield Position(index + 1, after, text[len(left) :])

    def _follow(self, position: Position) -> tuple[str, bool]:
        """The text forced from ``position`` on, and whether it reaches the end."""
        text, values = position.rest, position.values
        for index in range(position.index, len(self.pieces)):
            piece = self.pieces[index]
            if not isinstance(piece, Decision):
                text += render(piece, values)
                continue
            options = piece.allowed(values)
            if len(options) == 1:
                text += piece.encode(options[0])
                values = {**values, piece.path: options[0]}
                continue
            # A JSON value is followed by a comma, a bracket or a quotation mark, so no option's
            # text goes on as another's does: what they share ends here.
            return text + _common_prefix([piece.encode(option) for option in options]), False
        return text, True

    # -- constraint ----------------------------------------------------------------------------

    @cached_property
    def decided_regex(self) -> str:
        """The regular expression of ``decided``: what the engine may generate after ``head``."""
        return self._regex(self._first, self._stop)

    @cached_property
    def regex(self) -> str:
        """The regular expression of the whole output text, head and tail included."""
        return self._regex(0, len(self.pieces))

    def _regex(self, start: int, stop: int) -> str:
        """Outlines' expression for the pieces ``start`` to ``stop``.

        It is cut wherever no later piece needs an earlier decision, and within such a part options
        after which the same text may follow share one group: independent decisions do not multiply.
        """
        needed: list[set[str]] = [set() for _ in range(stop + 1)]
        for index in range(stop - 1, start - 1, -1):
            needed[index] = needed[index + 1] | set(self.pieces[index].needs)
        decided: set[str] = set()
        cuts = []
        for index in range(start, stop):
            if not needed[index] & decided:
                cuts.append(index)
            piece = self.pieces[index]
            if isinstance(piece, Decision):
                decided.add(piece.path)
        return "".join(self._branches(i, {}, end) for i, end in pairwise([*cuts, stop]))

    def _branches(self, index: int, values: dict[str, Any], stop: int) -> str:
        """The expression for the pieces ``index`` to ``stop`` after these decisions."""
        from outlines.types.dsl import Alternatives, String, to_regex

        if index == stop:
            return ""
        piece = self.pieces[index]
        if not isinstance(piece, Decision):
            text: str = to_regex(String(render(piece, values)))
            return text + self._branches(index + 1, values, stop)
        groups: dict[str, list[Json]] = {}
        for option in piece.allowed(values):
            after = self._branches(index + 1, {**values, piece.path: option}, stop)
            groups.setdefault(after, []).append(option)
        branches = [
            to_regex(Alternatives([String(piece.encode(option)) for option in options])) + after
            for after, options in groups.items()
        ]
        return branches[0] if len(branches) == 1 else f"({'|'.join(branches)})"

    def sample(self, chance: Random) -> dict[str, Any]:
        """Decisions drawn one after the other, each evenly from what is still allowed."""
        values: dict[str, Any] = {}
        for decision in self.decisions:
            values[decision.path] = chance.choice(decision.allowed(values))
        return values

    def enumerate(self) -> Iterator[dict[str, Any]]:
        """Every combination of decisions, in the order of the options."""
        return _combinations(self.decisions, {})

    @cached_property
    def max_decided_bytes(self) -> int:
        """UTF-8 bytes of the longest decided part.

        A token is at least one byte, so a generation of this many tokens (and one for end-of-text)
        always closes, whichever way the tokenizer splits the text.
        """
        total = 0
        for piece in self.pieces[self._first : self._stop]:
            if isinstance(piece, Decision):
                total += max(len(piece.encode(option).encode()) for option in piece.options)
            elif isinstance(piece, Text):
                total += len(piece.text.encode())
            else:
                cases = _combinations(self._behind(piece), {})
                total += max(len(piece.render(values).encode()) for values in cases)
        return total

    @property
    def max_new_tokens(self) -> int:
        """Tokens a generation after ``head`` may take: the longest decided part and end-of-text."""
        return self.max_decided_bytes + 1

    def _behind(self, piece: Computed) -> tuple[Decision, ...]:
        """The decisions that ``piece`` follows from, and those that limit these, in order."""
        needed = set(piece.needs)
        for decision in reversed(self.decisions):
            if decision.path in needed:
                needed |= set(decision.needs)
        return tuple(decision for decision in self.decisions if decision.path in needed)


def _combinations(
    decisions: Collection[Decision], values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if not decisions:
        yield values
        return
    first, *others = decisions
    for option in first.allowed(values):
        yield from _combinations(others, {**values, first.path: option})


def _same(value: Any, option: Json) -> bool:
    """Equality that keeps 1, 1.0 and True apart, as JSON text does."""
    return type(value) is type(option) and value == option


def _common(branches: list[tuple[str, bool]]) -> tuple[str, bool]:
    """The longest common beginning of texts; True only where all agree that the output ends."""
    texts = [text for text, _ in branches]
    if all(text == texts[0] for text in texts):
        return texts[0], all(ends for _, ends in branches)
    return _common_prefix(texts), False


def _common_prefix(texts: list[str]) -> str:
    first, last = min(texts), max(texts)  # all others lie between them
    length = 0
    while length < len(first) and first[length] == last[length]:
        length += 1
    return first[:length]
