"""Asking the running service, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

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


async def engine_counters(engine_url: str) -> dict[str, float]:
    """vLLM's own counters by name, summed over labels."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{engine_url}/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    counters: dict[str, float] = {}
    for line in lines:
        if line.startswith("vllm:"):
            name = line.partition("{")[0]
            counters[name] = counters.get(name, 0) + float(line.rpartition(" ")[2])
    return counters


def difference(after: dict[str, Any], before: dict[str, Any]) -> dict[str, float]:
    """What was counted in between."""
    return {name: after[name] - before.get(name, 0) for name in after}
