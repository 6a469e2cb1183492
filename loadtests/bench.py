"""Compare ways to answer: ``python -m loadtests.bench --plan demo``.

All peers run at once and take turns, block by block, in a new order every round: what slows the
machine down slows all of them. In a block, ``level`` clients ask one request after the other until
its time is over; no request is asked twice. Every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from loadtests import drafter_cost
from loadtests.bench_report import arithmetic_table, picture, scores_table, tables
from loadtests.counters import difference, engine_counters
from loadtests.drawn import ASKED, drawn
from loadtests.peers import STACKS, WORDS, Model, Peer, start
from loadtests.report import ARITHMETIC_PAGE, RESULTS, percentile, save, setting, show
from loadtests.stack import ROOT
from serving.contract.tasks import TASKS

SEED = 4_2026
FULL_SIZE = ROOT / "finetune" / "runs" / "full-size"
DEMO = ROOT / "finetune" / "demo"
GENERATED, ACCEPTED, DRAFTED, STEPS = (
    "vllm:generation_tokens_total",
    "vllm:spec_decode_num_accepted_tokens_total",
    "vllm:spec_decode_num_draft_tokens_total",
    "vllm:iteration_tokens_total_count",
)


@dataclass(frozen=True)
class Group:
    """Peers that are compared on one kind of request."""

    asked: str
    """A key of ``ASKED``."""
    peers: tuple[str, ...]
    levels: tuple[int, ...]
    """Requests at once."""
    seconds: float
    """How long clients go on asking in a block; what they have asked is waited for."""
    rounds: int
    only: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Peers that are measured at some levels alone."""


@dataclass(frozen=True)
class Plan:
    """What one run measures."""

    name: str
    """Of the model."""
    folder: Path
    """With ``base`` and ``adapters``."""
    groups: tuple[Group, ...]
    warm_up: int
    """Requests that each peer with a drafter of ours answers before; others answer 3."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """For our stack's environment, and so for every vLLM peer's."""


SMALL_CACHE = {"ENGINE_CPU_KV_CACHE_GIB": "1"}
"""So that all peers fit into memory together."""
ARITHMETIC = ("bfloat16", "float32")
PLANS = {
    "demo": Plan(
        "demo",
        DEMO,
        (
            Group(
                "rate",
                ("transformers", "vllm", "vllm-lora", "ngram", "ours"),
                (1, 8, 32, 64),
                6,
                2,
            ),
            Group("month, rates given", ("vllm", "ngram", "ours"), (1, 32), 8, 2),
        ),
        warm_up=200,
        variables=SMALL_CACHE,
    ),
    "lora": Plan("demo", DEMO, (Group("rate", ("adapter", "base"), (32,), 5, 16),), warm_up=3),
    "stack": Plan(
        "demo",
        DEMO,
        (Group("rate", ("ours", "engine"), (32,), 5, 40),),
        warm_up=500,
    ),
    "full-size": Plan(
        "full-size stand-in",
        FULL_SIZE,
        (Group("rate", ("transformers", "vllm", "ngram", "ours"), (1,), 20, 2),),
        warm_up=100,
        variables=SMALL_CACHE,
    ),
    # Not plain vLLM's own LoRA on CPU: with 8 prompts in a batch it took 10 GB and was killed.
    "full-size-many": Plan(
        "full-size stand-in",
        FULL_SIZE,
        (
            Group(
                "rate",
                ("vllm-lora", "ngram-lora", "ours"),
                (8, 32, 64),
                20,
                1,
                only={"ngram-lora": (8,)},
            ),
        ),
        warm_up=100,
        variables=SMALL_CACHE,
    ),
    "arithmetic": Plan(
        "demo",
        DEMO,
        (Group("rate", ARITHMETIC, (1, 32), 6, 4),),
        warm_up=200,
        variables=SMALL_CACHE,
    ),
    "arithmetic-full-size": Plan(
        "full-size stand-in",
        FULL_SIZE,
        (Group("rate", ARITHMETIC, (1, 8), 15, 2),),
        warm_up=50,
        variables=SMALL_CACHE,
    ),
    "gpu": Plan(
        "full-size stand-in",
        FULL_SIZE,
        (
            Group(
                "rate",
                ("transformers", "vllm", "ngram", "ours"),
                (1, 8, 32, 64, 128, 256, 512),
                10,
                3,
                only={"transformers": (1,)},
            ),
            Group("rate", ("adapter", "base"), (32, 256), 10, 3),
            Group("month, rates given", ("vllm", "ngram", "ours"), (1, 64, 256), 10, 2),
        ),
        warm_up=400,
        variables={"ENGINE_GPU_MEMORY_SHARE": "0.18", "ENGINE_MAX_NUM_SEQS": "512"},
    ),
}


@dataclass
class Answers:
    """What a peer did at one level, over all rounds."""

    seconds: list[float] = field(default_factory=list)
    """Of each request."""
    correct: int = 0
    tokens: int = 0
    """Generated, as the answers count them (the first version has no counters)."""
    rates: list[float] = field(default_factory=list)
    """Requests a second, by round."""
    counted: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """The engine's counters."""

    def summary(self, peer: Peer) -> dict[str, Any]:
        """For the result file."""
        number = len(self.seconds)
        generated = self.counted[GENERATED] if peer.metrics else self.tokens
        return {
            "requests": number,
            "correct": self.correct,
            "p50_seconds": round(statistics.median(self.seconds), 4),
            "p95_seconds": round(percentile(self.seconds, 95), 4),
            "requests_per_second": round(statistics.median(self.rates), 3),
            "requests_per_second_by_round": [round(rate, 3) for rate in self.rates],
            "tokens_per_request": round(generated / number, 1),
            "accepted_share": round(self.counted[ACCEPTED] / (self.counted[DRAFTED] or 1), 4),
            "steps_per_request": round(self.counted[STEPS] / number, 2) if peer.metrics else None,
        }


