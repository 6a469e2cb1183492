"""Output declarations, and the segments they are compiled into.

An output is a pydantic model of nested models and fixed-length tuples. A leaf is one of:

- a ``Literal`` with one value: a constant;
- a ``Literal`` with several values: a *decision*, the only part that the model generates.
  ``OnlyIf`` removes options that earlier decisions rule out;
- any type annotated with ``Derived``: computed from earlier decisions, never generated.

``segments_of`` returns the segments in text order: fixed text, decisions and computed values.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

Scalar = str | int | float | bool | None
Json = Scalar | list[Any] | dict[str, Any]
Values = Mapping[str, Any]
"""Decided values by dotted path, e.g. ``{"init_weight_rate": 65}``. Tuple items are indexed from 0:
``{"squat.pull.0": "풀업"}``."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class OutputError(ValueError):
    """A text or value is not in the output language; the message gives the mismatch."""


def encode(value: Json) -> str:
    """Encode as compact JSON without escaping Hangul, as in every output text."""
    return _ENCODER.encode(value)


class OnlyIf:
    """Field annotation: allow an option only if ``predicate(option, *needed values)`` is true."""

    def __init__(self, predicate: Callable[..., bool], *needs: str) -> None:
        self.predicate, self.needs = predicate, needs


class Derived:
    """Field annotation: the value is ``compute(*needed values)``."""

    def __init__(self, compute: Callable[..., Json], *needs: str) -> None:
        self.compute, self.needs = compute, needs


@dataclass(frozen=True)
class Text:
    """A fixed segment."""

    text: str
    needs: tuple[str, ...] = ()

    def render(self, values: Values) -> str:
        """Return the segment's text."""
        return self.text


@dataclass(frozen=True)
class Computed:
    """A segment computed from the decisions in ``needs``."""

    path: str
    compute: Callable[..., Json]
    needs: tuple[str, ...]

    def render(self, values: Values) -> str:
        """Return the segment's text."""
        return encode(self.compute(*[values[name] for name in self.needs]))


class Option(NamedTuple):
    """One of a decision's options."""

    value: Scalar
    text: str
    """The generated text: JSON, without quotation marks if it is a string."""


@dataclass(frozen=True)
class Decision:
    """A segment that the model chooses from ``options``: all strings, or no strings.

    The quotation marks around a string are fixed text, so they belong to the adjacent segments.
    """

    path: str
    options: tuple[Option, ...]
    predicate: Callable[..., bool] | None = None
    needs: tuple[str, ...] = ()

    def allowed(self, values: Values) -> tuple[Option, ...]:
        """Return the options that earlier decisions allow; never empty."""
        if self.predicate is None:
            return self.options
        needed = [values[name] for name in self.needs]
        found = tuple(option for option in self.options if self.predicate(option.value, *needed))
        assert found, f"{self.path}: no option left after {needed}"
        return found

    def render(self, values: Values) -> str:
        """Return the segment's text."""
        return _option(values[self.path]).text


Segment = Text | Computed | Decision


def _option(value: Any) -> Option:
    return Option(value, encode(value)[1:-1] if isinstance(value, str) else encode(value))


def segments_of(model: type[BaseModel]) -> tuple[Segment, ...]:
    """Compile ``model`` into segments.

    Raises:
        TypeError: a leaf is neither a ``Literal`` nor ``Derived``, or an annotation needs a value
            that is not decided earlier.
    """
    segments = tuple(_merged(_of_model(model, "")))
    decided: set[str] = set()
    for segment in segments:
        missing = set(segment.needs) - decided
        if missing:
            raise TypeError(
                f"{model.__name__}: {sorted(missing)} is not decided before it is needed"
            )
        if isinstance(segment, Decision):
            decided.add(segment.path)
    return segments


def _of_model(model: type[BaseModel], path: str) -> Iterator[Segment]:
    opening = "{"
    for name, field in model.model_fields.items():
        yield Text(f"{opening}{encode(name)}:")
        yield from _of_leaf(field.annotation, field.metadata, f"{path}{name}", path)
        opening = ","
    yield Text("}")


def _of_tuple(kinds: tuple[Any, ...], path: str) -> Iterator[Segment]:
    opening = "["
    for index, kind in enumerate(kinds):
        yield Text(opening)
        bare, *notes = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        yield from _of_leaf(bare, notes, f"{path}{index}", path)
        opening = ","
    yield Text("]")


def _of_leaf(kind: Any, notes: Sequence[Any], path: str, parent: str) -> Iterator[Segment]:
    for note in notes:
        if isinstance(note, Derived):
            yield Computed(path, note.compute, _within(parent, note.needs))
            return
    if get_origin(kind) is Literal:
        yield from _of_literal(get_args(kind), notes, path, parent)
    elif get_origin(kind) is tuple and Ellipsis not in get_args(kind):
        yield from _of_tuple(get_args(kind), f"{path}.")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from _of_model(kind, f"{path}.")
    else:
        raise TypeError(f"{path}: {kind!r} is neither Literal, Derived, a model nor a fixed tuple")


def _of_literal(
    values: tuple[Any, ...], notes: Sequence[Any], path: str, parent: str
) -> Iterator[Segment]:
    if len(values) == 1:
        yield Text(encode(values[0]))
        return
    are_strings = {isinstance(value, str) for value in values}
    if len(are_strings) > 1:
        raise TypeError(f"{path}: options must be all strings, or none")
    decision = Decision(path, tuple(map(_option, values)))
    for note in notes:
        if isinstance(note, OnlyIf):
            decision = Decision(path, decision.options, note.predicate, _within(parent, note.needs))
    quote = '"' if are_strings == {True} else ""
    yield from (Text(quote), decision, Text(quote))


def _within(parent: str, needs: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(parent + name for name in needs)


def _merged(segments: Iterator[Segment]) -> Iterator[Segment]:
    """Merge adjacent text segments."""
    text = ""
    for segment in segments:
        if isinstance(segment, Text):
            text += segment.text
            continue
        if text:
            yield Text(text)
            text = ""
        yield segment
    if text:
        yield Text(text)
