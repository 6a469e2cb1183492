"""Regular expressions for output segments, built with the Outlines DSL."""

from collections.abc import Sequence
from itertools import pairwise

from serving.language.fields import Decision, Segment, Values


def needed_from(segments: Sequence[Segment], stop: int) -> list[frozenset[str]]:
    """Return, per segment, the decisions needed by it or a later segment before ``stop``."""
    needed = [frozenset[str]()]
    for segment in reversed(segments[:stop]):
        needed.append(needed[-1] | frozenset(segment.needs))
    return needed[::-1]


def regex_of(segments: Sequence[Segment], start: int, stop: int) -> str:
    """Return the regular expression of segments ``start`` to ``stop`` (exclusive).

    It is split wherever no later segment needs an earlier decision. Within a part, options with the
    same continuation share a group. Independent decisions therefore do not multiply.
    """
    needed = needed_from(segments, stop)
    decided: set[str] = set()
    cuts = []
    for index in range(start, stop):
        if not decided & needed[index]:
            cuts.append(index)
        segment = segments[index]
        if isinstance(segment, Decision):
            decided.add(segment.path)
    return "".join(_branches(segments[begin:end], {}) for begin, end in pairwise([*cuts, stop]))


def _branches(segments: Sequence[Segment], values: Values) -> str:
    """Return the expression for ``segments``, given the decided ``values``."""
    from outlines.types.dsl import Alternatives, String, to_regex  # slow import: about a second

    if not segments:
        return ""
    segment, *rest = segments
    if not isinstance(segment, Decision):
        text: str = to_regex(String(segment.render(values)))
        return text + _branches(rest, values)
    groups: dict[str, list[str]] = {}
    for option in segment.allowed(values):
        after = _branches(rest, {**values, segment.path: option.value})
        groups.setdefault(after, []).append(option.text)
    branches = [
        to_regex(Alternatives([String(text) for text in texts])) + after
        for after, texts in groups.items()
    ]
    return branches[0] if len(branches) == 1 else f"({'|'.join(branches)})"
