"""Admission control: who is at the engine, who waits, and who is refused at once.

A request waits only if it can be answered in time: its expected wait follows from the requests
before it in its flow and the rate at which they leave (Little's law).
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from serving.gateway.deadline import TIMEOUT, Deadline
from serving.gateway.engine import Completion
from serving.gateway.errors import InvalidRequest, Overloaded
from serving.gateway.fairness import FairQueue
from serving.gateway.telemetry import Telemetry
from serving.limit import Limit, Means

OUTPUT_WEIGHT = 3
"""What an output token costs, in prompt tokens, which are computed together (Sheng et al., Fairness
in Serving Large Language Models, 2024, count two; a month takes as long as 3.5 rates)."""
SPREAD = 0.5
"""Random share added to Retry-After, so that those who were refused do not come back at once."""


@dataclass
class Usage:
    """What a request took at the engine, as far as it was told."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    passes: int = 0
    """Forward passes that generated them."""

    def add(self, completion: Completion) -> None:
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens
        self.passes += completion.passes

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def cost(self) -> float:
        """What it took, in prompt tokens."""
        return self.prompt_tokens + OUTPUT_WEIGHT * self.completion_tokens


class Flow(NamedTuple):
    """Whose turn it is: flows wait side by side."""

    adapter: str
    """The requested adapter, a metric label."""
    key: str = ""
    """Name of the caller's key."""


@dataclass(eq=False)
class _Waiter:
    weight: int
    admitted: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Admission:
    """A share of the engine and the fair queue in front of it.

    Args:
        pool: name of the share, as a metric label.
        limit: how much may be at the engine at once.
        max_queue_seconds: longest expected wait; requests that would wait longer are refused.
        telemetry: receives queue metrics.
    """

    def __init__(
        self,
        pool: str,
        limit: Limit,
        max_queue_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._limit, self._max_queue_seconds = limit, max_queue_seconds
        self._queue: FairQueue[Flow, _Waiter] = FairQueue()
        self._taken = 0
        self._costs = Means()
        self._telemetry, metrics = telemetry, telemetry.metrics
        self._admissions = metrics.admissions
        metrics.queue_wait_limit.labels(pool).set(max_queue_seconds)
        for gauge, value in (  # read when they are asked for, not set at every change
            (metrics.queued, lambda: len(self._queue)),
            (metrics.queue_wait, self._longest_wait),
            (metrics.in_flight, lambda: self._taken),
            (metrics.in_flight_limit, lambda: limit.value),
        ):
            gauge.labels(pool).set_function(value)

    @property
    def is_free(self) -> bool:
        """Whether a request that takes one place would not wait."""
        return not self._queue and self._has_room(1)

    @asynccontextmanager
    async def slot(
        self, flow: Flow, deadline: Deadline | None, weight: int = 1
    ) -> AsyncIterator[Usage]:
        """Wait for a place at the engine and hold it; yield where to tell the tokens it takes.

        Args:
            flow: whose turn it is.
            deadline: of the request; None if it may wait as long as it takes. Nobody then waits
                for it, and its wait is not measured.
            weight: places it takes.

        Raises:
            Overloaded: on entry, if it cannot be answered in time.
            InvalidRequest: on entry, if the caller's deadline can never be met.
        """
        if deadline:
            self.refuse_late(flow, deadline)
            with self._telemetry.stage("queue", flow.adapter):
                await self._enter(flow, deadline, weight)
        else:
            await self._enter(flow, None, weight)
        start, usage = time.perf_counter(), Usage()
        try:
            yield usage
            seconds = time.perf_counter() - start
            self._limit.observe(flow.adapter, seconds, is_full=self._taken + 1 > self._limit.value)
            if usage.cost:
                self._costs.add(flow.adapter, usage.cost)
        finally:
            self._leave(weight)

    async def _enter(self, flow: Flow, deadline: Deadline | None, weight: int) -> None:
        if self.is_free and self._has_room(weight):
            self._taken += weight
        else:
            await self._turn(flow, deadline, weight)
        self._admissions.labels(flow.adapter, "admitted").inc()

    async def _turn(self, flow: Flow, deadline: Deadline | None, weight: int) -> None:
        """Wait in the queue until a place has been taken."""
        waiter, outcome = _Waiter(weight), "cancelled"
        self._queue.push(flow, waiter, weight * self._cost(flow.adapter))
        self._admit()
        try:
            async with asyncio.timeout(deadline.remaining() if deadline else None):
                await waiter.admitted
            outcome = "admitted"
        except TimeoutError as error:
            outcome = "rejected"
            raise self._overloaded(self._expected_wait(flow)) from error
        finally:
            if outcome != "admitted":
                self._admissions.labels(flow.adapter, outcome).inc()
                if waiter.admitted.done() and not waiter.admitted.cancelled():
                    self._leave(weight)  # admitted at the moment it left
                else:
                    self._queue.discard(flow, waiter)
                    self._admit()

    def refuse_late(self, flow: Flow, deadline: Deadline) -> None:
        """Raise unless a request that comes now is expected to be answered in time. ``slot`` does
        so itself; asking before a body is read makes a refusal cheap.

        Raises:
            Overloaded: others wait.
            InvalidRequest: the caller's deadline can never be met.
        """
        remaining = deadline.remaining()
        if deadline.is_callers and self._limit.least(flow.adapter) > remaining:
            least = math.ceil(self._limit.least(flow.adapter) * 1000)
            raise InvalidRequest(
                f"{TIMEOUT} leaves {max(0, remaining * 1000):.0f} ms; an answer takes at least "
                f"{least} ms",
                TIMEOUT,
            )
        wait = self._expected_wait(flow)
        answered = wait + self._limit.mean(flow.adapter)
        late = max(wait - self._max_queue_seconds, answered - remaining)
        if wait and late > 0:
            self._admissions.labels(flow.adapter, "rejected").inc()
            raise self._overloaded(late)

    def _expected_wait(self, flow: Flow) -> float:
        """Return the seconds that a request of ``flow`` that comes now would wait."""
        if self.is_free:
            return 0.0
        before, cost = self._queue.waiting(flow) + 1, self._cost(flow.adapter)
        turn = sum(  # what all flows take at the engine until one of this flow has had its turn
            self._limit.mean(adapter) * cost / self._cost(adapter)
            for adapter, _ in self._queue.flows | {flow}
        )
        return before * turn / self._limit.value

    def _has_room(self, weight: int) -> bool:
        return not self._taken or self._taken + weight <= self._limit.value

    def _cost(self, adapter: str) -> float:
        return self._costs.get(adapter, 1.0)

    def _overloaded(self, late: float) -> Overloaded:
        seconds = max(1, math.ceil(late * (1 + random.uniform(0, SPREAD))))
        return Overloaded(
            f"{len(self._queue)} requests are waiting; try again in {seconds} s", seconds
        )

    def _admit(self) -> None:
        """Let in those whose turn it is, as long as there is room."""
        while self._queue:
            waiter = self._queue.head()
            if not waiter.admitted.done():  # it is still there
                if not self._has_room(waiter.weight):
                    break
                self._taken += waiter.weight
                waiter.admitted.set_result(None)
            self._queue.pop()

    def _leave(self, weight: int) -> None:
        self._taken -= weight
        self._admit()

    def _longest_wait(self) -> float:
        return max(map(self._expected_wait, self._queue.flows), default=0.0)
