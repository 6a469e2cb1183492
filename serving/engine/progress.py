"""Does the engine get on with its work? ``python -m serving.engine.progress`` asks the one on this
machine, and ends with 1 and a line if not: a container's health check, an orchestrator's liveness
probe.

vLLM's own ``/health`` says that the API server's process answers; it still does when an engine core
hangs. Here a request for one token gives an idle engine something to do, and then each engine core
with requests must make a step. Waiting for the token would call an engine dead that is only busy.
"""

from __future__ import annotations

import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families

from serving.engine.settings import EngineSettings
from serving.startup import StartError, load

PATIENCE_SECONDS = 20
"""Longer than a step takes: the longest is a full batch of prompts, on a CPU."""
POLL_SECONDS = 0.25
STEPS, RUNNING = "vllm:iteration_tokens_total_count", "vllm:num_requests_running"
NEW: Mapping[str, float] = {STEPS: 0, RUNNING: 0}
"""An engine core that nobody has asked yet may not be counted."""
ONE_TOKEN = b'{"prompt": ".", "max_tokens": 1}'


class NoProgress(Exception):
    """The engine stands still: the message says where."""


def cores(url: str) -> Mapping[str, Mapping[str, float]]:
    """By engine core, its steps so far and its running requests.

    Raises:
        OSError: the API server does not answer.
    """
    with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_SECONDS) as response:
        families = text_string_to_metric_families(response.read().decode())
    found: dict[str, dict[str, float]] = {}
    for family in families:
        for sample in family.samples:
            if sample.name in (STEPS, RUNNING):
                core = found.setdefault(sample.labels["engine"], {**NEW})
                core[sample.name] = sample.value
    return found


def _generate(url: str) -> None:
    ask = urllib.request.Request(
        f"{url}/v1/completions", ONE_TOKEN, {"content-type": "application/json"}
    )
    with suppress(OSError), urllib.request.urlopen(ask, timeout=PATIENCE_SECONDS) as response:
        response.read()


def check(url: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """See the engine get on.

    Args:
        url: the engine's.
        patience_seconds: how long it may take.

    Raises:
        NoProgress: no core makes a step, or one has requests and makes none.
        OSError: the API server does not answer.
    """
    deadline = time.monotonic() + patience_seconds
    before = cores(url)
    threading.Thread(target=_generate, args=(url,), daemon=True).start()
    busy = {name for name, core in before.items() if core[RUNNING]}
    while True:
        now = cores(url)
        moved = {name for name, core in now.items() if core[STEPS] > before.get(name, NEW)[STEPS]}
        stuck = {name for name in busy - moved if now[name][RUNNING]}
        if moved and not stuck:
            return
        if time.monotonic() > deadline:
            names = ", ".join(sorted(stuck or before))
            raise NoProgress(f"no step of core {names} in {patience_seconds:g} s, with requests")
        time.sleep(POLL_SECONDS)


def main() -> None:
    try:
        check(f"http://127.0.0.1:{load(EngineSettings).engine_port}")
    except (NoProgress, OSError, StartError) as error:
        sys.exit(f"engine: {error}")


if __name__ == "__main__":
    main()
