"""Asking the running service, many at once, and waiting for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import aiohttp
from pydantic import BaseModel

from serving.contract.month import MonthRequest


async def ask_text(session: aiohttp.ClientSession, asked: BaseModel, retries: int = 0) -> str:
    """The answer's bytes, as text; a 503 is asked again when it says so, ``retries`` times."""
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
    """The answers in the order of ``asked``, ``at_once`` at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(session: aiohttp.ClientSession, request: BaseModel) -> str:
        async with gate:
            return await ask_text(session, request, retries)

    async with aiohttp.ClientSession(url) as session:
        return await asyncio.gather(*(one(session, request) for request in asked))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until it holds; it must before ``seconds`` are over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
