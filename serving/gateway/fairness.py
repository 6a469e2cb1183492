"""Deficit round robin (Shreedhar and Varghese, 1995): fair queueing between flows in constant time.

Each flow with waiting items is visited in turn and may take items up to what it is owed. Flows get
the same cost in the long run, whatever an item of theirs costs; a flow that needs less leaves the
rest to the others; within a flow, items keep their order.
"""

from collections import OrderedDict, deque
from collections.abc import KeysView
from typing import Generic, TypeVar

Flow = TypeVar("Flow")
Item = TypeVar("Item")


class FairQueue(Generic[Flow, Item]):
    """Items waiting in flows. Flows with no item need no memory."""

    def __init__(self) -> None:
        self._flows: OrderedDict[Flow, deque[tuple[Item, float]]] = OrderedDict()
        """Items and costs by flow, the flow to visit next first."""
        self._owed: dict[Flow, float] = {}
        self._quantum = 0.0
        """The largest cost so far: every visit then yields at least one item."""

    def __len__(self) -> int:
        return sum(map(len, self._flows.values()))

    def __bool__(self) -> bool:
        return bool(self._flows)

    @property
    def flows(self) -> KeysView[Flow]:
        """Flows with waiting items."""
        return self._flows.keys()

    def waiting(self, flow: Flow) -> int:
        """Return the number of items of ``flow``."""
        return len(self._flows.get(flow, ()))

    def push(self, flow: Flow, item: Item, cost: float) -> None:
        """Append an item to ``flow``.

        Args:
            flow: which one.
            item: what waits.
            cost: share of the common resource it takes, above 0, in any unit.
        """
        self._quantum = max(self._quantum, cost)
        if flow not in self._flows:
            self._flows[flow], self._owed[flow] = deque(), self._quantum
        self._flows[flow].append((item, cost))

    def head(self) -> Item:
        """Return the item that ``pop`` will take; the queue must not be empty."""
        while True:
            flow, items = next(iter(self._flows.items()))
            if items[0][1] <= self._owed[flow]:
                return items[0][0]
            self._owed[flow] += self._quantum
            self._flows.move_to_end(flow)

    def pop(self) -> Item:
        """Take the next item; the queue must not be empty."""
        item = self.head()
        flow, items = next(iter(self._flows.items()))
        self._owed[flow] -= items.popleft()[1]
        self._forget(flow)
        return item

    def discard(self, flow: Flow, item: Item) -> None:
        """Take an item out of its turn, if it still waits."""
        items = self._flows.get(flow, deque())
        for entry in items:
            if entry[0] is item:
                items.remove(entry)
                self._forget(flow)
                break

    def _forget(self, flow: Flow) -> None:
        """Drop ``flow`` if nothing of it waits: it cannot save up for later."""
        if not self._flows[flow]:
            del self._flows[flow], self._owed[flow]
