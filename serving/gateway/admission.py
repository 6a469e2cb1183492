"""How many requests may be at the engine, how many may wait, and what happens to the next one."""

from __future__ import annotations

import asyncio

from serving.gateway.errors import Overloaded
from serving.gateway.telemetry import Telemetry


class Admission:
    """A bounded queue in front of the engine, first come, first served."""

    def __init__(self, max_in_flight: int, max_queued: int, telemetry: Telemetry) -> None:
        self._places = asyncio.Semaphore(max_in_flight)
        self._max_queued, self._queued = max_queued, 0
        self._telemetry, self._metrics = telemetry, telemetry.metrics
        self._metrics.in_flight_limit.set(max_in_flight)
        self._metrics.queue_limit.set(max_queued)

    def place(self, adapter: str) -> Place:
        """Hold a place at the engine, after waiting for one if need be.

        Args:
            adapter: whom the request is for, as a metric label.

        Raises:
            Overloaded: on entry, as many requests as may wait are waiting.
        """
        return Place(self, adapter)

    async def take(self, adapter: str) -> None:
        """``place``'s entry; ``leave`` belongs to it."""
        count = self._metrics.admissions
        if self._places.locked() and self._queued >= self._max_queued:
            count.labels(adapter, "rejected").inc()
            raise Overloaded(f"{self._queued} requests are waiting already; try again later")
        self._queued += 1
        self._metrics.queued.set(self._queued)
        try:
            with self._telemetry.stage("queue", adapter):
                await self._places.acquire()
        except asyncio.CancelledError:
            count.labels(adapter, "cancelled").inc()
            raise
        finally:
            self._queued -= 1
            self._metrics.queued.set(self._queued)
        count.labels(adapter, "admitted").inc()
        self._metrics.in_flight.inc()

    def leave(self) -> None:
        """Give the place to whoever waits longest."""
        self._metrics.in_flight.dec()
        self._places.release()


class Place:
    """What ``Admission.place`` gives: an asynchronous context manager."""

    def __init__(self, admission: Admission, adapter: str) -> None:
        self._admission, self._adapter = admission, adapter

    async def __aenter__(self) -> None:
        await self._admission.take(self._adapter)

    async def __aexit__(self, *_: object) -> None:
        self._admission.leave()
