"""Measure the latency that the gateway itself adds to a request: ``make bench-gateway``.

The engine is replaced by one that computes nothing and answers after a fixed delay
(``loadtests.bench.upstream``). Gateways share one core; the upstream and the client (wrk) share
another. Gateways are measured in turn, block by block, in a new random order each round; idle ones
are suspended. Added latency is a gateway's median minus the median of direct requests to the same
upstream in the same round.

LiteLLM's proxy and vLLM's router pass the engine request through. The bare route reads a profile
and writes the prompt and constraint. Only our gateway checks the answer. The exit code is 1 if ours
reaches less than ``LEAST_OF_BARE`` of the bare route's requests/s.
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

from loadtests.bench import wrk
from loadtests.bench.peers import decided, routed
from loadtests.report import machine, markdown, save, show
from loadtests.service import family, free_port, served
from serving.tasks.registry import TASKS

SEED = 9_2026
BODIES = 500
LEVELS = {0: (1, 16), 20: (1,)}
"""Numbers of concurrent requests, by the upstream's delay in milliseconds."""
ROUNDS, BLOCK_SECONDS = 15, 2
WARM_UP_SECONDS, SETTLE_SECONDS = 3, 0.3
PEERS = Path(sys.prefix) / "peers"
"""Virtual environment of the third-party gateways."""
DIRECT, OURS, TRACED = "direct", "ours", "traced"
BARE, LITELLM, ROUTER = "bare", "litellm", "vllm-router"
LEAST_OF_BARE = 0.75
WORDS = {
    OURS: "our gateway",
    TRACED: "our gateway, sending traces",
    BARE: "a FastAPI route that validates and asks, no more",
    LITELLM: "LiteLLM's proxy",
    ROUTER: "vLLM's router (Rust)",
}


@dataclass(frozen=True)
class Target:
    """A gateway or upstream to measure."""

    url: str
    bodies: Path
    pid: int | None = None
    """Process to suspend while other targets are measured."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Resume the target's processes, wait for deferred work, and suspend them on exit."""
        processes = family(self.pid) if self.pid else []
        for process in processes:
            process.resume()
        time.sleep(SETTLE_SECONDS)
        yield
        for process in processes:
            process.suspend()


@dataclass(frozen=True)
class Gateway:
    """How to start a gateway."""

    command: Sequence[str]
    """``{port}`` is replaced."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables; ``{port}`` is replaced here too."""
    ready: str = "/readyz"
    """Path that returns 200 when the gateway is ready."""
    is_asked_for_tasks: bool = True
    """Whether it serves task routes. If not, it gets the requests our gateway sends the engine."""


def cores() -> tuple[int, int]:
    """Return the core for gateways and the core for everything else."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("gateway: two cores are needed, one of them for the gateways alone")
    return first, others[0]


def _uvicorn(app: str, port: str) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", app, "--port", port, "--log-level", "warning"]
    return [*command, "--no-access-log", "--loop", "uvloop", "--http", "httptools"]


def gateways(engine: str, folder: Path) -> dict[str, Gateway]:
    """Return the gateways to compare, configured for the upstream at ``engine``."""
    ours = (sys.executable, "-m", "serving.gateway")
    address = {"PORT": "{port}", "ENGINE_URL": engine}
    traced = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{engine}/v1/traces",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    router = f"{PEERS}/bin/vllm-router --worker-urls {engine} --host 127.0.0.1 --port {{port}}"
    router += f" --policy round_robin --prometheus-port {free_port()} --log-level warning"
    # The configuration forwards requests for the task's adapter. JSON is valid YAML.
    config = folder / "litellm.yaml"
    adapter = next(iter(TASKS))
    parameters = {"model": f"text-completion-openai/{adapter}", "api_base": f"{engine}/v1"}
    models = [{"model_name": adapter, "litellm_params": {**parameters, "api_key": "none"}}]
    config.write_text(json.dumps({"model_list": models}), encoding="utf-8")
    litellm = f"{PEERS}/bin/litellm --config {config} --host 127.0.0.1 --port {{port}}"
    local = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    return {
        OURS: Gateway(ours, address),
        TRACED: Gateway(ours, {**address, **traced}),
        BARE: Gateway(_uvicorn("loadtests.bench.bare_gateway:app", "{port}"), address),
        LITELLM: Gateway(
            [*litellm.split(), "--num_workers", "1", "--telemetry", "False"],
            local,
            "/health/readiness",
            is_asked_for_tasks=False,
        ),
        ROUTER: Gateway(router.split(), {}, "/health", is_asked_for_tasks=False),
    }


def write_bodies(folder: Path) -> tuple[Path, Path]:
    """Write the same requests as bodies for an engine and for a gateway; return both paths."""
    task, rng = next(iter(TASKS.values())), Random(SEED)
    requests = [task.draw(rng) for _ in range(BODIES)]
    paths = folder / "engine.jsonl", folder / "gateway.jsonl"
    for path, ask in zip(paths, (decided(None), routed), strict=True):
        path.write_bytes(b"".join(ask(task, request)[1] + b"\n" for request in requests))
    return paths


def start(delay_ms: int, folder: Path, running: ExitStack) -> dict[str, Target]:
    """Start the upstream and all gateways; ``running`` stops them on exit."""
    gateway_core, other_core = cores()

    def serve(
        name: str, command: Sequence[str], core: int, variables: Mapping[str, str], ready: str
    ) -> int:
        pinned = ["taskset", "-c", str(core), *command]
        server = served(pinned, ready, folder / f"{name}.log", {**os.environ, **variables})
        return running.enter_context(server).pid

    engine_bodies, gateway_bodies = write_bodies(folder)
    port = str(free_port())
    engine = f"http://127.0.0.1:{port}"
    delay = {"UPSTREAM_DELAY_MS": str(delay_ms)}
    upstream = _uvicorn("loadtests.bench.upstream:app", port)
    serve("upstream", upstream, other_core, delay, f"{engine}/health")
    targets = {DIRECT: Target(f"{engine}/v1/completions", engine_bodies)}
    for name, gateway in gateways(engine, folder).items():
        port = str(free_port())
        url = f"http://127.0.0.1:{port}"
        command = [word.format(port=port) for word in gateway.command]
        variables = {key: value.format(port=port) for key, value in gateway.variables.items()}
        pid = serve(name, command, gateway_core, variables, url + gateway.ready)
        if gateway.is_asked_for_tasks:
            targets[name] = Target(f"{url}/gen/routine/{next(iter(TASKS))}", gateway_bodies, pid)
        else:
            targets[name] = Target(f"{url}/v1/completions", engine_bodies, pid)
    return targets


def take_turns(
    targets: Mapping[str, Target], connections: int, rng: Random
) -> dict[str, list[wrk.Run]]:
    """Measure the targets in turn; return each target's runs in round order."""
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
        for name in rng.sample(list(targets), len(targets)):
            runs[name].append(ask(name, BLOCK_SECONDS))
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    return runs


