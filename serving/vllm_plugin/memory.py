"""Remembers the model's earlier choices to guess tokens that are not forced.

The engine verifies every proposed token, so a wrong guess costs time but never correctness.
"""

from collections import OrderedDict
from typing import NamedTuple

from serving.vllm_plugin.follower import Follower, Node

TOKEN_BITS = 20
ONE, ALL = (1 << TOKEN_BITS) - 1, (1 << 3 * TOKEN_BITS) - 1
"""Masks for the last chosen token and the last three."""
COUNT_BITS = 2
MOST = (1 << COUNT_BITS) - 1
"""Maximum vote count; kept low so that changed choices are relearned within a few requests."""
MOST_VAGUE = 5
"""Maximum choices per guess without a remembered similar question. With more, too many tokens are
verified in vain: of months, three, five and eight left 8.4, 7.1 and 6.5 passes of 149, 158 and 173
tokens, once 2,000 had been answered."""


class Progress(NamedTuple):
    """Position in one request's answer."""

    follower: Follower
    node: Node
    past: int
    """Hash of the question and all tokens chosen since."""
    last: int = 0
    """The last chosen tokens, ``TOKEN_BITS`` bits each."""
    chosen: int = 0
    """Number of tokens chosen."""


class Memory:
    """Remembers chosen tokens by context. The context is a similar question with the same choices
    so far or, failing that, any answer at the same position with the same last choices.

    Args:
        limit: maximum remembered contexts; the oldest are evicted first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chosen: OrderedDict[int, int] = OrderedDict()
        """Token by context hash; the lowest bits hold its lead in votes over other tokens. Plain
        integers, so the garbage collector has nothing to traverse."""

    def follow(self, progress: Progress, tokens: tuple[int, ...]) -> Progress:
        """Return the progress after ``tokens``, and remember the chosen ones among them."""
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
        """Return up to ``limit`` tokens: forced ones and remembered choices."""
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
        """Return the token remembered for a context, or None."""
        vote = self._chosen.get(context)
        return None if vote is None else vote >> COUNT_BITS

    def count(self, context: int, token: int) -> None:
        """Record a token for a context, by Boyer-Moore majority vote in constant space."""
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
