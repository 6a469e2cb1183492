"""How many requests an engine should have at once, found by measuring.

A batch of N requests takes about a + b N seconds: its throughput N / (a + b N) comes within 95 % of
what it can reach, 1 / b, when it takes 20 a, that is, 20 times what a request alone takes. More
requests would only wait for each other, where neither fairness nor deadlines can help them.
"""

import time

MANY_TIMES = 20
"""Longest time at the engine, in multiples of the shortest seen."""
START = 16
"""First limit. It doubles each time that many were answered, until an answer takes too long."""
DECREASE = 0.9
WEIGHT = 0.1
"""Weight of the latest time in the mean."""


class Means:
    """Moving averages by flow."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def add(self, flow: str, value: float) -> None:
        mean = self.get(flow, value)
        self._means[flow] = mean + WEIGHT * (value - mean)

    def get(self, flow: str, default: float) -> float:
        """Return the mean of ``flow``, or ``default`` if nothing was added."""
        return self._means.get(flow, default)


class Limit:
    """A fixed limit, and the time at the engine by flow.

    Args:
        most: maximum concurrent requests.
    """

    def __init__(self, most: float) -> None:
        self.value = float(most)
        """Maximum concurrent requests at present."""
        self._most = most
        self._means = Means()
        self._least: dict[str, float] = {}

    def mean(self, flow: str) -> float:
        """Return the seconds that requests of ``flow`` lately spent at the engine; 0 if
        unknown."""
        return self._means.get(flow, 0.0)

    def least(self, flow: str) -> float:
        """Return the fewest seconds that a request of ``flow`` spent at the engine; 0 if
        unknown."""
        return self._least.get(flow, 0.0)

    def observe(self, flow: str, seconds: float, is_full: bool) -> None:
        """Take note of an answer.

        Args:
            flow: the request's flow.
            seconds: its time at the engine.
            is_full: whether the limit was reached.
        """
        self._means.add(flow, seconds)
        self._least[flow] = min(self._least.get(flow, seconds), seconds)


class AdaptiveLimit(Limit):
    """Additive increase, multiplicative decrease (AIMD, as TCP's congestion window).

    Args:
        most: upper bound.
        many_times: longest time at the engine, in multiples of the shortest seen.
        start: first limit.
    """

    def __init__(self, most: float, many_times: float = MANY_TIMES, start: int = START) -> None:
        super().__init__(most)
        self.value = float(min(start, most))
        self._many_times, self._is_starting = many_times, True
        self._rest_until = 0.0

    def observe(self, flow: str, seconds: float, is_full: bool) -> None:
        super().observe(flow, seconds, is_full)
        mean = self.mean(flow)
        if time.monotonic() < self._rest_until:
            return  # what was at the engine at the last decrease has not shown its effect yet
        if mean > self._many_times * self._least[flow]:
            self._is_starting = False
            self._rest_until = time.monotonic() + mean
            self.value = max(1.0, self.value * DECREASE)
        elif is_full:
            step = 1.0 if self._is_starting else 1 / self.value
            self.value = min(self._most, self.value + step)
