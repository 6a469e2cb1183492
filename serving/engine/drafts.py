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
        self.draft: tuple[int, ...] = ()


class Follower:
    """Follows the tokens of one output's answers and knows what is forced next.

    All nodes that an answer in the tokenizer's own tokens passes are built at once, so that nothing
    is worked out while the engine waits.

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
            node = self._nodes[key] = Node(state, pending)
            if not pending:
                node.draft = _common(self._ways(state))
        return self._nodes[key]

    def _ways(self, state: State) -> list[list[int]]:
        """The ways on from ``state`` in the tokenizer's own tokens. Their common beginning leaves
        off tokens that differ with what is decided next."""
        texts, ends = self._output.ways(state, self._decided_only)
        end = [self._tokenizer.eos_token_id] if ends else []
        return [[*self._tokenizer.encode(text, add_special_tokens=False), *end] for text in texts]

    def _build(self) -> None:
        todo, seen = [self.start(self._output.head)], set[Node]()
        while todo:
            node = todo.pop()
            if node.state is None or node in seen:
                continue
            seen.add(node)
            for way in self._ways(node.state):
                todo.append(self.after(node, way[: len(node.draft) + 1]))


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
