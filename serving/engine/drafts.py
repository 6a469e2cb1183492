"""What follows in an answer, in tokens: the text that is forced, and what was answered before.

Pure Python over a tokenizer and the contract; vLLM's side is in ``drafter``. A draft is only a
proposal. The engine verifies every token, so a wrong one costs time and never correctness.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from serving.contract.output import Output, OutputError, State

TOKEN_BITS = 20
ONE, ALL = (1 << TOKEN_BITS) - 1, (1 << 3 * TOKEN_BITS) - 1
"""The last chosen token, and the last three."""
COUNT_BITS = 2
MOST = (1 << COUNT_BITS) - 1
"""Votes are counted up to this: what has changed is learned anew within a few requests."""
MOST_VAGUE = 3
"""A guess goes no further than so many choices for which no like question is remembered: beyond,
too many tokens are verified in vain."""


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

    __slots__ = ("draft", "end", "next", "pending", "state")

    def __init__(self, state: State | None, pending: bytes) -> None:
        self.state, self.pending = state, pending
        self.next: dict[int, Node] = {}
        self.draft: tuple[int, ...] | None = None
        """What is forced from here; None until it is asked for."""
        self.end: Node | None = None
        """Where that leads; None until it is asked for."""


class Follower:
    """Follows the tokens of one output's answers and knows what is forced next.

    All nodes where a step can end, if the answer is in the tokenizer's own tokens, are built with
    their drafts at once, so that nothing is worked out while the engine waits.

    Args:
        output: the language.
        tokenizer: the engine's.
        table: ``token_bytes(tokenizer)``.
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
        """Where text stands that is no answer; nothing is forced there."""
        self._head = self._node(output.state(output.head), b"")
        self._build()

    def start(self, answer: str) -> Node:
        """Where an answer stands that begins with ``answer``."""
        if answer == self._output.head:
            return self._head
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

    def end(self, node: Node) -> Node:
        """Where ``draft(node)`` leads."""
        if node.end is None:
            node.end = self.after(node, self.draft(node))
        return node.end

    def along(self, node: Node, tokens: tuple[int, ...]) -> Node:
        """``after(node, tokens)``, where these are as many as are forced, or fewer."""
        after, forced = self.after(node, tokens), self.draft(node)
        if after.draft is None and tokens == forced[: len(tokens)]:
            after.draft, after.end = forced[len(tokens) :], self.end(node)
        return after

    def _ways(self, state: State) -> list[list[int]]:
        """The ways on from ``state`` in the tokenizer's own tokens. Their common beginning leaves
        off tokens that differ with what is decided next."""
        texts, ends = self._output.ways(state)
        end = [self._tokenizer.eos_token_id] if ends else []
        return [[*self._tokenizer.encode(text, add_special_tokens=False), *end] for text in texts]

    def _build(self) -> None:
        todo, built = [self._head], set()
        while todo:
            node = todo.pop()
            if node.state is None or node.pending or node in built:
                continue
            built.add(node)
            ways = self._ways(node.state)
            node.draft = _common(ways)
            end = self.end(node)
            if end.draft is None:
                end.draft = ()  # here something is chosen, or the answer is over
            todo += [self.after(node, way[: len(node.draft) + 1]) for way in ways]


def _common(ways: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The longest common beginning."""
    columns = zip(*ways, strict=False)
    return tuple(column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns))


class Place(NamedTuple):
    """Where one request's answer stands."""

    follower: Follower
    node: Node
    past: int
    """A hash of what was asked and of every token that was chosen since."""
    last: int = 0
    """The last chosen tokens, ``TOKEN_BITS`` each."""
    chosen: int = 0
    """How many tokens were chosen."""


class Memory:
    """Which token was chosen where an answer was open: by answers to like questions that had gone
    the same way, or else by any answer that had come the same way last.

    Args:
        limit: choices that are remembered, by context; the oldest are forgotten first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chosen: OrderedDict[int, int] = OrderedDict()
        """By a hash of the context: the token, and in the lowest bits how often more than others it
        was chosen. Numbers alone, so that the garbage collector has nothing to follow."""

    def follow(self, place: Place, tokens: tuple[int, ...]) -> Place:
        """Where ``tokens`` lead; what was chosen among them is remembered."""
        follower, node, past, last, chosen = place
        done = 0
        while done < len(tokens):
            forced = node.draft or follower.draft(node)
            if forced:
                some = tokens[done : done + len(forced)]
                node = node.end if node.end and some == forced else follower.along(node, some)
                done += len(forced)
                continue
            token = tokens[done]
            if self._chosen.get(past) != token << COUNT_BITS | MOST:
                self.count(past, token)
                self.count(hash((node, last)), token)
                self.count(hash((node, last & ONE)), token)
            node = node.next.get(token) or follower.after(node, (token,))
            past, last = hash((past, token)), (last << TOKEN_BITS | token) & ALL
            done, chosen = done + 1, chosen + 1
        return Place(follower, node, past, last, chosen)

    def guess(self, place: Place, limit: int) -> list[int]:
        """Up to ``limit`` tokens: what is forced, and the choices that are remembered."""
        follower, node, past, last, _ = place
        chosen, vague = self.chosen, 0
        found: list[int] = []
        while len(found) < limit:
            forced = node.draft or follower.draft(node)
            if forced:
                found += forced
                node = node.end or follower.end(node)
                continue
            if (token := chosen(past)) is None and vague < MOST_VAGUE:
                vague += 1
                token = chosen(hash((node, last)))
                if token is None:
                    token = chosen(hash((node, last & ONE)))
            if token is None:
                break
            found.append(token)
            node = node.next.get(token) or follower.after(node, (token,))
            past, last = hash((past, token)), (last << TOKEN_BITS | token) & ALL
        return found[:limit]

    def chosen(self, context: int) -> int | None:
        """The token that is remembered for a context."""
        vote = self._chosen.get(context)
        return None if vote is None else vote >> COUNT_BITS

    def count(self, context: int, token: int) -> None:
        """Remember a token for a context: a majority vote in constant space (Boyer and Moore)."""
        before, count = divmod(self._chosen.get(context, 0), MOST + 1)
        if before == token:
            count = min(count + 1, MOST)
        elif count > 1:
            token, count = before, count - 1
        else:
            count = 1
        self._chosen[context] = token << COUNT_BITS | count
        if len(self._chosen) > self._limit:
            self._chosen.popitem(last=False)
