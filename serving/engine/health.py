"""Engine liveness check: ``python -m serving.engine.health``, for container health checks and
liveness probes. Exits with status 1 and a one-line message if the engine on this machine hangs.

vLLM's ``/health`` only shows that the API server responds, which it does even if an engine core
hangs. This check requests one token from each engine core, so that it has work, and expects it to
make a step. Waiting for the token itself would report a busy engine as dead.
"""

import os
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException

from serving.engine.settings import EngineSettings
from serving.metrics import engine_steps
from serving.process import StartError, load

PATIENCE_SECONDS = 20
"""Longer than the longest step: a full batch of prompts on a CPU."""
POLL_SECONDS = 0.25
ONE_TOKEN = b'{"prompt": ".", "max_tokens": 1}'


class NoProgress(Exception):
    """The engine is stuck; the message names the engine cores."""


def steps(url: str) -> dict[str, float]:
    """Return the step count by engine core. A core that has had no request may be missing.

    Raises:
        OSError: the API server does not respond, or not with metrics.
    """
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_SECONDS) as response:
            return engine_steps(response.read().decode())
    except (HTTPException, ValueError) as error:
        raise OSError(f"{url}/metrics: {error!r}") from error


def _generate(url: str, core: int) -> None:
    headers = {
        "authorization": f"Bearer {os.environ.get('VLLM_API_KEY', '')}",
        "content-type": "application/json",
        "x-data-parallel-rank": str(core),
    }
    ask = urllib.request.Request(f"{url}/v1/completions", ONE_TOKEN, headers)
    with (
        suppress(OSError, HTTPException),
        urllib.request.urlopen(ask, timeout=PATIENCE_SECONDS) as response,
    ):
        response.read()


def check(url: str, cores: int, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Check that every engine core makes a step.

    Args:
        url: base URL of the engine.
        cores: number of engine cores.
        patience_seconds: timeout.

    Raises:
        NoProgress: a core makes no step in time.
        OSError: the API server does not respond, or not with metrics.
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
