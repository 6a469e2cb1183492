"""What outputs are declared with, and the pieces a declaration comes apart into.

``pieces_of`` walks a pydantic model of models and fixed-length tuples whose leaves are ``Literal``
(a constant, or a decision among several) or annotated with ``Derived``, and gives the text's pieces
in order: fixed text, decisions, and what is computed from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

Scalar = str | int | float | bool | None
Json = Scalar | list[Any] | dict[str, Any]
Values = Mapping[str, Any]
"""Decided values by dotted path, e.g. ``{"init_weight_rate": 65}``; a tuple's items are counted
from 0: ``{"squat.pull.0": "풀업"}``."""


REMEMBERED = 1024
"""Decisions repeat: so many values of each function of them are kept."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(value: Json) -> str:
    """Compact JSON with Hangul left readable, as every output text has it."""
    return _ENCODER.encode(value)


@dataclass(frozen=True)
class OnlyIf:
    """Field annotation: an option stands only if ``predicate(option, *needed values)`` is true."""

    predicate: Callable[..., bool]
    needs: tuple[str, ...]

    def __init__(self, predicate: Callable[..., bool], *needs: str) -> None:
        object.__setattr__(self, "predicate", predicate)
        object.__setattr__(self, "needs", needs)


@dataclass(frozen=True)
class Derived:
    """Field annotation: the value is ``compute(*needed values)``, never generated."""

    compute: Callable[..., Json]
    needs: tuple[str, ...]

    def __init__(self, compute: Callable[..., Json], *needs: str) -> None:
        object.__setattr__(self, "compute", compute)
        object.__setattr__(self, "needs", needs)


@dataclass(frozen=True)
class Text:
    """A piece of the output that is always the same."""

    text: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Computed:
    """A piece of the output that arithmetic fixes once ``needs`` are decided."""

    path: str
    compute: Callable[..., Json]
    needs: tuple[str, ...]

    def render(self, values: Values) -> str:
        return self._render(*[values[name] for name in self.needs])

    @cached_property
    def _render(self) -> Callable[..., str]:
        return lru_cache(REMEMBERED, typed=True)(lambda *needed: encode(self.compute(*needed)))


@dataclass(frozen=True)
class Decision:
    """A piece of the output that the model chooses among ``options``: all texts, or none.

    The quotation marks around a text are forced, so they belong to the pieces beside it.
    """

    path: str
    options: tuple[Scalar, ...]
    predicate: Callable[..., bool] | None = None
    needs: tuple[str, ...] = ()

    def allowed(self, values: Values) -> tuple[Scalar, ...]:
        """The options that earlier decisions leave open; never empty."""
        return self._left(*[values[name] for name in self.needs])

    @cached_property
    def _left(self) -> Callable[..., tuple[Scalar, ...]]:
        predicate = self.predicate or (lambda *_: True)

        @lru_cache(REMEMBERED, typed=True)
        def left(*needed: Scalar) -> tuple[Scalar, ...]:
            found = tuple(option for option in self.options if predicate(option, *needed))
            assert found, f"{self.path}: no option left after {needed}"
            return found

        return left

    @staticmethod
    @lru_cache(REMEMBERED, typed=True)
    def encode(option: Scalar) -> str:
        """What the model writes for ``option``: JSON, without the quotation marks of a text."""
        return encode(option)[1:-1] if isinstance(option, str) else encode(option)


Piece = Text | Computed | Decision


def render(piece: Piece, values: Values) -> str:
    if isinstance(piece, Text):
        return piece.text
    if isinstance(piece, Computed):
        return piece.render(values)
    return piece.encode(values[piece.path])


def pieces_of(model: type[BaseModel]) -> tuple[Piece, ...]:
    """The pieces of an output that is declared by ``model``.

    Raises:
        TypeError: a leaf is neither a ``Literal`` nor ``Derived``, or an annotation needs a value
            that is not decided before it.
    """
    pieces = tuple(_merge(_pieces_of_model(model, "")))
    decided: set[str] = set()
    for piece in pieces:
        missing = set(piece.needs) - decided
        if missing:
            raise TypeError(
                f"{model.__name__}: {sorted(missing)} is not decided before it is needed"
            )
        if isinstance(piece, Decision):
            decided.add(piece.path)
    return pieces


def _pieces_of_model(model: type[BaseModel], path: str) -> Iterator[Piece]:
    opening = "{"
    for name, field in model.model_fields.items():
        yield Text(f"{opening}{encode(name)}:")
        yield from _pieces_of_leaf(field.annotation, field.metadata, f"{path}{name}", path)
        opening = ","
    yield Text("}")


def _pieces_of_tuple(kinds: tuple[Any, ...], path: str) -> Iterator[Piece]:
    opening = "["
    for place, kind in enumerate(kinds):
        yield Text(opening)
        bare, *notes = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        yield from _pieces_of_leaf(bare, notes, f"{path}{place}", path)
        opening = ","
    yield Text("]")


def _pieces_of_leaf(kind: Any, notes: Sequence[Any], path: str, parent: str) -> Iterator[Piece]:
    def within(needs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(parent + name for name in needs)

    for note in notes:
        if isinstance(note, Derived):
            yield Computed(path, note.compute, within(note.needs))
            return
    if get_origin(kind) is Literal:
        yield from _pieces_of_literal(path, get_args(kind), notes, within)
    elif get_origin(kind) is tuple and Ellipsis not in get_args(kind):
        yield from _pieces_of_tuple(get_args(kind), f"{path}.")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from _pieces_of_model(kind, f"{path}.")
    else:
        raise TypeError(f"{path}: {kind!r} is neither Literal, Derived, a model nor a fixed tuple")


def _pieces_of_literal(
    path: str,
    options: tuple[Any, ...],
    notes: Sequence[Any],
    within: Callable[[tuple[str, ...]], tuple[str, ...]],
) -> Iterator[Piece]:
    if len(options) == 1:
        yield Text(encode(options[0]))
        return
    texts = {isinstance(option, str) for option in options}
    if len(texts) > 1:
        raise TypeError(f"{path}: options must be all texts, or none")
    rule = next((note for note in notes if isinstance(note, OnlyIf)), None)
    decision = Decision(path, options)
    if rule:
        decision = Decision(path, options, rule.predicate, within(rule.needs))
    quote = '"' if texts == {True} else ""
    yield from (Text(quote), decision, Text(quote))


def _merge(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join neighbouring texts, so that a piece is as long as it can be."""
    text = ""
    for piece in pieces:
        if isinstance(piece, Text):
            text += piece.text
            continue
        if text:
            yield Text(text)
            text = ""
        yield piece
    if text:
        yield Text(text)
