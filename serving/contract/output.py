"""What a model may write: one definition, and everything that follows from it.

An output is declared once, as a pydantic model whose field order is the text's order. Each leaf is
one of three kinds:

- ``Literal`` with one value: a constant;
- ``Literal`` with several values: a *decision*, the only thing that is left to the language model
  (``OnlyIf`` removes options that earlier decisions rule out). Of a text, the model writes what
  stands between the quotation marks;
- any type annotated with ``Derived``: computed from earlier decisions.

From that declaration ``Output`` gives the whole text (training target), the parts that are fixed
before the first decision (``head``), the regular expression of what is decided after it (built by
Outlines, without free whitespace), a bound on its length, the text that may follow any prefix, and
the values read back from a text.

This module knows JSON and regular expressions. It does not know tokens, models, HTTP or any task.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property, lru_cache
from random import Random
from typing import Any, NamedTuple

from pydantic import BaseModel

from serving.contract.constraint import needed_until, regex_of
from serving.contract.pieces import (
    REMEMBERED,
    Computed,
    Decision,
    Json,
    Scalar,
    Text,
    Values,
    pieces_of,
    render,
)


class OutputError(ValueError):
    """A text is not in the output's language: the message says where it leaves it."""


Made = tuple[tuple[str, Any], ...]
"""Decisions made so far: path and value, in the order of the text."""


class Position(NamedTuple):
    """A place in the output: ``rest`` is still to come before piece ``at`` begins."""

    at: int
    values: Made
    rest: str


State = frozenset[Position]
"""Where a text may stand: several places where one option's text begins another's. Two texts that
can only go on alike are in the same state, so an output has few of them."""


_START = Position(0, (), "")


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

    def text(self, values: Values) -> str:
        """The whole output text for these decisions: the training target.

        Raises:
            OutputError: a decision is missing or not among its options.
        """
        missing = [decision.path for decision in self.decisions if decision.path not in values]
        if missing:
            raise OutputError(f"no value for {missing[0]}")
        return self._text(*[values[decision.path] for decision in self.decisions])

    @cached_property
    def _text(self) -> Callable[..., str]:
        """Answers repeat: there are 135 progressions in all."""

        @lru_cache(REMEMBERED, typed=True)
        def text(*decided: Scalar) -> str:
            values = {d.path: value for d, value in zip(self.decisions, decided, strict=True)}
            self._check(values)
            return self._span(values, 0, len(self.pieces))

        return text

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
        """The decisions in the text that follows ``head``, up to the last of them.

        Args:
            decided: what the engine generated under ``decided_regex``.

        Raises:
            OutputError: ``decided`` is not in the language, or not finished.
        """
        return dict(self._read(decided))

    @cached_property
    def _read(self) -> Callable[[str], dict[str, Any]]:
        what = "a complete decided part"
        return lru_cache(REMEMBERED)(
            lambda decided: self._values(self.head + decided, self._stop, what)
        )

    def parse(self, text: str) -> dict[str, Any]:
        """The decisions in a whole output text; ``parse(text(values)) == values``.

        Raises:
            OutputError: ``text`` is not byte for byte an output of this definition.
        """
        return self._values(text, len(self.pieces), f"an output of {self.model.__name__}")

    def _values(self, text: str, end: int, what: str) -> dict[str, Any]:
        for position in self._positions(text, [_START]):
            if position.at == end and position.rest == "":
                return dict(position.values)
        raise OutputError(f"not {what}: {text[:200]!r}")

    # -- following ---------------------------------------------------------------------------

    def state(self, prefix: str) -> State:
        """Where a text that begins with ``prefix`` stands.

        Raises:
            OutputError: no output begins with ``prefix``.
        """
        return self.after(frozenset([_START]), prefix)

    def after(self, state: State, text: str) -> State:
        """Where ``state`` leads when ``text`` is added.

        Raises:
            OutputError: no output goes on so.
        """
        found = set()
        for place in self._positions(text, state):
            needed = self._needed[place.at]
            found.add(place._replace(values=tuple(v for v in place.values if v[0] in needed)))
        if not found:
            raise OutputError(f"no {self.model.__name__} goes on with {text[-200:]!r}")
        return frozenset(found)

    def ways(self, state: State) -> tuple[list[str], bool]:
        """The texts that may follow, each to the end of what is forced after the next decision.
        The text ends with the last decision, unless it is beyond it already.

        Args:
            state: where the text stands.

        Returns:
            The texts (one if nothing is left to decide), and whether the text ends after it.
        """
        found = []
        for place in state:
            stop = self._stop if place.at <= self._stop else len(self.pieces)
            text, index, values = self._forced(place.rest, place.at, dict(place.values), stop)
            if index >= stop:
                found.append((text, True))
                continue
            piece = self.pieces[index]
            assert isinstance(piece, Decision)
            for option in piece.allowed(values):
                chosen = {**values, piece.path: option}
                way, _, _ = self._forced(text + piece.encode(option), index + 1, chosen, stop)
                found.append((way, False))
        return [text for text, _ in found], len(found) == 1 and found[0][1]

    def _forced(
        self, text: str, index: int, values: dict[str, Any], stop: int
    ) -> tuple[str, int, dict[str, Any]]:
        """``text`` and what follows from piece ``index`` up to an open decision or ``stop``."""
        while index < stop:
            piece = self.pieces[index]
            if isinstance(piece, Decision):
                options = piece.allowed(values)
                if len(options) > 1:
                    break
                values = {**values, piece.path: options[0]}
            text += render(piece, values)
            index += 1
        return text, index, values

    def _positions(self, text: str, starts: Iterable[Position]) -> Iterator[Position]:
        """Every place that ``text`` leads to from ``starts``."""
        todo: list[Position] = []
        for start in starts:
            if start.rest.startswith(text):
                yield start._replace(rest=start.rest[len(text) :])
            elif text.startswith(start.rest):
                todo.append(start._replace(rest=text[len(start.rest) :]))
        while todo:
            index, values, left = todo.pop()
            if index == len(self.pieces):
                continue
            piece = self.pieces[index]
            decided = dict(values) if piece.needs else {}
            made: list[tuple[str, Made]]
            if isinstance(piece, Decision):
                made = [(piece.encode(o), ((piece.path, o),)) for o in piece.allowed(decided)]
            else:
                made = [(render(piece, decided), ())]
            for way, new in made:
                if way.startswith(left):
                    yield Position(index + 1, values + new, way[len(left) :])
                elif left.startswith(way):
                    todo.append(Position(index + 1, values + new, left[len(way) :]))

    @cached_property
    def _needed(self) -> list[frozenset[str]]:
        return needed_until(self.pieces, len(self.pieces))

    # -- constraint ----------------------------------------------------------------------------

    @cached_property
    def decided_regex(self) -> str:
        """The regular expression of ``decided``: what the engine may generate after ``head``."""
        return regex_of(self.pieces, self._first, self._stop)

    @cached_property
    def regex(self) -> str:
        """The regular expression of the whole output text, from its first byte to its last."""
        return regex_of(self.pieces, 0, len(self.pieces))

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
        return self._max_bytes(self._first, self._stop)

    def _max_bytes(self, start: int, stop: int) -> int:
        total = 0
        for piece in self.pieces[start:stop]:
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