async def block(
    session: aiohttp.ClientSession,
    peer: Peer,
    asked: str,
    level: int,
    seconds: float,
    least: int,
    chance: Random,
    into: Answers,
) -> None:
    """``level`` clients for ``seconds``, and until ``least`` requests were asked."""
    name, request_of = ASKED[asked]
    task = TASKS[name]
    before = await engine_counters(peer.metrics) if peer.metrics else {}
    begin = time.perf_counter()
    requests = 0

    async def client() -> None:
        nonlocal requests
        while requests < least or time.perf_counter() - begin < seconds:
            requests += 1
            request = request_of(drawn(chance))
            path, body = peer.body(task, request)
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


async def measure_group(
    session: aiohttp.ClientSession, group: Group, peers: Sequence[Peer], number: int
) -> list[dict[str, Any]]:
    """Summaries by peer and level."""
    found: dict[tuple[str, int], Answers] = defaultdict(Answers)
    order = Random(SEED)
    for turn in range(group.rounds):
        for level in group.levels:
            for peer in order.sample(peers, len(peers)):
                if level not in group.only.get(peer.name, group.levels):
                    continue
                # The same requests for every engine; others in each group, round and level, and for
                # a second peer of one engine, which would find the first one's in its cache.
                twin = [p.metrics for p in peers[: peers.index(peer)]].count(peer.metrics)
                chance = Random(f"{SEED} {number} {turn} {level} {twin}")
                into = found[peer.name, level]
                await block(session, peer, group.asked, level, group.seconds, level, chance, into)
                print(
                    f"{group.asked}, {level} at once, {peer.name}: {into.summary(peer)}", flush=True
                )
    by_name = {peer.name: peer for peer in peers}
    memory = {peer.name: round(peer.memory() / 1e9, 2) for peer in peers if peer.memory}
    return [
        {
            "asked": group.asked,
            "peer": name,
            "level": level,
            **answers.summary(by_name[name]),
            "memory_gb": memory.get(name),
        }
        for (name, level), answers in found.items()
    ]


async def measure(plan: Plan, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Warm up, then measure every group."""
    found = []
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        for number, group in enumerate(plan.groups):
            used = [peer for peer in peers if peer.name in group.peers]
            for peer in used:
                least = plan.warm_up if peer.name in STACKS else 3
                chance = Random(f"{SEED} warm-up {number}")
                level = 8 if peer.metrics else 1
                await block(session, peer, group.asked, level, 0, least, chance, Answers())
            found += await measure_group(session, group, used, number)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--plan", choices=PLANS, nargs="+", required=True)
    arguments = parser.parse_args()
    for name in arguments.plan:
        plan = PLANS[name]
        if not (plan.folder / "base").is_dir():
            sys.exit(f"bench: {plan.folder} is not there: run `make full-size`")
        names = [peer for peer in WORDS if any(peer in group.peers for group in plan.groups)]
        drafter = drafter_cost.measure(plan.folder / "base")
        with tempfile.TemporaryDirectory() as logs, ExitStack() as running:
            model = Model(plan.folder / "base", plan.folder / "adapters", plan.variables)
            peers = start(names, model, Path(logs), running)
            found = asyncio.run(measure(plan, peers))
        figures = {**setting(plan.name, plan.folder / "base"), "drafter": drafter}
        save(f"bench-{name}", {**figures, "measured": found})
    publish()


def publish() -> None:
    """Write all results that there are into the pages that show them."""
    results = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("bench-*.json")}
    by_page: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for name, result in sorted(results.items()):
        by_page["arithmetic" in name].append(result)
    picture(by_page[False], RESULTS / "bench.png")
    show("bench", tables(by_page[False]))
    scores = {
        path.stem.removeprefix("scores-"): json.loads(path.read_text())
        for path in sorted(RESULTS.glob("scores-*.json"))
    }
    text = "\n\n".join([scores_table(scores), arithmetic_table(by_page[True])])
    show("bench-arithmetic", text, ARITHMETIC_PAGE)


if __name__ == "__main__":
    main()
