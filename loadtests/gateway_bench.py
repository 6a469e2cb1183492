"""What the gateway itself adds to a request: ``python -m loadtests.gateway_bench``.

The engine is replaced by one that computes nothing and answers after a fixed time
(``loadtests.upstream``). Gateways have one core; the upstream, the client (wrk) and what collects
spans have another. All gateways run at once and take turns, block by block, in a new order every
round. What one adds is its median less that of the same upstream asked directly, in the same round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from loadtests import wrk
from loadtests.collector import Collector, collector
from loadtests.drawn import drawn
from loadtests.peers import decided, routed
from loadtests.report import machine, markdown, save, show
from loadtests.stack import ROOT, free_port, wait_answer
from serving.contract.month import profile_behind
from serving.contract.tasks import TASKS

SEED = 9_2026
BODIES = 500
CASES = ((0, 1), (20, 1))
"""Milliseconds of the upstream, and requests at once."""
ROUNDS, BLOCK_SECONDS = 21, 2
WARM_UP_SECONDS = 3
DIRECT, SILENT, DEFAULT, TRACED = "direct", "silent", "default", "traced"
WORDS = {
    DIRECT: "the upstream itself",
    SILENT: "the gateway without metrics, traces and logs",
    DEFAULT: "with metrics and logs, as it is by default",
    TRACED: "with traces too, and the metrics of several workers",
}


@dataclass(frozen=True)
class Target:
    """What is asked, and how."""

    url: str
    bodies: Path


@dataclass(frozen=True)
class Gateway:
    """A way to start one."""

    module: str
    variables: Mapping[str, str] = field(default_factory=dict)


def cores() -> tuple[int, int]:
    """The gateways' core, and everything else's."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("gateway_bench: two cores are needed, one of them for the gateways alone")
    return first, others[0]


@contextmanager
def started(
    command: Sequence[str], core: int, variables: Mapping[str, str], ready: str, log: Path
) -> Iterator[None]:
    """A server on one core, until the block ends."""
    environment = {**os.environ, **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, "-m", *command],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_answer(ready, process, log)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def upstream(delay_ms: int, core: int, folder: Path) -> Iterator[str]:
    """The engine that computes nothing; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["uvicorn", "loadtests.upstream:app", "--port", str(port), "--log-level", "warning"]
    command += ["--no-access-log", "--loop", "uvloop", "--http", "httptools"]
    variables = {"UPSTREAM_DELAY_MS": str(delay_ms)}
    with started(command, core, variables, f"{url}/health", folder / "upstream.log"):
        yield url


def gateways(spans: Collector) -> dict[str, Gateway]:
    """Those that are compared."""
    traced = {
        "GATEWAY_WORKERS": "2",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": spans.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    return {
        SILENT: Gateway("loadtests.silent_gateway", {"GATEWAY_LOG_LEVEL": "error"}),
        DEFAULT: Gateway("serving.gateway"),
        TRACED: Gateway("serving.gateway", traced),
    }


def write_bodies(folder: Path) -> tuple[Path, Path]:
    """Files with what is asked of an engine, and of a gateway: the same requests."""
    chance, task = Random(SEED), TASKS["rate"]
    requests = [profile_behind(drawn(chance)) for _ in range(BODIES)]
    paths = folder / "engine.jsonl", folder / "gateway.jsonl"
    for path, ask in zip(paths, (decided(None), routed), strict=True):
        path.write_bytes(b"".join(ask(task, request)[1] + b"\n" for request in requests))
    return paths


def take_turns(
    targets: Mapping[str, Target], connections: int, chance: Random
) -> dict[str, list[wrk.Run]]:
    """Runs by target, in the order of the rounds."""
    runs: dict[str, list[wrk.Run]] = defaultdict(list)
    for target in targets.values():
        wrk.run(target.url, target.bodies, connections, WARM_UP_SECONDS)
    for number in range(ROUNDS):
        order = list(targets)
        chance.shuffle(order)
        for name in order:
            target = targets[name]
            run = wrk.run(target.url, target.bodies, connections, BLOCK_SECONDS)
            if run.errors:
                raise RuntimeError(f"{name}: {run.errors} of {run.requests} requests failed")
            runs[name].append(run)
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    return runs


def summary(runs: Mapping[str, Sequence[wrk.Run]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds; differences are taken within each round."""
    found = {}
    for name, own in runs.items():
        found[name] = {
            "requests": sum(run.requests for run in own),
            "per_second": round(statistics.median(run.per_second for run in own), 1),
        }
        for key in ("median_ms", "p99_ms"):
            values = [getattr(run, key) for run in own]
            found[name][key] = round(statistics.median(values), 3)
            for base in (DIRECT, SILENT):
                others = [getattr(run, key) for run in runs[base]]
                added = [a - b for a, b in zip(values, others, strict=True)]
                found[name][f"{key}_over_{base}"] = round(statistics.median(added), 3)
    return found