def summary(runs: Mapping[str, Sequence[wrk.Run]]) -> dict[str, dict[str, float]]:
    """Compute medians over all rounds; differences are taken within each round."""
    found = {}
    for name, own in runs.items():
        found[name] = {
            "requests": sum(run.requests for run in own),
            "per_second": round(statistics.median(run.per_second for run in own), 1),
        }
        for key in ("median_ms", "p99_ms"):
            values, direct = ([getattr(run, key) for run in r] for r in (own, runs[DIRECT]))
            added = [a - b for a, b in zip(values, direct, strict=True)]
            found[name][f"{key}_over_direct"] = round(statistics.median(added), 3)
    return found


def measure() -> dict[str, Any]:
    """Measure every case for every target."""
    setting = machine("aiohttp", "fastapi", "uvicorn")
    os.sched_setaffinity(0, {cores()[1]})
    rng, cases, sizes = Random(SEED), [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for delay, levels in LEVELS.items():
            with ExitStack() as running:
                targets = start(delay, Path(temporary), running)
                for at_once in levels:
                    found = summary(take_turns(targets, at_once, rng))
                    cases.append({"upstream_ms": delay, "at_once": at_once, "targets": found})
                sizes = {
                    name: sum(process.memory_info().rss for process in family(target.pid))
                    for name, target in targets.items()
                    if target.pid
                }
    versions = {name: _peer_version(name) for name in (LITELLM, ROUTER)}
    return {**setting, "peers": versions, "cases": cases, "resident_bytes": sizes}


def _peer_version(name: str) -> str:
    """Return the version of a package in the peers' environment."""
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    command = [str(PEERS / "bin" / "python"), "-c", code]
    return subprocess.check_output(command, text=True).strip()


def table(figures: Mapping[str, Any]) -> str:
    """Format the results and the test setup as Markdown."""
    cases = {(case["upstream_ms"], case["at_once"]): case["targets"] for case in figures["cases"]}
    fast, full, slow = cases[0, 1], cases[0, 16], cases[20, 1]
    head = ["", "adds, 0 ms upstream: median (p99)", "20 ms upstream", "requests/s, 16 at once",
            "memory"]  # fmt: skip
    cells = [
        [
            words,
            f"{fast[name]['median_ms_over_direct']:.2f} ms "
            f"({fast[name]['p99_ms_over_direct']:.2f})",
            f"{slow[name]['median_ms_over_direct']:.2f} ms",
            f"{full[name]['per_second']:,.0f}",
            f"{figures['resident_bytes'][name] / 1e6:,.0f} MB",
        ]
        for name, words in WORDS.items()
    ]
    line = (
        f"Every gateway has one core of {figures['machine']}; medians of {ROUNDS} interleaved "
        f"rounds; no model: the upstream computes nothing, and answers "
        f"{full[DIRECT]['per_second']:,.0f} requests/s itself. aiohttp {figures['aiohttp']}, "
        f"FastAPI {figures['fastapi']}, LiteLLM {figures['peers'][LITELLM]}, vllm-router "
        f"{figures['peers'][ROUTER]}, Python {figures['python']}; {figures['date']}."
    )
    return f"{markdown(head, cells)}\n\n{line}"


def main() -> None:
    if not PEERS.exists():
        sys.exit("gateway: LiteLLM and vLLM's router are missing; run `make bench-gateway`")
    figures = measure()
    save("gateway", figures)
    show("bench-gateway", table(figures))
    full = next(case for case in figures["cases"] if case["at_once"] > 1)["targets"]
    share = full[OURS]["per_second"] / full[BARE]["per_second"]
    if share < LEAST_OF_BARE:
        sys.exit(f"gateway: {share:.2f} of the bare route's requests/s, less than {LEAST_OF_BARE}")


if __name__ == "__main__":
    main()
