"""Admission control: how many requests are at the engine, how many wait, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.gateway.errors import Overloaded
from serving.gateway.telemetry import Telemetry


class Admission:
    """A bounded queue in front of the engine, first come, first served.

    Args:
        max_in_flight: requests at the engine at once.
        max_queued: queue capacity, in requests.
        telemetry: where requests are counted.
    """

    def __init__(self, max_in_flight: int, max_queued: int, telemetry: Telemetry) -> None:
        self._slots = asyncio.Semaphore(max_in_flight)
        self._max_queued, self._queued = max_queued, 0
        self._telemetry, self._metrics = telemetry, telemetry.metrics
        self._metrics.in_flight_limit.set(max_in_flight)
        self._metrics.queue_limit.set(max_queued)

    @asynccontextmanager
    async def slot(self, adapter: str) -> AsyncIterator[None]:
        """Wait for a slot at the engine, and hold it.

        Args:
            adapter: whom the request is for, as a metric label.

        Raises:
            Overloaded: on entry, if the queue is full.
        """
        await self._acquire(adapter)
        self._metrics.in_flight.inc()
        try:
            yield
        finally:
            self._metrics.in_flight.dec()
            self._slots.release()

    async def _acquire(self, adapter: str) -> None:
        count = self._metrics.admissions
        if self._slots.locked() and self._queued >= self._max_queued:
            count.labels(adapter, "rejected").inc()
            raise Overloaded(f"{self._queued} requests are waiting already; try again later")
        self._queued += 1
        self._metrics.queued.set(self._queued)
        try:
            with self._telemetry.stage("queue", adapter):
                await self._slots.acquire()
        except asyncio.CancelledError:
            count.labels(adapter, "cancelled").inc()
            raise
        finally:
            self._queued -= 1
            self._metrics.queued.set(self._queued)
        count.labels(adapter, "admitted").inc()
