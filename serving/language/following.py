"""Track the position in a partial output, and list its possible continuations."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from serving.language.fields import Decision, OutputError, Segment
from serving.language.regex import needed_from

Decisions = tuple[tuple[str, Any], ...]
"""Decisions made so far: path and value, in text order."""


class Position(NamedTuple):
    """A position in the output: ``rest`` is still expected before segment ``at`` begins."""

    at: int
    decisions: Decisions
    rest: str


State = frozenset[Position]
"""Possible positions after a text; several if one option is a prefix of another. Texts with the
same continuations share a state, so an output has few states."""
BEGINNING: State = frozenset([Position(0, (), "")])


class Following:
    """State machine over the texts of one output.

    Args:
        segments: the output's segments.
        stop: index after the last decision.
    """

    def __init__(self, segments: Sequence[Segment], stop: int) -> None:
        self._segments, self._stop = segments, stop
        self._needed = needed_from(segments, len(segments))

    def after(self, text: str, state: State = BEGINNING) -> State:
        """Return the state after appending ``text``.

        Raises:
            OutputError: no output continues with ``text``.
        """
        found = set()
        for position in self.positions(text, state):
            needed = self._needed[position.at]
            decisions = tuple(made for made in position.decisions if made[0] in needed)
            found.add(position._replace(decisions=decisions))
        if not found:
            raise OutputError(f"no output continues with {text[-200:]!r}")
        return frozenset(found)

    def continuations(self, state: State) -> tuple[list[str], bool]:
        """Return the possible next texts, each including the forced text after its decision.
        The output ends at the last decision, unless ``state`` is already past it.

        Returns:
            The texts (one if nothing is left to decide), and whether the output ends after it.
        """
        found = []
        for position in state:
            stop = self._stop if position.at <= self._stop else len(self._segments)
            values = dict(position.decisions)
            text, index, values = self._forced(position.rest, position.at, values, stop)
            if index >= stop:
                found.append(text)
                continue
            decision = self._segments[index]
            assert isinstance(decision, Decision)
            for option in decision.allowed(values):
                decided = {**values, decision.path: option.value}
                longer, _, _ = self._forced(text + option.text, index + 1, decided, stop)
                found.append(longer)
        return found, len(found) == 1

    def _forced(
        self, text: str, index: int, values: dict[str, Any], stop: int
    ) -> tuple[str, int, dict[str, Any]]:
        """Extend ``text`` from segment ``index`` up to an open decision or ``stop``."""
        while index < stop:
            segment = self._segments[index]
            if isinstance(segment, Decision):
                options = segment.allowed(values)
                if len(options) > 1:
                    break
                values = {**values, segment.path: options[0].value}
            text += segment.render(values)
            index += 1
        return text, index, values

    def positions(self, text: str, starts: Iterable[Position] = BEGINNING) -> Iterator[Position]:
        """Yield every position reachable from ``starts`` by consuming ``text``."""
        todo: list[Position] = []
        for start in starts:
            if start.rest.startswith(text):
                yield start._replace(rest=start.rest[len(text) :])
            elif text.startswith(start.rest):
                todo.append(start._replace(rest=text[len(start.rest) :]))
        while todo:
            index, decisions, left = todo.pop()
            if index == len(self._segments):
                continue
            segment = self._segments[index]
            values = dict(decisions) if segment.needs else {}
            made: list[tuple[str, Decisions]]
            if isinstance(segment, Decision):
                made = [(text, ((segment.path, value),)) for value, text in segment.allowed(values)]
            else:
                made = [(segment.render(values), ())]
            for written, new in made:
                if written.startswith(left):
                    yield Position(index + 1, decisions + new, written[len(left) :])
                elif left.startswith(written):
                    todo.append(Position(index + 1, decisions + new, left[len(written) :]))
