"""Closed-loop measurement of peers with concurrent clients. Every answer is checked."""

import asyncio
import json
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from loadtests.bench.peers import Peer
from loadtests.report import percentile
from serving.tasks.base import Task

GENERATED, ACCEPTED, DRAFTED, STEPS = (
    "vllm:generation_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total",
    "vllm:spec_decode_num_draft_tokens_total",
    "vllm:iteration_tokens_total_count",
)
DRAFTER_SECONDS, DRAFTER_PASSES = "routine_drafter_seconds_total", "routine_drafter_passes_total"


Counters = dict[str, float]
"""Values by exposition-format name (``vllm:generation_tokens_total``), summed over labels."""


async def engine_counters(engine_url: str) -> Counters:
    """Read the counters of an engine and its drafter."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{engine_url}/metrics") as response,
    ):
        text = await response.text()
    found: Counters = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(("vllm:", "routine_")):
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def difference(after: Counters, before: Counters) -> Counters:
    """Return the increase of each counter."""
    return {name: after[name] - before.get(name, 0) for name in after}


@dataclass
class Answers:
    """Results of one peer at one level."""

    seconds: list[float] = field(default_factory=list)
    """Latency of each request."""
    correct: int = 0
    tokens: int = 0
    """Generated tokens as reported in the answers; the first version has no counters."""
    rates: list[float] = field(default_factory=list)
    """Requests per second of each block."""
    counted: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Increase of the engine's counters."""

    def summary(self, peer: Peer) -> dict[str, Any]:
        """Summarize for a result file, with medians over blocks and requests."""
        number, counted = len(self.seconds), self.counted
        generated = counted[GENERATED] if peer.metrics else self.tokens
        drafter = counted[DRAFTER_SECONDS] / (counted[DRAFTER_PASSES] or 1)
        return {
            "requests": number,
            "correct": self.correct,
            "p50_seconds": round(statistics.median(self.seconds), 4),
            "p95_seconds": round(percentile(self.seconds, 95), 4),
            "requests_per_second": round(statistics.median(self.rates), 3),
            "requests_per_second_by_round": [round(rate, 3) for rate in self.rates],
            "tokens_per_request": round(generated / number, 1),
            "accepted_share": round(counted[ACCEPTED] / (counted[DRAFTED] or 1), 4),
            "steps_per_request": round(counted[STEPS] / number, 2) if peer.metrics else None,
            "drafter_microseconds_per_pass": round(1e6 * drafter, 1),
        }


async def block(
    session: aiohttp.ClientSession,
    peer: Peer,
    task: Task[Any],
    level: int,
    rng: Random,
    into: Answers,
    seconds: float = 0,
    least: int = 1,
) -> None:
    """Run ``level`` clients for ``seconds`` and until ``least`` requests were sent.

    Args:
        session: HTTP session without limits.
        peer: peer to query.
        task: task to request.
        level: number of concurrent requests.
        rng: source of the requests, which are all distinct.
        into: results to add to.
        seconds: how long clients send requests; pending ones are awaited.
        least: minimum number of requests.
    """
    before = await engine_counters(peer.metrics) if peer.metrics else {}
    begin = time.perf_counter()
    requests = 0

    async def client() -> None:
        nonlocal requests
        while requests < least or time.perf_counter() - begin < seconds:
            requests += 1
            request = task.draw(rng)
            path, body = peer.ask(task, request)
            start = time.perf_counter()
            async with session.post(
                peer.url + path, data=body, headers={"content-type": "application/json"}
            ) as response:
                answer = json.loads(await response.read())
            into.seconds.append(time.perf_counter() - start)
            into.correct += response.status == 200 and peer.correct(task, request, answer)
            into.tokens += answer.get("usage", {}).get("completion_tokens", 0)

    await asyncio.gather(*(client() for _ in range(level)))
    into.rates.append(requests / (time.perf_counter() - begin))
    after = await engine_counters(peer.metrics) if peer.metrics else {}
    for counter, value in difference(after, before).items():
        into.counted[counter] += value


def patient() -> aiohttp.ClientSession:
    """Create a session without connection or time limits."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
        timeout=aiohttp.ClientTimeout(total=None),
    )
