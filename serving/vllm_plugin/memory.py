"""What was chosen before where an answer was open: guesses for the drafter.

A guess is only a proposal. The engine verifies every token, so a wrong one costs time and never
correctness.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from serving.vllm_plugin.follower import Follower, Node

TOKEN_BITS = 20
ONE, ALL = (1 << TOKEN_BITS) - 1, (1 << 3 * TOKEN_BITS) - 1
"""The last chosen token, and the last three."""
COUNT_BITS = 2
MOST = (1 << COUNT_BITS) - 1
"""Votes are counted up to this: what has changed is learned anew within a few requests."""
MOST_VAGUE = 3
"""A guess goes no further than so many choices for which no like question is remembered: beyond,
too many tokens are verified in vain."""


class Progress(NamedTuple):
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

    def follow(self, progress: Progress, tokens: tuple[int, ...]) -> Progress:
        """Where ``tokens`` lead; what was chosen among them is remembered."""
        follower, node, past, last, chosen = progress
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
        return Progress(follower, node, past, last, chosen)

    def guess(self, progress: Progress, limit: int) -> list[int]:
        """Up to ``limit`` tokens: what is forced, and the choices that are remembered."""
        follower, node, past, last, _ = progress
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
