"""Short mixed load of every kind of client request, including invalid and abandoned ones."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import aiohttp

from serving.tasks.registry import TASKS

KINDS = ("rate", "month", "month without rates", "stream", "wrong", "hasty")
WEIGHTS = (60, 20, 5, 8, 4, 3)
"""Percent per kind. A wrong request gets 422; a hasty client disconnects before its answer."""
HASTE_SECONDS = 0.005

Seen = Counter[str]
"""Number of requests by kind and status."""


async def load(
    url: str,
    stages: Sequence[tuple[int, float]],
    enough: Callable[[Seen], bool] = lambda _: True,
) -> Seen:
    """Send random requests to ``url``; return what was seen.

    Args:
        url: the gateway's URL.
        stages: pairs of concurrent requests and duration in seconds.
        enough: the last stage continues until this is true for the requests seen.
    """
    seen: Seen = Counter()
    async with aiohttp.ClientSession(url) as session:
        for number, (at_once, seconds) in enumerate(stages):
            until, last = time.monotonic() + seconds, number == len(stages) - 1

            def goes_on(until: float = until, last: bool = last) -> bool:
                return time.monotonic() < until or (last and not enough(seen))

            clients = (
                _client(session, Random(f"{number} {client}"), goes_on, seen)
                for client in range(at_once)
            )
            await asyncio.gather(*clients)
    return seen


async def _client(
    session: aiohttp.ClientSession, chance: Random, goes_on: Callable[[], bool], seen: Seen
) -> None:
    while goes_on():
        kind = chance.choices(KINDS, WEIGHTS)[0]
        try:
            status = await _ask(session, kind, chance)
        except TimeoutError:
            status = "left"
        seen[f"{kind} {status}"] += 1


async def _ask(session: aiohttp.ClientSession, kind: str, chance: Random) -> str:
    asked = TASKS["month"].draw(chance)
    profile = TASKS["month"].missing(asked.model_copy(update={"rates": None}))
    assert profile
    route, timeout = "/gen/routine/rate", aiohttp.ClientTimeout(60)
    body = profile.model_dump()
    if kind.startswith("month"):
        route = "/gen/routine/month"
        body = asked.model_dump() | ({"rates": None} if kind.endswith("rates") else {})
    elif kind == "stream":
        route, task = "/v1/completions", TASKS["rate"]
        body = {
            "model": chance.choice(["rate", "month", "demo"]),
            "prompt": task.question(profile).prompt,
            "max_tokens": 24,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    elif kind == "wrong":
        body["experience"] = 9
    elif kind == "hasty":
        timeout = aiohttp.ClientTimeout(HASTE_SECONDS)
    async with session.post(route, json=body, timeout=timeout) as response:
        await response.read()
        return str(response.status)
