"""Process metrics: event loop lag, memory and CPU time."""

import asyncio
import gc

import psutil

from serving.gateway.metrics import Metrics

INTERVAL_SECONDS = 0.25


def settle() -> None:
    """Exclude all current objects from garbage collection; call once startup is complete.
    Otherwise, each full collection scans them again, for up to 90 ms."""
    gc.collect()
    gc.freeze()


async def watch_process(metrics: Metrics) -> None:
    """Measure until cancelled. The lag is the delay of a sleep beyond its interval."""
    loop, process, spent = asyncio.get_running_loop(), psutil.Process(), 0.0
    while True:
        metrics.memory.set(process.memory_info().rss)
        times = process.cpu_times()
        metrics.processor.inc(times.user + times.system - spent)
        spent = times.user + times.system
        due = loop.time() + INTERVAL_SECONDS
        await asyncio.sleep(INTERVAL_SECONDS)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