def measure() -> dict[str, Any]:
    """Every case, by target."""
    setting = machine("aiohttp", "fastapi", "uvicorn")
    gateway_core, other_core = cores()
    os.sched_setaffinity(0, {other_core})
    chance = Random(SEED)
    found = []
    with tempfile.TemporaryDirectory() as temporary, collector() as spans:
        folder = Path(temporary)
        engine_bodies, gateway_bodies = write_bodies(folder)
        for delay, at_once in CASES:
            before = len(spans.spans)
            with ExitStack() as stack:
                url = stack.enter_context(upstream(delay, other_core, folder))
                targets = {DIRECT: Target(f"{url}/v1/completions", engine_bodies)}
                for name, gateway in gateways(spans).items():
                    port = free_port()
                    variables = {"PORT": str(port), "ENGINE_URL": url, **gateway.variables}
                    own = f"http://127.0.0.1:{port}"
                    log = folder / f"{name}.log"
                    stack.enter_context(
                        started([gateway.module], gateway_core, variables, f"{own}/readyz", log)
                    )
                    targets[name] = Target(f"{own}/gen/routine/rate", gateway_bodies)
                runs = take_turns(targets, at_once, chance)
            found.append(
                {
                    "upstream_ms": delay,
                    "at_once": at_once,
                    "targets": summary(runs),
                    "spans": len(spans.spans) - before,
                }
            )
    return {**setting, "cases": found}


def table(figures: Mapping[str, Any]) -> str:
    """The README's table, and what it was measured on."""
    cases = figures["cases"]
    head = ["added to the upstream's answer: median (99th percentile)"]
    head += [f"{case['upstream_ms']} ms upstream, {case['at_once']} at once" for case in cases]
    cells = []
    for name in (SILENT, DEFAULT, TRACED):
        own = [case["targets"][name] for case in cases]
        cells.append([WORDS[name], *map(_added, own)])
    costs = (
        f"{case['targets'][DEFAULT]['median_ms_over_silent']:.2f} ms, with traces "
        f"{case['targets'][TRACED]['median_ms_over_silent']:.2f} ms ({case['upstream_ms']} ms "
        "upstream)"
        for case in cases
    )
    watching = (
        f"Metrics and logs cost, at the median of {ROUNDS} rounds: {'; '.join(costs)}. Behind a "
        "slow upstream everything takes longer, because the core sleeps and its caches go cold."
    )
    line = (
        f"One core of {figures['machine']}; no model; aiohttp {figures['aiohttp']}, FastAPI "
        f"{figures['fastapi']}, Python {figures['python']}; {figures['date']}."
    )
    return f"{markdown(head, cells)}\n\n{watching}\n\n{line}"


def _added(by: Mapping[str, float]) -> str:
    """The p99 only where a round has requests enough for one."""
    text = f"{by['median_ms_over_direct']:.2f} ms"
    if by["requests"] / ROUNDS >= 1000:
        text += f" ({by['p99_ms_over_direct']:.2f} ms)"
    return text


def main() -> None:
    figures = measure()
    save("gateway", figures)
    show("bench-gateway", table(figures))


if __name__ == "__main__":
    main()
