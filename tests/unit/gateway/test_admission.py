"""The queue in front of the engine."""

import asyncio

import pytest

from serving.gateway.admission import Admission
from serving.gateway.errors import Overloaded
from serving.gateway.metrics import Metrics
from serving.gateway.telemetry import Telemetry


async def test_a_full_queue_refuses_the_next_request_at_once() -> None:
    metrics = Metrics()
    admission = Admission(1, 1, Telemetry(metrics, None))
    release = asyncio.Event()

    async def hold() -> None:
        async with admission.slot("rate"):
            await release.wait()

    first, second = asyncio.create_task(hold()), asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert value(metrics, "in_flight_requests") == value(metrics, "queued_requests") == 1
    with pytest.raises(Overloaded):
        async with admission.slot("rate"):
            pass
    second.cancel()
    await asyncio.sleep(0)
    third = asyncio.create_task(hold())  # the cancelled one's place in the queue is free again
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(first, third)
    async with admission.slot("month"):
        pass
    assert outcomes(metrics, "rate") == {"admitted": 2, "rejected": 1, "cancelled": 1}
    assert outcomes(metrics, "month") == {"admitted": 1, "rejected": 0, "cancelled": 0}
    assert value(metrics, "in_flight_requests") == value(metrics, "queued_requests") == 0
    assert value(metrics, "in_flight_limit_requests") == value(metrics, "queue_limit_requests") == 1


async def test_who_leaves_the_engine_had_been_admitted() -> None:
    metrics = Metrics()
    admission = Admission(1, 1, Telemetry(metrics, None))

    async def hold() -> None:
        async with admission.slot("rate"):
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert outcomes(metrics, "rate") == {"admitted": 1, "rejected": 0, "cancelled": 0}
    assert value(metrics, "in_flight_requests") == 0


def value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"routine_{name}")


def outcomes(metrics: Metrics, adapter: str) -> dict[str, float | None]:
    return {
        outcome: metrics.registry.get_sample_value(
            "routine_admissions_total", {"adapter": adapter, "outcome": outcome}
        )
        for outcome in ("admitted", "rejected", "cancelled")
    }
