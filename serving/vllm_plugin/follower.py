"""Determines the forced tokens of an answer.

Depends only on a tokenizer and an output; ``drafter`` is the vLLM adapter.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from serving.language.fields import OutputError
from serving.language.following import State
from serving.language.output import Output


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """Return the bytes of each token, without special tokens.

    Args:
        tokenizer: a byte-level BPE tokenizer, such as GPT-NeoX's or polyglot-ko's.
    """
    byte_of = {char: byte for byte, char in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
    return {
        number: bytes(byte_of[char] for char in token)
        for token, number in tokenizer.get_vocab().items()
        if token not in tokenizer.all_special_tokens
    }


class Node:
    """A position between two tokens of an output."""

    __slots__ = ("draft", "end", "next", "pending", "state")

    def __init__(self, state: State | None, pending: bytes) -> None:
        self.state, self.pending = state, pending
        self.next: dict[int, Node] = {}
        self.draft: tuple[int, ...] | None = None
        """Tokens forced from this node; None until computed."""
        self.end: Node | None = None
        """Node after ``draft``; None until computed."""


class Follower:
    """Follows the tokens of one output's answers and returns the forced next tokens.

    The constructor builds every node, with its draft, at which a step can end in the tokenizer's
    canonical tokenization. The engine then does not wait for this work.

    Args:
        output: language of the answers.
        tokenizer: the engine's tokenizer.
        table: result of ``token_bytes(tokenizer)``.
    """

    def __init__(
        self,
        output: Output,
        tokenizer: PreTrainedTokenizerBase,
        table: Mapping[int, bytes],
    ) -> None:
        self._output, self._tokenizer, self._table = output, tokenizer, table
        self._nodes: dict[tuple[State, bytes], Node] = {}
        self.nowhere = Node(None, b"")
        """Node of text that is not a valid answer; it forces no tokens."""
        self._head = self._node(output.following.after(output.head), b"")
        self._build()

    def start(self, answer: str) -> Node:
        """Return the node at the end of the partial answer ``answer``."""
        if answer == self._output.head:
            return self._head
        try:
            return self._node(self._output.following.after(answer), b"")
        except OutputError:
            return self.nowhere

    def after(self, node: Node, tokens: Iterable[int]) -> Node:
        """Return the node reached from ``node`` by ``tokens``."""
        for token in tokens:
            node = node.next.get(token) or self._step(node, token)
        return node

    def _step(self, node: Node, token: int) -> Node:
        raw = self._table.get(token)
        if node.state is None or raw is None:
            return self.nowhere
        raw = node.pending + raw
        text = raw.decode(errors="ignore")  # incomplete characters stay pending
        try:
            state = self._output.following.after(text, node.state)
        except OutputError:
            return self.nowhere
        after = self._node(state, raw[len(text.encode()) :])
        node.next[token] = after
        return after

    def _node(self, state: State, pending: bytes) -> Node:
        key = (state, pending)
        if key not in self._nodes:
            self._nodes[key] = Node(state, pending)
        return self._nodes[key]

    def draft(self, node: Node) -> tuple[int, ...]:
        """Return the tokens forced after ``node``; empty within a character."""
        if node.draft is None:
            node.draft = ()
            if node.state is not None and not node.pending:
                node.draft = _common(self._continuations(node.state))
        return node.draft

    def end(self, node: Node) -> Node:
        """Return the node reached from ``node`` by ``draft(node)``."""
        if node.end is None:
            node.end = self.after(node, self.draft(node))
        return node.end

    def along(self, node: Node, tokens: tuple[int, ...]) -> Node:
        """Return ``after(node, tokens)``, for no more tokens than are forced after ``node``."""
        after, forced = self.after(node, tokens), self.draft(node)
        if after.draft is None and tokens == forced[: len(tokens)]:
            after.draft, after.end = forced[len(tokens) :], self.end(node)
        return after

    def _continuations(self, state: State) -> list[list[int]]:
        """Return the continuations of ``state`` in the tokenizer's canonical tokenization. Their
        common prefix excludes tokens that depend on the next choice."""
        texts, ends = self._output.following.continuations(state)
        end = [self._tokenizer.eos_token_id] if ends else []
        return [[*self._tokenizer.encode(text, add_special_tokens=False), *end] for text in texts]

    def _build(self) -> None:
        todo, built = [self._head], set()
        while todo:
            node = todo.pop()
            if node.state is None or node.pending or node in built:
                continue
            built.add(node)
            continuations = self._continuations(node.state)
            node.draft = _common(continuations)
            end = self.end(node)
            if end.draft is None:
                end.draft = ()  # the model chooses next, or the answer is complete
            todo += [self.after(node, tokens[: len(node.draft) + 1]) for tokens in continuations]


def _common(continuations: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the longest common prefix."""
    columns = zip(*continuations, strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))
