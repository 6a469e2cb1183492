"""Engine liveness check: ``python -m serving.engine.health``, for a container's health check or an
orchestrator's liveness probe. Exits with 1 and one line if the engine on this machine hangs.

vLLM's own ``/health`` only says that the API server answers, which it still does when an engine
core hangs. Here each engine core is asked for one token, so that it has work, and must make a step.
Waiting for the token itself would call a busy engine dead.
"""

from __future__ import annotations

import sys
import threading
import time
import urllib.request
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families

from serving.engine.settings import EngineSettings
from serving.process import StartError, load

PATIENCE_SECONDS = 20
"""Longer than a step takes: the longest is a full batch of prompts, on a CPU."""
POLL_SECONDS = 0.25
STEPS = "vllm:iteration_tokens_total_count"
ONE_TOKEN = b'{"prompt": ".", "max_tokens": 1}'


class NoProgress(Exception):
    """The engine stands still: the message says where."""


def steps(url: str) -> dict[str, float]:
    """By engine core, its steps so far. One that nobody has asked yet may be missing.

    Raises:
        OSError: the API server does not answer.
    """
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_SECONDS) as response:
        families = text_string_to_metric_families(response.read().decode())
    samples = (sample for family in families for sample in family.samples)
    return {found.labels["engine"]: found.value for found in samples if found.name == STEPS}


def _generate(url: str, core: int) -> None:
    headers = {"content-type": "application/json", "x-data-parallel-rank": str(core)}
    ask = urllib.request.Request(f"{url}/v1/completions", ONE_TOKEN, headers)
    with suppress(OSError), urllib.request.urlopen(ask, timeout=PATIENCE_SECONDS) as response:
        response.read()


def check(url: str, cores: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """See the engine get on.

    Args:
        url: the engine's.
        cores: how many engine cores it has.
        patience_seconds: how long it may take.

    Raises:
        NoProgress: a core makes no step.
        OSError: the API server does not answer.
    """
    deadline = time.monotonic() + patience_seconds
    before = steps(url)
    for core in range(cores):
        threading.Thread(target=_generate, args=(url, core), daemon=True).start()
    while True:
        now = steps(url)
        names = map(str, range(cores))
        stuck = [name for name in names if now.get(name, 0) <= before.get(name, 0)]
        if not stuck:
            return
        if time.monotonic() > deadline:
            which = ", ".join(stuck)
            raise NoProgress(f"no step of engine core {which} in {patience_seconds:g} s")
        time.sleep(POLL_SECONDS)


def main() -> None:
    try:
        settings = load(EngineSettings)
        check(f"http://127.0.0.1:{settings.engine_port}", settings.engine_data_parallel)
    except (NoProgress, OSError, StartError) as error:
        sys.exit(f"engine: {error}")


if __name__ == "__main__":
    main()
