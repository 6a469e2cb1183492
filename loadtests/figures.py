"""Measure what the README says: ``python -m loadtests.figures``.

Clones the repository, starts it cold (no environment, no package cache) and warm, asks
one request at a time, and writes the figures with hardware and versions into ``loadtests/results``
and between the README's markers. The adapters' scores are those in their lock file.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from random import Random
from typing import Any

from loadtests.drawn import ASKED, drawn
from loadtests.report import markdown, percentile, save, setting, setting_line, show
from loadtests.stack import ROOT, Stack
from serving.contract import month
from serving.contract.lock import Lock
from serving.contract.tasks import TASKS

DEMO = ROOT / "finetune" / "demo"
ROUNDS, WARM_UP = 105, 5
SEED = 20_261


def start_and_stop(
    folder: Path, log: Path, rounds: int, **variables: str
) -> tuple[float, dict[str, list[float]]]:
    """Seconds from ``make serve`` to ready, and of each request after that by what was asked."""
    stack = Stack.start(log, folder, **variables)
    try:
        ready_seconds = stack.wait_ready()
        requests: dict[str, list[float]] = {name: [] for name in ASKED}
        chance = Random(SEED)
        for _ in range(rounds):
            for name, (task, request_of) in ASKED.items():
                requests[name].append(ask(stack.url, task, request_of(drawn(chance))))
        stack.press_ctrl_c()
        stack.wait_stopped()
        return ready_seconds, requests
    finally:
        stack.kill()


def ask(url: str, task: str, asked: Any) -> float:
    """Seconds of one request, whose answer must be right."""
    request = urllib.request.Request(
        f"{url}/gen/routine/{task}",
        asked.model_dump_json().encode(),
        {"content-type": "application/json"},
    )
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.loads(response.read())
    seconds = time.perf_counter() - start
    if task == "month" and asked.rates is None:
        asked = month.with_rates(asked, answer["rates"])
    broken = TASKS[task].check(asked, answer)
    if broken:
        raise RuntimeError(f"a wrong answer: {broken}")
    return seconds


def measure() -> dict[str, Any]:
    """All figures; times in seconds. The first ``WARM_UP`` rounds are not counted."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary) / "clone", Path(temporary) / "serve.log"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        cold, _ = start_and_stop(folder, log, 0, PIP_NO_CACHE_DIR="1", UV_NO_CACHE="1")
        warm, requests = start_and_stop(folder, log, ROUNDS)
    latencies = {}
    for name, seconds in requests.items():
        counted = seconds[WARM_UP:]
        latencies[name] = {
            "median_seconds": round(statistics.median(counted), 4),
            "p95_seconds": round(percentile(counted, 95), 4),
            "requests": len(counted),
        }
    return {
        **setting("demo", DEMO / "base"),
        "cold_start_seconds": round(cold, 1),
        "warm_start_seconds": round(warm, 1),
        "latencies": latencies,
    }


def table(figures: dict[str, Any]) -> str:
    """The README's table."""
    cells = [
        ("cold `make serve` to ready, packages downloaded", f"{figures['cold_start_seconds']} s"),
        ("warm `make serve` to ready", f"{figures['warm_start_seconds']} s"),
    ]
    for name, latency in figures["latencies"].items():
        median, p95 = (f"{1000 * latency[f'{key}_seconds']:.0f} ms" for key in ("median", "p95"))
        words = f"{name}, one at a time, {latency['requests']} requests: median, 95th percentile"
        cells.append((words, f"{median}, {p95}"))
    for name, entry in Lock.load(DEMO / "adapters").adapters.items():
        if entry.scores:
            score = entry.scores
            words = (
                f"{name}: {score.part}s exactly as the coach's, {score.requests:,} unseen requests"
            )
            shares = f"{score.with_adapter:.1%} with adapter, {score.without_adapter:.1%} without"
            cells.append((words, shares))
    return markdown(("measured", ""), cells) + "\n\n" + setting_line(figures)


def main() -> None:
    figures = measure()
    save("start", figures)
    show("figures", table(figures))


if __name__ == "__main__":
    main()
