"""Concurrent requests to the running service, and a measurement of its capacity."""

import asyncio
import itertools
import time
from collections.abc import Sequence

import aiohttp
from pydantic import BaseModel

from dataset.generate import SOURCES
from serving.tasks.month.answer import MonthRequest


async def ask_text(session: aiohttp.ClientSession, asked: BaseModel, retries: int = 0) -> str:
    """Return the response body; retry a 503 after ``retry-after``, up to ``retries`` times."""
    task = "month" if isinstance(asked, MonthRequest) else "rate"
    async with session.post(f"/gen/routine/{task}", json=asked.model_dump()) as response:
        text = await response.text()
        if response.status == 503 and retries:
            await asyncio.sleep(int(response.headers["retry-after"]))
            return await ask_text(session, asked, retries - 1)
        assert response.status == 200, text
        return text


async def ask_all(
    url: str, asked: Sequence[BaseModel], at_once: int, retries: int = 0
) -> list[str]:
    """Send all requests, ``at_once`` at a time; return the answers in the order of ``asked``."""
    gate = asyncio.Semaphore(at_once)

    async def one(session: aiohttp.ClientSession, request: BaseModel) -> str:
        async with gate:
            return await ask_text(session, request, retries)

    async with aiohttp.ClientSession(url) as session:
        return await asyncio.gather(*(one(session, request) for request in asked))


async def capacity(url: str, seconds: float = 4) -> float:
    """Measure the ``rate`` requests per second answered on this machine at eight concurrent
    requests. Load tests use a share of it."""
    done, end = 0, time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal done
        asked = itertools.islice(SOURCES["rate"].requests(number), 10_000)
        while time.monotonic() < end:
            await ask_text(session, next(asked), retries=3)
            done += 1

    start = time.monotonic()
    async with aiohttp.ClientSession(url) as session:
        await asyncio.gather(*(client(session, number) for number in range(8)))
    return done / (time.monotonic() - start)
