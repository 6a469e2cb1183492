"""Admission control: limits concurrent and queued requests, and rejects the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.gateway.errors import Overloaded
from serving.gateway.telemetry import Telemetry


class Admission:
    """A bounded FIFO queue in front of the engine.

    Args:
        max_in_flight: maximum concurrent requests to the engine.
        max_queued: queue capacity, in requests.
        telemetry: receives queue metrics.
    """

    def __init__(self, max_in_flight: int, max_queued: int, telemetry: Telemetry) -> None:
        self._slots = asyncio.Semaphore(max_in_flight)
        self._max_queued, self._queued = max_queued, 0
        self._telemetry, self._metrics = telemetry, telemetry.metrics
        self._metrics.in_flight_limit.set(max_in_flight)
        self._metrics.queue_limit.set(max_queued)

    @asynccontextmanager
    async def slot(self, adapter: str) -> AsyncIterator[None]:
        """Wait for an engine slot and hold it.

        Args:
            adapter: the requested adapter, as a metric label.

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
            raise Overloaded(f"the queue is full ({self._queued} requests); try again later")
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
