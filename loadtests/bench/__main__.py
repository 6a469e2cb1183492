"""Benchmark the service against alternatives: ``python -m loadtests.bench --plan demo``.

All peers of a group stay running and are measured in turn, block by block, in a new random order
each round, so a slow machine affects all of them. No request is repeated and every answer is
checked. Each group writes one result file and one table. The exit code is 1 if our service gave a
wrong answer or the gateway costs more than a tenth of its engine's requests/s.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from loadtests.bench.measure import Answers, block, patient
from loadtests.bench.peers import SERVICES, WORDS, Peer, Starter
from loadtests.bench.tables import kept, publish
from loadtests.report import save, setting
from loadtests.service import ROOT, memory
from serving.tasks.registry import TASKS

SEED = 4_2026
LEAST_KEPT = 0.9
"""Minimum share of the engine's requests/s that must remain through the gateway."""


@dataclass(frozen=True)
class Group:
    """Peers compared on one task in one table."""

    question: str
    task: str
    peers: tuple[str, ...]
    """Keys of ``WORDS``."""
    levels: tuple[int, ...]
    """Numbers of concurrent requests."""
    seconds: float
    """How long clients send requests in each block."""
    rounds: int
    only: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Levels of peers that are measured at only some of them."""


@dataclass(frozen=True)
class Plan:
    """Measurements of one model."""

    model: str
    folder: Path
    """Folder with ``base`` and ``adapters``."""
    groups: Mapping[str, Group]
    warm_up: int
    """Warm-up requests for each of our services; other peers get 3."""
    variables: Mapping[str, str]
    """Environment variables for all peers."""


FIRST, *OTHERS = TASKS
"""The first task gets every measurement; the others only the comparison of peers."""
WAYS = "How do other ways to answer compare?"
COST = "What do the gateway and an adapter cost?"
ARITHMETIC = "Which arithmetic suits this CPU?"
SMALL_CACHE = {"ENGINE_CPU_KV_CACHE_GIB": "1"}
"""Lets all peers fit into memory together."""
FULL_SIZE = ROOT / "finetune" / "runs" / "full-size"
DTYPES = ("bfloat16", "float32")
PLANS = {
    "demo": Plan(
        "demo",
        ROOT / "finetune" / "demo",
        {
            FIRST: Group(
                WAYS,
                FIRST,
                ("transformers", "vllm", "vllm-lora", "ngram", "ours"),
                (1, 8, 32, 64),
                6,
                2,
            ),
            **{
                name: Group(WAYS, name, ("vllm", "ngram", "ours"), (1, 32), 8, 2) for name in OTHERS
            },
            "cost": Group(COST, FIRST, ("ours", "engine", "base"), (32,), 5, 12),
            "arithmetic": Group(ARITHMETIC, FIRST, DTYPES, (1, 32), 6, 4),
        },
        warm_up=300,
        variables=SMALL_CACHE,
    ),
    "full-size": Plan(
        "full-size stand-in",
        FULL_SIZE,
        {
            FIRST: Group(WAYS, FIRST, ("transformers", "vllm", "ngram", "ours"), (1,), 20, 2),
            # Excludes plain vLLM's own LoRA on CPU: at batch size 8 it used 10 GB and was killed.
            "many": Group(WAYS, FIRST, ("vllm-lora", "ours"), (8, 32), 20, 1),
            "arithmetic": Group(ARITHMETIC, FIRST, DTYPES, (1, 8), 15, 2),
        },
        warm_up=100,
        variables=SMALL_CACHE,
    ),
    "gpu": Plan(
        "full-size stand-in",
        FULL_SIZE,
        {
            FIRST: Group(
                WAYS,
                FIRST,
                ("transformers", "vllm", "ngram", "ours"),
                (1, 8, 32, 64, 128, 256, 512),
                10,
                3,
                only={"transformers": (1,)},
            ),
            **{
                name: Group(WAYS, name, ("vllm", "ngram", "ours"), (1, 64, 256), 10, 2)
                for name in OTHERS
            },
            "cost": Group(COST, FIRST, ("ours", "engine", "base"), (32, 256), 10, 3),
        },
        warm_up=400,
        variables={"ENGINE_GPU_MEMORY_SHARE": "0.18", "ENGINE_MAX_NUM_SEQS": "512"},
    ),
}


async def measure(plan: Plan, group: Group, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Warm up, measure, and return summaries by peer and level."""
    found: dict[tuple[str, int], Answers] = defaultdict(Answers)
    order, task = Random(SEED), TASKS[group.task]
    async with patient() as session:
        for peer in peers:
            least = plan.warm_up if peer.name in SERVICES else 3
            level = 8 if peer.metrics else 1
            rng = Random(f"{SEED} warm-up")
            await block(session, peer, task, level, rng, Answers(), least=least)
        for turn in range(group.rounds):
            for level in group.levels:
                for peer in order.sample(peers, len(peers)):
                    if level not in group.only.get(peer.name, group.levels):
                        continue
                    # Every engine gets the same requests. They differ by round and level, and
                    # between peers that share an engine, to avoid hits in its cache.
                    twin = [p.metrics for p in peers[: peers.index(peer)]].count(peer.metrics)
                    rng, into = Random(f"{SEED} {turn} {level} {twin}"), found[peer.name, level]
                    await block(session, peer, task, level, rng, into, group.seconds, level)
                    print(f"{level} at once, {peer.name}: {into.summary(peer)}", flush=True)
    by_name = {peer.name: peer for peer in peers}
    bytes_of = {peer.name: memory(peer.pid) for peer in peers}
    return [
        {
            "peer": name,
            "level": level,
            **answers.summary(by_name[name]),
            "memory_gb": round(bytes_of[name] / 1e9, 2),
        }
        for (name, level), answers in found.items()
    ]


def faults(measured: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a message for each failed requirement."""
    for row in measured:
        if row["peer"] in (*SERVICES, "engine") and row["correct"] < row["requests"]:
            yield f"{row['peer']}: {row['requests'] - row['correct']} answers were wrong"
    share = kept(measured)
    if share is not None and share < LEAST_KEPT:
        yield f"the gateway leaves {share:.2f} of its engine's requests/s, less than {LEAST_KEPT}"


def run(name: str, plan: Plan, group_name: str) -> list[str]:
    """Measure one group and save its result; return a message for each failed requirement."""
    group = plan.groups[group_name]
    names = [peer for peer in WORDS if peer in group.peers]
    with tempfile.TemporaryDirectory() as logs, ExitStack() as running:
        peers = Starter(plan.folder, Path(logs), running).start(names)
        measured = asyncio.run(measure(plan, group, peers))
    figures = {
        **setting(plan.model, plan.folder / "base"),
        "question": group.question,
        "task": group.task,
        "measured": measured,
    }
    save(f"bench-{name}-{group_name}", figures)
    return list(faults(measured))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--plan", choices=PLANS, nargs="+", required=True)
    parser.add_argument("--group", help="only this one of each plan")
    arguments = parser.parse_args()
    groups = {group for name in arguments.plan for group in PLANS[name].groups}
    if arguments.group not in (None, *groups):
        parser.error(f"--group {arguments.group} is none of {', '.join(sorted(groups))}")
    found = []
    for name in arguments.plan:
        plan = PLANS[name]
        if not (plan.folder / "base").is_dir():
            sys.exit(f"bench: {plan.folder} is not there: run `make full-size`")
        os.environ.update(plan.variables)
        for group in plan.groups:
            if arguments.group in (None, group):
                found += run(name, plan, group)
    publish()
    if found:
        sys.exit(f"bench: {'; '.join(found)}")


if __name__ == "__main__":
    main()
