"""What the gateway itself adds to a request: ``python -m loadtests.gateway_bench``.

The engine is replaced by one that computes nothing and answers after a fixed time
(``loadtests.upstream``). Gateways have one core; the upstream, the client (wrk) and what collects
spans have another. The gateways take turns, block by block, in a new order every round; whose turn
it is not is stopped. What one adds is its median less that of the same upstream asked directly, in
the same round.

LiteLLM's proxy and vLLM's own router pass the engine's request through; the bare route reads a
profile and writes the prompt and the constraint; only ours checks the answer.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from loadtests import wrk
from loadtests.collector import Collector, collector
from loadtests.drawn import drawn
from loadtests.peers import decided, routed
from loadtests.report import machine, markdown, save, show
from loadtests.stack import free_port, served
from serving.contract.month import profile_behind
from serving.contract.tasks import TASKS

SEED = 9_2026
BODIES = 500
LEVELS = {0: (1, 16), 20: (1,)}
"""Requests at once, by milliseconds of the upstream."""
ROUNDS, BLOCK_SECONDS = 15, 2
WARM_UP_SECONDS, SETTLE_SECONDS = 3, 0.3
PEERS = Path(sys.prefix) / "peers"
"""The virtual environment of what is not ours."""
DIRECT, SILENT, DEFAULT, TRACED = "direct", "silent", "default", "traced"
BARE, LITELLM, ROUTER = "bare", "litellm", "vllm-router"
WORDS = {
    DEFAULT: "our gateway, as it is by default",
    SILENT: "without metrics, traces and logs",
    TRACED: "with traces too",
    BARE: "a FastAPI route that validates and asks, no more",
    LITELLM: "LiteLLM's proxy",
    ROUTER: "vLLM's router (Rust)",
}


@dataclass(frozen=True)
class Target:
    """What is asked, and how."""

    url: str
    bodies: Path
    process: psutil.Process | None = None
    """Stopped while it is not its turn."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Its processes run, and have done what they put off."""
        for process in family(self.process):
            process.resume()
        time.sleep(SETTLE_SECONDS)
        yield
        for process in family(self.process):
            process.suspend()


@dataclass(frozen=True)
class Gateway:
    """A way to start one."""

    command: Sequence[str]
    """``{port}`` and ``{engine}``, the upstream's address, are filled in."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """So are they here."""
    ready: str = "/readyz"
    """Answers 200 when it is."""
    is_ours: bool = True
    """It is asked for a task; others are asked what our gateway asks the engine."""


def family(process: psutil.Process | None) -> list[psutil.Process]:
    """A process and its children."""
    return [process, *process.children(recursive=True)] if process else []


def cores() -> tuple[int, int]:
    """The gateways' core, and everything else's."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("gateway_bench: two cores are needed, one of them for the gateways alone")
    return first, others[0]


@contextmanager
def started(
    command: Sequence[str], core: int, variables: Mapping[str, str], ready: str, log: Path
) -> Iterator[psutil.Process]:
    """A server on one core, until the block ends; its process."""
    pinned = ["taskset", "-c", str(core), *command]
    with served(pinned, ready, log, {**os.environ, **variables}) as process:
        yield psutil.Process(process.pid)


