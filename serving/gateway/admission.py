"""How many requests may be at the engine, how many may wait, and what happens to the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.gateway.errors import Overloaded
from serving.gateway.metrics import Metrics


class Admission:
    """A bounded queue in front of the engine, first come, first served."""

    def __init__(self, max_in_flight: int, max_queued: int, metrics: Metrics) -> None:
        self._places = asyncio.Semaphore(max_in_flight)
        self._max_queued, self._queued = max_queued, 0
        self._metrics = metrics

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place at the engine, after waiting for one if need be.

        Raises:
            Overloaded: as many requests as may wait are waiting.
        """
        if self._places.locked() and self._queued >= self._max_queued:
            raise Overloaded(f"{self._queued} requests are waiting already; try again later")
        start = time.perf_counter()
        self._queued += 1
        self._metrics.queued.set(self._queued)
        try:
            await self._places.acquire()
        finally:
            self._queued -= 1
            self._metrics.queued.set(self._queued)
        self._metrics.queue_time.observe(time.perf_counter() - start)
        self._metrics.in_flight.inc()
        try:
            yield
        finally:
            self._metrics.in_flight.dec()
            self._places.release()
