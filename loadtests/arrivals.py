"""An open loop: requests come at random, whatever becomes of those before."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any


async def arrivals(
    ask: Callable[[], Coroutine[Any, Any, object]], rate: float, goes_on: Callable[[], bool]
) -> int:
    """Call ``ask`` as a Poisson process while ``goes_on``; return the number of calls once all have
    ended.

    Args:
        ask: sends a request and waits for its answer.
        rate: mean calls per second.
        goes_on: whether more are to come.
    """
    asked, due, going = 0, time.monotonic(), set[asyncio.Task[object]]()
    while goes_on():
        while due <= time.monotonic():
            task = asyncio.create_task(ask())
            going.add(task)
            task.add_done_callback(going.discard)
            asked, due = asked + 1, due + random.expovariate(rate)
        await asyncio.sleep(max(0.001, due - time.monotonic()))
    await asyncio.gather(*going)
    return asked
