"""The regular expression of an output's pieces, built with Outlines' terms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from serving.contract.pieces import Decision, Piece, Scalar, Values, render


def needed_until(pieces: Sequence[Piece], stop: int) -> list[frozenset[str]]:
    """By piece, the decisions that it or a later one before ``stop`` needs."""
    needed = [frozenset[str]()]
    for piece in reversed(pieces[:stop]):
        needed.append(needed[-1] | frozenset(piece.needs))
    return needed[::-1]


def regex_of(pieces: Sequence[Piece], start: int, stop: int) -> str:
    """Outlines' expression for the pieces ``start`` to ``stop``.

    It is cut wherever no later piece needs an earlier decision, and within such a part options
    after which the same text may follow share one group: independent decisions do not multiply.
    """
    needed = needed_until(pieces, stop)
    decided: set[str] = set()
    cuts = []
    for index in range(start, stop):
        if not decided & needed[index]:
            cuts.append(index)
        piece = pieces[index]
        if isinstance(piece, Decision):
            decided.add(piece.path)
    return "".join(_branches(pieces[begin:end], {}) for begin, end in pairwise([*cuts, stop]))


def _branches(pieces: Sequence[Piece], values: Values) -> str:
    """The expression for ``pieces`` after these decisions."""
    from outlines.types.dsl import Alternatives, String, to_regex  # takes about a second

    if not pieces:
        return ""
    piece, *rest = pieces
    if not isinstance(piece, Decision):
        text: str = to_regex(String(render(piece, values)))
        return text + _branches(rest, values)
    groups: dict[str, list[Scalar]] = {}
    for option in piece.allowed(values):
        after = _branches(rest, {**values, piece.path: option})
        groups.setdefault(after, []).append(option)
    branches = [
        to_regex(Alternatives([String(piece.encode(option)) for option in options])) + after
        for after, options in groups.items()
    ]
    return branches[0] if len(branches) == 1 else f"({'|'.join(branches)})"
