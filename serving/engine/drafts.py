"""What follows in an answer, in tokens: the text that is forced, and what was answered before.

Pure Python over a tokenizer and the contract; vLLM's side is in ``drafter``. A draft is only a
proposal. The engine verifies every token, so a wrong one costs time and never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from serving.contract.output import Output, OutputError, State


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """The bytes each token stands for; special tokens stand for none and are left out.

    Args:
        tokenizer: a byte-level BPE, as GPT-NeoX's and polyglot-ko's are.
    """
    byte_of = {char: byte for byte, char in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
    return {
        number: bytes(byte_of[char] for char in token)
        for token, number in tokenizer.get_vocab().items()
        if token not in tokenizer.all_special_tokens
    }


class Node:
    """A place in an output between two tokens."""

    __slots__ = ("draft", "next", "pending", "state")

    def __init__(self, state: State | None, pending: bytes) -> None:
        self.state, self.pending = state, pending
        self.next: dict[int, Node] = {}
        self.draft: tuple[int, ...] | None = None
        """What is forced from here; None until it is asked for."""


class Follower:
    """Follows the tokens of one output's answers and knows what is forced next.

    All nodes where a step can end, if the answer is in the tokenizer's own tokens, are built with
    their drafts at once, so that nothing is worked out while the engine waits.

    Args:
        output: the language.
        tokenizer: the engine's.
        table: ``token_bytes(tokenizer)``.
        decided_only: answers end with the last decision.
    """

    def __init__(
        self,
        output: Output,
        tokenizer: PreTrainedTokenizerBase,
        table: Mapping[int, bytes],
        decided_only: bool,
    ) -> None:
        self._output, self._tokenizer, self._table = output, tokenizer, table
        self._decided_only = decided_only
        self._nodes: dict[tuple[State, bytes], Node] = {}
        self.nowhere = Node(None, b"")
        """Where text stands that is no answer; nothing is forced there."""
        self._build()

    def start(self, answer: str) -> Node:
        """Where an answer stands that begins with ``answer``."""
        try:
            return self._node(self._output.state(answer), b"")
        except OutputError:
            return self.nowhere

    def after(self, node: Node, tokens: Iterable[int]) -> Node:
        """Where ``node`` leads with ``tokens``."""
        for token in tokens:
            node = node.next.get(token) or self._step(node, token)
        return node

    def _step(self, node: Node, token: int) -> Node:
        raw = self._table.get(token)
        if node.state is None or raw is None:
            return self.nowhere
        raw = node.pending + raw
        text = raw.decode(errors="ignore")  # what is cut off in the middle of a character waits
        try:
            after = self._node(self._output.after(node.state, text), raw[len(text.encode()) :])
        except OutputError:
            return self.nowhere
        node.next[token] = after
        return after

    def _node(self, state: State, pending: bytes) -> Node:
        key = (state, pending)
        if key not in self._nodes:
            self._nodes[key] = Node(state, pending)
        return self._nodes[key]

    def draft(self, node: Node) -> tuple[int, ...]:
        """The tokens forced after ``node``; none in the middle of a character."""
        if node.draft is None:
            node.draft = ()
            if node.state is not None and not node.pending:
                node.draft = _common(self._ways(node.state))
        return node.draft

    def _ways(self, state: State) -> list[list[int]]:
        """The ways on from ``state`` in the tokenizer's own tokens. Their common beginning leaves
        off tokens that differ with what is decided next."""
        texts, ends = self._output.ways(state, self._decided_only)
        end = [self._tokenizer.eos_token_id] if ends else []
        return [[*self._tokenizer.encode(text, add_special_tokens=False), *end] for text in texts]

    def _build(self) -> None:
        todo = [self.start(self._output.head)]
        while todo:
            node = todo.pop()
            if node.state is None or node.pending or node.draft is not None:
                continue
            ways = self._ways(node.state)
            node.draft = _common(ways)
            todo += [self.after(node, way[: len(node.draft) + 1]) for way in ways]


def _common(ways: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The longest common beginning."""
    columns = zip(*ways, strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


class Trail:
    """How answers to like questions went on from here, token by token."""

    __slots__ = ("count", "next")

    def __init__(self) -> None:
        self.count = 0
        self.next: dict[int, Trail] = {}

    def after(self, tokens: Iterable[int]) -> Trail:
        """The trail that ``tokens`` lead to; they are remembered."""
        trail = self
        for token in tokens:
            trail = trail.next.setdefault(token, Trail())
            trail.count += 1
        return trail

    def guess(self, limit: int) -> list[int]:
        """Up to ``limit`` tokens: on the way that most answers went, as long as most went alike."""
        found: list[int] = []
        trail = self
        while trail.next and len(found) < limit:
            token, ahead = max(trail.next.items(), key=lambda item: item[1].count)
            if 2 * ahead.count <= trail.count and len(trail.next) > 1:
                break
            found.append(token)
            trail = ahead
        return found