@contextmanager
def upstream(delay_ms: int, core: int, folder: Path) -> Iterator[str]:
    """The engine that computes nothing; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = _uvicorn("loadtests.upstream:app", str(port))
    variables = {"UPSTREAM_DELAY_MS": str(delay_ms)}
    with started(command, core, variables, f"{url}/health", folder / "upstream.log"):
        yield url


def _uvicorn(app: str, port: str) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", app, "--port", port, "--log-level", "warning"]
    return [*command, "--no-access-log", "--loop", "uvloop", "--http", "httptools"]


def gateways(spans: Collector, engine: str, folder: Path) -> dict[str, Gateway]:
    """Those that are compared."""
    ours = (sys.executable, "-m", "serving.gateway")
    address = {"PORT": "{port}", "ENGINE_URL": "{engine}"}
    traced = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": spans.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    silent = (sys.executable, "-m", "loadtests.silent_gateway")
    router = f"{PEERS}/bin/vllm-router --worker-urls {{engine}} --host 127.0.0.1 --port {{port}}"
    router += f" --policy round_robin --prometheus-port {free_port()} --log-level warning"
    litellm = f"{PEERS}/bin/litellm --config {_litellm(engine, folder)} --host 127.0.0.1"
    litellm += " --port {port} --num_workers 1 --telemetry False"
    local = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    return {
        DEFAULT: Gateway(ours, address),
        SILENT: Gateway(silent, {**address, "GATEWAY_LOG_LEVEL": "error"}),
        TRACED: Gateway(ours, {**address, **traced}),
        BARE: Gateway(_uvicorn("loadtests.bare_gateway:app", "{port}"), address),
        LITELLM: Gateway(litellm.split(), local, "/health/readiness", is_ours=False),
        ROUTER: Gateway(router.split(), {}, "/health", is_ours=False),
    }


def _litellm(engine: str, folder: Path) -> Path:
    """A configuration that passes the task's adapter on; JSON is YAML too."""
    parameters = {"model": "text-completion-openai/rate", "api_base": f"{engine}/v1"}
    path = folder / "litellm.yaml"
    models = [{"model_name": "rate", "litellm_params": {**parameters, "api_key": "none"}}]
    path.write_text(json.dumps({"model_list": models}), encoding="utf-8")
    return path


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

    def ask(name: str, seconds: int) -> wrk.Run:
        target = targets[name]
        with target.turn():
            run = wrk.run(target.url, target.bodies, connections, seconds)
        if run.errors:
            raise RuntimeError(f"{name}: {run.errors} of {run.requests} requests failed")
        return run

    for name in targets:
        ask(name, WARM_UP_SECONDS)
    for number in range(ROUNDS):
        order = list(targets)
        chance.shuffle(order)
        for name in order:
            runs[name].append(ask(name, BLOCK_SECONDS))
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
    cases, sizes = [], {}
    with tempfile.TemporaryDirectory() as temporary, collector() as spans:
        folder = Path(temporary)
        engine_bodies, gateway_bodies = write_bodies(folder)
        for delay, levels in LEVELS.items():
            with ExitStack() as stack:
                engine = stack.enter_context(upstream(delay, other_core, folder))
                targets = {DIRECT: Target(f"{engine}/v1/completions", engine_bodies)}
                for name, gateway in gateways(spans, engine, folder).items():
                    port = free_port()
                    url = f"http://127.0.0.1:{port}"
                    filled = {"port": port, "engine": engine}
                    process = stack.enter_context(
                        started(
                            [word.format(**filled) for word in gateway.command],
                            gateway_core,
                            {k: v.format(**filled) for k, v in gateway.variables.items()},
                            url + gateway.ready,
                            folder / f"{name}.log",
                        )
                    )
                    path = "/gen/routine/rate" if gateway.is_ours else "/v1/completions"
                    bodies = gateway_bodies if gateway.is_ours else engine_bodies
                    targets[name] = Target(url + path, bodies, process)
                for at_once in levels:
                    before = len(spans.spans)
                    case = {"upstream_ms": delay, "at_once": at_once}
                    found = summary(take_turns(targets, at_once, chance))
                    recorded = len(spans.spans) - before
                    cases.append({**case, "targets": found, "spans": recorded})
                sizes = {
                    name: sum(process.memory_info().rss for process in family(target.process))
                    for name, target in targets.items()
                }
    versions = {name: _peer_version(name) for name in (LITELLM, ROUTER)}
    return {**setting, "peers": versions, "cases": cases, "resident_bytes": sizes}


def _peer_version(name: str) -> str:
    """The version of a package in the peers' environment."""
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    python = PEERS / "bin" / "python"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def table(figures: Mapping[str, Any]) -> str:
    """The README's table, and what it was measured on."""
    cases = {(case["upstream_ms"], case["at_once"]): case["targets"] for case in figures["cases"]}
    fast, full, slow = cases[0, 1], cases[0, 16], cases[20, 1]
    head = [
        "",
        "added latency, 0 ms upstream: median (p99)",
        "20 ms upstream",
        "requests/s, 16 at once",
        "memory",
    ]
    cells = [
        [
            words,
            f"{_added(fast[name])} ({fast[name]['p99_ms_over_direct']:.2f})",
            _added(slow[name]),
            f"{full[name]['per_second']:,.0f}",
            f"{figures['resident_bytes'][name] / 1e6:,.0f} MB",
        ]
        for name, words in WORDS.items()
    ]
    watching = "; ".join(
        f"{by[DEFAULT]['median_ms_over_silent']:.2f} ms, with traces "
        f"{by[TRACED]['median_ms_over_silent']:.2f} ms ({delay} ms upstream)"
        for delay, by in ((0, fast), (20, slow))
    )
    line = (
        f"Every gateway has one core of {figures['machine']}; medians of {ROUNDS} interleaved "
        f"rounds; no model: the upstream computes nothing, and answers "
        f"{full[DIRECT]['per_second']:,.0f} requests/s itself. aiohttp {figures['aiohttp']}, "
        f"FastAPI {figures['fastapi']}, LiteLLM {figures['peers'][LITELLM]}, vllm-router "
        f"{figures['peers'][ROUTER]}, Python {figures['python']}; {figures['date']}."
    )
    costs = (
        f"Metrics and logs cost {watching}. Behind a slow upstream everything takes longer, "
        "because the core sleeps and its caches go cold."
    )
    return f"{markdown(head, cells)}\n\n{costs}\n\n{line}"


def _added(by: Mapping[str, float]) -> str:
    return f"{by['median_ms_over_direct']:.2f} ms"


def main() -> None:
    if not PEERS.exists():
        sys.exit("gateway_bench: LiteLLM and vLLM's router are missing; run `make bench-gateway`")
    figures = measure()
    save("gateway", figures)
    show("bench-gateway", table(figures))


if __name__ == "__main__":
    main()
