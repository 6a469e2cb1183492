"""Measure the README's seven figures in one run: ``make figures``.

Clones the repository and starts it cold (no environment, no package cache), then warm. Sends
requests one at a time and concurrently. Adapter scores are read from the lock file.
"""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from loadtests.bench.measure import Answers, block, patient
from loadtests.bench.peers import Peer, routed, routed_correct
from loadtests.bench.tables import seconds
from loadtests.report import README, markdown, save, setting, setting_line, show
from loadtests.service import ROOT, own_ports, served
from serving.lock import Lock
from serving.tasks.registry import TASKS

DEMO = ROOT / "finetune" / "demo"
REQUESTS, WARM_UP, MANY, BLOCK_SECONDS = 100, 50, 32, 10
SEED = 20_261


@contextmanager
def started(folder: Path, log: Path, **variables: str) -> Iterator[tuple[float, Peer]]:
    """Run ``make serve`` in ``folder``; yield the seconds until ready, and the peer to query."""
    environment, url, engine = own_ports()
    begin = time.monotonic()
    with served(
        ["make", "serve"], f"{url}/readyz", log, {**environment, **variables}, folder
    ) as process:
        waited = time.monotonic() - begin
        yield waited, Peer("ours", url, engine, routed, routed_correct, process.pid)


async def ask(peer: Peer) -> dict[str, Any]:
    """Measure each task with one request at a time and with ``MANY`` at once.

    Raises:
        RuntimeError: an answer was wrong.
    """
    found, rng = {}, Random(SEED)
    async with patient() as session:
        for task in TASKS.values():
            await block(session, peer, task, 8, rng, Answers(), least=WARM_UP)
            for level in (1, MANY):
                answers = Answers()
                time_limit = 0 if level == 1 else BLOCK_SECONDS
                await block(session, peer, task, level, rng, answers, time_limit, REQUESTS)
                if answers.correct < len(answers.seconds):
                    raise RuntimeError(f"{task.name}: a wrong answer")
                found[f"{task.name}, {level}"] = answers.summary(peer)
    return found


def measure() -> dict[str, Any]:
    """Measure all figures; times are in seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary) / "clone", Path(temporary) / "serve.log"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        with started(folder, log, PIP_NO_CACHE_DIR="1", UV_NO_CACHE="1") as (cold, _):
            pass
        with started(folder, log) as (warm, peer):
            answers = asyncio.run(ask(peer))
    return {
        **setting("demo", DEMO / "base"),
        "cold_start_seconds": round(cold, 1),
        "warm_start_seconds": round(warm, 1),
        "answers": answers,
    }


def table(figures: dict[str, Any]) -> str:
    """Format the README's table."""
    cells = [
        ("cold `make serve` to ready, packages downloaded", f"{figures['cold_start_seconds']} s"),
        ("warm `make serve` to ready", f"{figures['warm_start_seconds']} s"),
    ]
    for name in TASKS:
        alone, many = (figures["answers"][f"{name}, {level}"] for level in (1, MANY))
        cells += [
            (
                f"`{name}`, one at a time: median and p95; forward passes an answer",
                f"{seconds(alone['p50_seconds'])}, {seconds(alone['p95_seconds'])}; "
                f"{alone['steps_per_request']:.1f}",
            ),
            (
                f"`{name}`, {MANY} at once: answers a second; p95",
                f"{many['requests_per_second']:.0f}; {seconds(many['p95_seconds'])}",
            ),
        ]
    scores = {n: e.scores for n, e in Lock.load(DEMO / "adapters").adapters.items() if e.scores}
    words = "; ".join(
        f"`{name}` {score.with_adapter:.1%}, {score.odd:.1%}, {score.without_adapter:.1%}"
        for name, score in scores.items()
    )
    requests = next(iter(scores.values())).requests
    asked = (
        f"decided exactly as the coach, {requests:,} unseen requests: usual, odd, without adapter"
    )
    cells.append((asked, words))
    return markdown(("", ""), cells) + "\n\n" + setting_line(figures)


def main() -> None:
    figures = measure()
    save("figures", figures)
    show("figures", table(figures), README)


if __name__ == "__main__":
    main()
