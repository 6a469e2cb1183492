"""Measure what the gateway itself costs: ``make bench-gateway``.

The engine is replaced by one that computes nothing (``loadtests.bench.upstream``). Servers take
turns, block by block, in a new random order each round. Added latency is a gateway's median minus
the median of direct requests to the same upstream in the same round. The processor time of a
request bounds what one core carries; unlike a rate, it does not depend on what else runs.

The bare route validates a profile, writes the prompt and asks; it has no limits, checks, metrics or
logs. The exit code is 1 if our gateway needs more than ``MOST_OF_BARE`` of its processor time.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import psutil

from loadtests.bench.measure import Answers, block, patient
from loadtests.bench.peers import Peer, decided, decided_correct, routed, routed_correct
from loadtests.report import machine, markdown, save, show
from loadtests.service import free_port, served
from serving.tasks.registry import TASKS

SEED = 9_2026
ROUNDS, BLOCK_SECONDS, WARM_UP = 15, 2, 500
LEVELS = (1, 16)
"""Numbers of concurrent requests."""
MOST_OF_BARE = 1.33
DIRECT, OURS, TRACED, BARE = "direct", "ours", "traced", "bare"
WORDS = {
    OURS: "our gateway",
    TRACED: "our gateway, sending traces",
    BARE: "a FastAPI route that validates and asks, no more",
}


def start(logs: Path, running: ExitStack) -> Iterator[Peer]:
    """Start the upstream, and the gateways in front of it; ``running`` stops them."""

    def serve(name: str, *module: str, ready: str = "/readyz", **variables: str) -> tuple[str, int]:
        port = str(free_port())
        command = [sys.executable, "-m", *(word.format(port=port) for word in module)]
        environment = {**os.environ, **variables, "PORT": port}
        url = f"http://127.0.0.1:{port}"
        process = served(command, url + ready, logs / f"{name}.log", environment)
        return url, running.enter_context(process).pid

    uvicorn = ("uvicorn", "--port", "{port}", "--log-level", "warning", "--no-access-log")
    engine, pid = serve(DIRECT, *uvicorn, "loadtests.bench.upstream:app", ready="/health")
    yield Peer(DIRECT, engine, None, decided(None), decided_correct, pid)
    url, pid = serve(BARE, *uvicorn, "loadtests.bench.bare_gateway:app", ENGINE_URL=engine)
    yield Peer(BARE, url, None, routed, decided_correct, pid)
    traces = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{engine}/v1/traces",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    for name, variables in ((OURS, {}), (TRACED, traces)):
        url, pid = serve(name, "serving.gateway", ENGINE_URL=engine, **variables)
        yield Peer(name, url, None, routed, routed_correct, pid)


async def measure(peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Return each server's figures at each level.

    Raises:
        RuntimeError: an answer was wrong.
    """
    task, order = next(iter(TASKS.values())), Random(SEED)
    rounds: dict[tuple[str, int], list[Answers]] = defaultdict(list)
    spent: dict[tuple[str, int], float] = defaultdict(float)
    async with patient() as session:
        for peer in peers:
            await block(session, peer, task, 16, Random(SEED), Answers(), least=WARM_UP)
        for number in range(ROUNDS):
            for level in LEVELS:
                for peer in order.sample(peers, len(peers)):
                    answers, rng = Answers(), Random(f"{SEED} {number}")
                    before = _processor_seconds(peer)
                    await block(session, peer, task, level, rng, answers, BLOCK_SECONDS)
                    spent[peer.name, level] += _processor_seconds(peer) - before
                    rounds[peer.name, level].append(answers)
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    medians = {key: [statistics.median(a.seconds) for a in own] for key, own in rounds.items()}
    found = []
    for (name, level), own in rounds.items():
        requests = sum(len(answers.seconds) for answers in own)
        if sum(answers.correct for answers in own) < requests:
            raise RuntimeError(f"{name}: a wrong answer")
        pairs = zip(medians[name, level], medians[DIRECT, level], strict=True)
        added_ms = round(1000 * statistics.median(a - b for a, b in pairs), 3)
        processor_us = round(1e6 * spent[name, level] / requests)
        found.append({"server": name, "level": level, "requests": requests, "added_ms": added_ms,
                      "processor_us": processor_us})  # fmt: skip
    return found


def _processor_seconds(peer: Peer) -> float:
    times = psutil.Process(peer.pid).cpu_times()
    return float(times.user + times.system)


def table(figures: Mapping[str, Any]) -> str:
    """Format the results and the test setup as Markdown."""
    rows = {(row["server"], row["level"]): row for row in figures["measured"]}
    head = ["", *(f"{n} at once: adds, processor time, a core carries" for n in LEVELS)]
    cells = []
    for name, words in WORDS.items():
        own = [rows[name, level] for level in LEVELS]
        cells.append([words, *(f"{r['added_ms']:.2f} ms, {r['processor_us']} µs, "
                               f"{1e6 / r['processor_us']:,.0f}/s" for r in own)])  # fmt: skip
    line = (
        f"Medians of {ROUNDS} interleaved rounds; no model; gateway, upstream and client share "
        f"{figures['machine']}. aiohttp {figures['aiohttp']}, FastAPI {figures['fastapi']}, Python "
        f"{figures['python']}; {figures['date']}."
    )
    return f"{markdown(head, cells)}\n\n{line}"


def main() -> None:
    with tempfile.TemporaryDirectory() as logs, ExitStack() as running:
        measured = asyncio.run(measure(list(start(Path(logs), running))))
    figures = {**machine("aiohttp", "fastapi", "uvicorn"), "measured": measured}
    save("gateway", figures)
    show("bench-gateway", table(figures))
    spent = {row["server"]: row["processor_us"] for row in measured if row["level"] > 1}
    share = spent[OURS] / spent[BARE]
    if share > MOST_OF_BARE:
        sys.exit(f"gateway: {share:.2f} of the bare route's time, more than {MOST_OF_BARE}")


if __name__ == "__main__":
    main()
