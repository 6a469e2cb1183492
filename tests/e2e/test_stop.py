"""Stopping under load: what was sent before is answered."""

import asyncio
import itertools
import os
import signal
import time
from dataclasses import dataclass

import aiohttp

from dataset.generate import SOURCES
from tests.kit.stack import Stack

CLIENTS = 24


@dataclass
class Asked:
    """A request: when it was sent, and its status; 0 if the connection broke or was refused."""

    at: float
    status: int = 0


async def client(url: str, seed: int, asked: list[Asked], stop: asyncio.Event) -> None:
    """Ask one thing after the other, on one connection as long as it is kept."""
    async with aiohttp.ClientSession(url) as session:
        for request in itertools.islice(SOURCES["rate"].requests(seed), 10_000):
            if stop.is_set():
                return
            one = Asked(time.monotonic())
            asked.append(one)
            try:
                async with session.post("/gen/routine/rate", json=request.model_dump()) as answer:
                    await answer.read()
                    one.status = answer.status
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
            if one.status != 200:
                await asyncio.sleep(0.1)


async def stop_under_load(stack: Stack) -> tuple[list[Asked], list[Asked]]:
    """Stop the service while clients ask; return what was sent before, and after."""
    (main,) = [pid for pid, said in stack.processes().items() if said.endswith("-m serving")]
    asked: list[Asked] = []
    stop = asyncio.Event()
    clients = [asyncio.create_task(client(stack.url, n, asked, stop)) for n in range(CLIENTS)]
    await asyncio.sleep(3)
    os.kill(main, signal.SIGTERM)
    signalled = time.monotonic()
    await asyncio.to_thread(stack.wait_stopped)
    stop.set()
    await asyncio.gather(*clients)
    before = [one for one in asked if one.at < signalled]
    return before, asked[len(before) :]


async def test_no_request_that_was_sent_before_is_lost(fresh_stack: Stack) -> None:
    before, after = await stop_under_load(fresh_stack)
    assert len(before) > CLIENTS
    assert [one.status for one in before] == [200] * len(before)
    assert {one.status for one in after} <= {200, 503, 0}
    assert fresh_stack.process.returncode == 0
